"""A place where bytes go through a block device whose throughput a cgroup can limit."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError, UnsupportedByHost
from sandbox.experiments.interrupts import undisturbed

MOUNT_PATH = "/experiment"
FILL_BYTES = 1 << 20
BLOCK_RANGE = (4 << 10, 1 << 20)
"""Below a page busybox' dd does not align its buffer, and falls back to the page cache where the kernel insists."""


@dataclass(frozen=True)
class Disk:
    """`target` is the file or device as the container sees it, `size_bytes` how much of it may be overwritten."""

    device: str
    description: str
    target: str
    size_bytes: int
    volume: dict[str, Any]
    security: dict[str, Any]

    @property
    def mount(self) -> dict[str, Any]:
        return {"name": "disk", "mountPath": MOUNT_PATH}


def block_size(bytes_per_second: float) -> int:
    """A hundred blocks a second where that is possible: a power of two, so that direct I/O is aligned."""
    size, most = BLOCK_RANGE
    while size * 2 <= min(bytes_per_second / 64, most):
        size *= 2
    return size


def disk_below(path: Path) -> str:
    """major:minor of the block device that holds `path`; empty for file systems without one (overlay, tmpfs, btrfs)."""
    number = path.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    return device if os.major(number) and Path("/sys/dev/block", device).exists() else ""


def device_name(device: str) -> str:
    return Path("/sys/dev/block", device).resolve().name


@contextmanager
def file_on_disk(root: Path, device: str, size_bytes: int) -> Iterator[Disk]:
    """A file of real blocks (holes would be read from nowhere) in a directory of its own below `root`."""
    directory = root / f"experiment-{secrets.token_hex(4)}"
    file = directory / "data"
    try:
        _fill(directory, file, size_bytes)
        yield Disk(
            device=device,
            description=f"a file on {device_name(device)} ({device})",
            target=f"{MOUNT_PATH}/{file.name}",
            size_bytes=size_bytes,
            volume={"name": "disk", "hostPath": {"path": str(directory), "type": "Directory"}},
            security={},
        )
    finally:
        with undisturbed(), suppress(FileNotFoundError):
            file.unlink(missing_ok=True)
            directory.rmdir()


def _fill(directory: Path, file: Path, size_bytes: int) -> None:
    try:
        directory.mkdir(mode=0o700)
        with file.open("wb") as out:
            for _ in range(0, size_bytes, FILL_BYTES):
                out.write(b"\xa5" * FILL_BYTES)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise SandboxError(
            f"cannot make a file of {size_bytes} bytes below {str(directory.parent)!r}",
            operation="prepare the disk",
            subject=str(file),
            errno=error.errno or 0,
        ) from error


@contextmanager
def loop_device(root: Path, size_bytes: int) -> Iterator[Disk]:
    """A loop device over a file that was unlinked at once. Raises UnsupportedByHost where there are none."""
    file = root / f"experiment-{secrets.token_hex(4)}.disk"
    device = ""
    try:
        try:
            file.touch(mode=0o600)
            os.truncate(file, size_bytes)
            device = _losetup("--find", "--show", str(file))
        except OSError as error:
            raise SandboxError(
                f"cannot make a file of {size_bytes} bytes in {str(root)!r}",
                operation="prepare the disk",
                errno=error.errno or 0,
            ) from error
        finally:
            file.unlink(missing_ok=True)
        number = Path(device).stat().st_rdev
        name = f"{os.major(number)}:{os.minor(number)}"
        yield Disk(
            device=name,
            description=f"loop device {Path(device).name} ({name})",
            target=MOUNT_PATH,
            size_bytes=size_bytes,
            volume={"name": "disk", "hostPath": {"path": device, "type": "BlockDevice"}},
            security={"privileged": True},  # the Pod API has no other way to a block device
        )
    finally:
        if device:
            with undisturbed():
                _losetup("--detach", device)


def _losetup(*arguments: str) -> str:
    try:
        done = subprocess.run(["losetup", *arguments], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError as error:
        raise _no_device("there is no losetup command", "apt install mount") from error
    if done.returncode != 0:
        raise _no_device(done.stderr.strip() or f"losetup ended with {done.returncode}", "modprobe loop")
    return done.stdout.strip()


def _no_device(reason: str, hint: str) -> UnsupportedByHost:
    return UnsupportedByHost(
        f"no block device can be throttled here: the daemon's root is on none, and no loop device can be had: {reason}",
        operation="find a block device",
        hint=hint,
    )
