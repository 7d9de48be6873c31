"""Directories whose contents were written by containers: made and removed without trusting what is in them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path, PurePosixPath

from sandbox.errors import KernelError
from sandbox.linux.constants import MNT_DETACH, UMOUNT_NOFOLLOW
from sandbox.linux.mount import mount, umount2

_MAX_ENTRIES_AT_ONCE = 256
_O_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class KernelTmpfs:
    """`ports.Tmpfs` on the kernel."""

    def mount(self, path: Path, size_bytes: int | None, mode: int) -> None:
        if os.path.ismount(path):
            return
        options = f"mode={mode:o}" + (f",size={size_bytes}" if size_bytes is not None else "")
        try:
            mount("tmpfs", path, "tmpfs", 0, options)
        except OSError as error:
            raise KernelError(
                f"a tmpfs cannot be mounted on {path}",
                operation=f"mount tmpfs({options})",
                subject=str(path),
                errno=error.errno or 0,
            ) from error

    def unmount(self, path: Path) -> None:
        try:
            umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # no mount point, or gone
                raise


def make_below(root: Path, relative: str, mode: int) -> None:
    """mkdir -p of `relative` below `root`, never through a symbolic link; where one is in the way, nothing is made.

    What lies behind the link is then judged by whoever resolves the path beneath `root` when mounting.
    """
    fd = os.open(root, _O_DIRECTORY)
    try:
        for part in PurePosixPath(relative).parts:
            try:
                os.mkdir(part, mode, dir_fd=fd)
                os.chmod(part, mode, dir_fd=fd)
            except FileExistsError:
                pass
            try:
                child = os.open(part, _O_DIRECTORY, dir_fd=fd)
            except (NotADirectoryError, OSError) as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    return
                raise
            os.close(fd)
            fd = child
    finally:
        os.close(fd)


async def remove_tree(path: Path) -> None:
    """rm -rf that crosses no mount and follows no link. Idempotent. Raises KernelError when something stays.

    Large trees are left to rm(1) in a process of its own, so that a pod with a million files holds up nobody.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for mount_point in mounts_below(path):
        KernelTmpfs().unmount(mount_point)
    if _is_small(path):
        shutil.rmtree(path)
        return
    process = await asyncio.create_subprocess_exec(
        "rm", "-rf", "--one-file-system", "--", str(path), stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    if process.returncode:
        reason = stderr[-200:].decode("utf-8", "replace").strip()
        raise KernelError(f"{path} cannot be removed: {reason}", operation="remove directory", subject=str(path))


def mounts_below(path: Path) -> list[Path]:
    """Mount points at or below `path` in the daemon's mount namespace, deepest first (a container with Bidirectional
    propagation can make some)."""
    prefix = os.fsencode(path)
    text = Path("/proc/self/mountinfo").read_bytes()
    if prefix not in text:
        return []
    found = []
    for line in text.splitlines():
        point = line.split(b" ")[4].decode("unicode_escape").encode("latin-1")
        if point == prefix or point.startswith(prefix + b"/"):
            found.append(Path(os.fsdecode(point)))
    return sorted(found, key=lambda p: len(p.parts), reverse=True)


def _is_small(path: Path) -> bool:
    count = 0
    pending = [path]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                count += 1
                if count > _MAX_ENTRIES_AT_ONCE:
                    return False
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
    return True
