"""Directories of one hierarchy: made, listed and removed; processes found and waited for."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path

from sandbox.cgroups.files import read_file
from sandbox.errors import DeadlineExceeded, InvalidInput, KernelError

MAX_DEPTH = 32
MAX_CGROUPS = 65536


def clean(path: str) -> str:
    """A relative path without leading slash. Raises InvalidInput for what could leave the hierarchy."""
    relative = path.strip("/")
    parts = relative.split("/")
    if not relative or len(parts) > MAX_DEPTH or "\0" in relative or any(p in ("", ".", "..") for p in parts):
        raise InvalidInput(f"cgroup path {path!r} is not a relative path without dots", subject=path)
    return relative


TOO_LITTLE_MEMORY = "the memory limit of the cgroup above it is too small even for the kernel's own records"


def make(root: str, path: str) -> list[str]:
    """mkdir -p of `path` below `root`. Returns the directories made, topmost first. Raises KernelError."""
    made: list[str] = []
    target = f"{root}/{path}"
    for _ in range(8):  # another daemon may remove a shared ancestor between our two calls
        try:
            Path(target).mkdir(0o755)
            return [*made, target]
        except FileExistsError:
            return made
        except FileNotFoundError:
            parent = path.rpartition("/")[0]
            if not parent:
                raise KernelError(f"no cgroup hierarchy at {root}", subject=root, errno=errno.ENOENT) from None
            made += [d for d in make(root, parent) if d not in made]
        except OSError as e:
            raise KernelError(
                f"cannot make cgroup {target}",
                operation="mkdir",
                subject=target,
                errno=e.errno or 0,
                hint=TOO_LITTLE_MEMORY if e.errno == errno.ENOMEM else "",
            ) from e
    raise KernelError(f"cannot make cgroup {target}", operation="mkdir", subject=target, errno=errno.ENOENT)


def unmake(directories: list[str]) -> None:
    """Removes what `make` made, last first; what is in use by now stays."""
    for directory in reversed(directories):
        try:
            Path(directory).rmdir()
        except OSError:
            continue


def subtree(directory: str) -> list[str]:
    """The directory and all below it, deepest first. Empty when it does not exist."""
    found: list[str] = []
    pending = [directory]
    while pending and len(found) < MAX_CGROUPS:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                below = [e.path for e in entries if e.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            continue
        found.append(current)
        pending += below
    found.reverse()
    return found


def children(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def processes(directory: str) -> set[int]:
    """Process ids of the subtree; those outside our PID namespace (which read as 0) are left out."""
    found: set[int] = set()
    for each in subtree(directory):
        try:
            text = read_file(f"{each}/cgroup.procs")
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):  # gone meanwhile; a threaded cgroup
                continue
            raise KernelError(f"cannot list processes of {each}", subject=each, errno=e.errno or 0) from e
        found.update(int(line) for line in text.split())
    found.discard(0)
    return found


def rmdir_subtree(directory: str) -> bool:
    """Removes the subtree, deepest first. False when something in it is in use. Raises KernelError."""
    for each in subtree(directory):
        try:
            Path(each).rmdir()
        except FileNotFoundError:
            continue
        except OSError as e:
            if e.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise KernelError(
                f"cannot remove cgroup {each}", operation="rmdir", subject=each, errno=e.errno or 0
            ) from e
    return True


async def readable(fd: int, deadline: float) -> bool:
    """Waits until `fd` is readable; False at the deadline (time.monotonic())."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    loop.add_reader(fd, wake)
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            await woken
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)


async def breathe() -> None:
    """A millisecond for a kernel that has no event to wait for."""
    await asyncio.sleep(0.001)


async def wait_for_exit(pids: set[int], deadline: float) -> bool:
    """Waits until every one of these processes has ended, each by its pidfd. False at the deadline."""
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not await readable(fd, deadline):
                return False
        finally:
            os.close(fd)
    return True


def too_late(directory: str, pids: set[int]) -> DeadlineExceeded:
    listed = ", ".join(map(str, sorted(pids)[:10])) or "none that can be seen"
    return DeadlineExceeded(
        f"cgroup {directory} is still in use by processes {listed}",
        operation="remove cgroup",
        subject=directory,
        hint="a process in uninterruptible sleep (state D) waits for a device or a network file system",
    )
