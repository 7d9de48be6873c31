"""Directories whose contents were written by containers: made and removed without trusting what is in them."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path, PurePosixPath

from sandbox.errors import KernelError
from sandbox.linux import trees
from sandbox.linux.constants import MNT_DETACH, UMOUNT_NOFOLLOW
from sandbox.linux.mount import mount, umount2

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
            made = True
            try:
                os.mkdir(part, mode, dir_fd=fd)
            except FileExistsError:
                made = False
            try:
                child = os.open(part, _O_DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    return
                raise
            os.close(fd)
            fd = child
            if made:  # by descriptor: a container may have put a link in its place by now, which chmod would follow
                os.fchmod(fd, mode)
    finally:
        os.close(fd)


async def remove_tree(path: Path) -> None:
    """`linux.trees.remove_tree` of what may also be a file, a link, or below mounts. Idempotent. Raises OSError."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for mount_point in mounts_below(path):
        KernelTmpfs().unmount(mount_point)
    await asyncio.to_thread(trees.remove_tree, path)


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
