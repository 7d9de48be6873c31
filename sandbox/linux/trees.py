"""Directory trees that somebody else filled, taken away without trusting what is in them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sandbox.linux.constants import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV
from sandbox.linux.openat2 import openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def remove_tree(path: Path | str, *, dir_fd: int | None = None) -> None:
    """rm -rf of the directory `path`, on one mount, following no link. Idempotent. Raises OSError with what stays.

    However deep the tree is, it takes two descriptors and no recursion: a directory that is not empty is first moved
    up to the top. A mount in the tree is left as it is and ends the removal with EXDEV or EBUSY.
    """
    try:
        top = os.open(path, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        full = _empty(top, top, 0)
        while full:
            full += _empty_child(top, full.pop(), len(full))
    finally:
        os.close(top)
    os.rmdir(path, dir_fd=dir_fd)


def _empty_child(top: int, name: str, taken: int) -> list[str]:
    child = openat2(top, name, _DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
    try:
        moved = _empty(child, top, taken)
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=top)
    return moved


def _empty(directory: int, top: int, taken: int) -> list[str]:
    """Removes what is in `directory`; directories that are not empty get names in `top`, which are returned."""
    moved: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
                continue
            try:
                os.rmdir(entry.name, dir_fd=directory)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                moved.append(_move_up(directory, entry.name, top, taken + len(moved)))
    return moved


def _move_up(directory: int, name: str, top: int, number: int) -> str:
    """The name that the directory has in `top` from now on. What lies there already keeps its own."""
    if directory == top:
        return name
    while True:
        new = f".removed-{number}"
        try:
            os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            number += 1  # somebody chose this very name
        else:
            return new
