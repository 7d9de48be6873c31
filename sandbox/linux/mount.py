"""mount(2), umount2(2), and network namespaces pinned where `ip netns` finds them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from pathlib import Path

from sandbox.linux.constants import MNT_DETACH, MS_BIND, MS_REC, MS_SHARED, UMOUNT_NOFOLLOW
from sandbox.linux.libc import libc, raise_errno

NETNS_DIRECTORY = Path("/run/netns")

libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def _bytes(text: str | os.PathLike[str] | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(
    source: str | os.PathLike[str] | None,
    target: str | os.PathLike[str],
    fstype: str | None = None,
    flags: int = 0,
    data: str | None = None,
) -> None:
    """mount(2). Raises OSError with the target."""
    if libc.mount(_bytes(source), _bytes(target), _bytes(fstype), flags, _bytes(data)) != 0:
        raise_errno(os.fspath(target))


def umount2(target: str | os.PathLike[str], flags: int = 0) -> None:
    """umount2(2). Raises OSError with the target."""
    if libc.umount2(_bytes(target), flags) != 0:
        raise_errno(os.fspath(target))


def _share(directory: Path) -> None:
    """Makes `directory` a shared mount point, as ip-netns(8) does: an unpin then reaches every mount namespace."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # two of us at once would bind it twice
        try:
            mount(None, directory, None, MS_SHARED | MS_REC)
        except OSError as e:
            if e.errno != errno.EINVAL:  # EINVAL: not a mount point yet
                raise
            mount(directory, directory, None, MS_BIND | MS_REC)
            mount(None, directory, None, MS_SHARED | MS_REC)
    finally:
        os.close(fd)


def bind_netns(netns_fd: int, path: str | os.PathLike[str]) -> None:
    """Pins the network namespace behind `netns_fd` (the caller keeps it) at `path`, as `ip netns` does.

    The directory is made. An existing `path` is refused with FileExistsError. Undone on failure. Raises OSError.
    """
    place = Path(path)
    if not place.parent.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    if place.parent == NETNS_DIRECTORY:
        _share(place.parent)
    os.close(os.open(place, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        mount(f"/proc/self/fd/{netns_fd}", place, None, MS_BIND)
    except BaseException:
        place.unlink()
        raise


def unpin(path: str | os.PathLike[str]) -> None:
    """Takes away what `bind_netns` made. Idempotent."""
    try:
        umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOENT):  # not a mount point, or gone
            raise
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
