"""Reading one file of an image as overlayfs would show it, without mounting anything.

Layers are immutable and written by `unpack` alone, so a check of a component holds until the file is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from sandbox.errors import InvalidInput
from sandbox.images.unpack import OPAQUE_XATTR

MAX_SYMLINKS = 40
MAX_PATH_BYTES = 4096
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def read_file(layers: Sequence[str], path: str, limit: int) -> bytes | None:
    """The content of `path` in the image of `layers` (lowest first), or None where there is no such file.

    Symbolic links are followed inside the image only. Raises InvalidInput when it is no regular file (a FIFO or device
    is never opened), is larger than `limit` bytes, or its links go round.
    """
    found = _lookup(layers, path)
    if found is None:
        return None
    try:
        # Before the open, since opening a device can already do something.
        if not stat.S_ISREG(Path(found).lstat().st_mode):
            raise InvalidInput(f"{path} in the image is not a regular file", operation="read image", subject=path)
        fd = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise InvalidInput(f"{path} in the image cannot be read", subject=path, errno=error.errno or 0) from error
    with os.fdopen(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if status.st_size > limit:
            raise InvalidInput(
                f"{path} in the image has {status.st_size} bytes, more than the {limit} that are read",
                operation="read image",
                subject=path,
            )
        return file.readall()


def _lookup(layers: Sequence[str], path: str) -> str | None:
    """The host path of what `path` is after all symbolic links; only its kind is still unchecked."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES or "\0" in path:
        return None
    # One entry a level: the host directories that are merged there, topmost first.
    levels = [list(reversed(layers))]
    todo = _components(path)
    links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            levels = levels[:-1] or levels
            continue
        found, below = _step(levels[-1], name)
        if found is None:
            return None
        if below:
            levels.append(below)
            continue
        if Path(found).is_symlink():
            links += 1
            target = str(Path(found).readlink())
            if links > MAX_SYMLINKS or len(todo) > MAX_PATH_BYTES:
                raise InvalidInput(f"{path} in the image has too many symbolic links", subject=path)
            if target.startswith("/"):
                levels = levels[:1]
            todo += _components(target)
            continue
        return found if not todo else None
    return levels[-1][0]


def _components(path: str) -> list[str]:
    """In reverse: the next one is the last."""
    return [c for c in path.split("/") if c not in ("", ".")][::-1]


def _step(merged: list[str], name: str) -> tuple[str | None, list[str]]:
    """(topmost entry, the merged directories when it is one); (None, []) where there is none or it is hidden."""
    below: list[str] = []
    for directory in merged:
        path = f"{directory}/{name}"
        try:
            status = os.lstat(path)
        except OSError as error:
            if error.errno in _ABSENT:
                continue
            raise
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            break
        if not stat.S_ISDIR(status.st_mode):
            if below:
                break
            return path, []
        below.append(path)
        if _is_opaque(path):
            break
    return (below[0], below) if below else (None, [])


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            return False
        raise
