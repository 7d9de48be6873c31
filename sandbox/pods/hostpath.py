"""hostPath volumes: what must be at the path, and what is made there."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from sandbox.errors import InvalidInput
from sandbox.pods.atomic import make_directory

_TESTS: dict[str, tuple[str, Callable[[int], bool]]] = {
    "Directory": ("a directory", stat.S_ISDIR),
    "DirectoryOrCreate": ("a directory", stat.S_ISDIR),
    "File": ("a file", stat.S_ISREG),
    "FileOrCreate": ("a file", stat.S_ISREG),
    "Socket": ("a socket", stat.S_ISSOCK),
    "CharDevice": ("a character device", stat.S_ISCHR),
    "BlockDevice": ("a block device", stat.S_ISBLK),
}
_CREATES = ("", "DirectoryOrCreate", "FileOrCreate")


def check_host_path(volume: str, path: str, kind: str) -> None:
    """Looks only. Raises InvalidInput when the path is not what `kind` says, or is not there and not to be made."""
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise _error(volume, path, kind, "is not an absolute path without '..'")
    if kind and kind not in _TESTS:
        raise _error(volume, path, kind, f"has the unknown type {kind!r}")
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if kind in _CREATES:
            return
        raise _error(volume, path, kind, "does not exist") from None
    except OSError as error:
        raise _error(volume, path, kind, "cannot be looked at", error.errno or 0) from error
    if kind:
        name, test = _TESTS[kind]
        if not test(mode):
            raise _error(volume, path, kind, f"is not {name}")


def prepare_host_path(volume: str, path: str, kind: str) -> Path:
    """Checks, and makes what is missing: directories 0755, files 0644, as the kubelet does. Idempotent.

    Nothing says a type ("") also makes a directory, as the container runtimes do.
    """
    check_host_path(volume, path, kind)
    place = Path(path)
    if kind in _CREATES and not place.exists():
        try:
            if kind == "FileOrCreate":
                place.touch(mode=0o644)
                place.chmod(0o644)
            else:
                _make_directories(place)
        except OSError as error:
            raise _error(volume, path, kind, "cannot be made", error.errno or 0) from error
    return place


def _make_directories(place: Path) -> None:
    """mkdir -p with 0755; what is there keeps its mode."""
    for directory in reversed([directory for directory in (place, *place.parents) if not directory.exists()]):
        make_directory(directory)


def _error(volume: str, path: str, kind: str, what: str, errno: int = 0) -> InvalidInput:
    return InvalidInput(
        f"hostPath {path!r} of volume {volume!r} {what}",
        operation=f"check hostPath type {kind or 'any'}",
        subject=path,
        errno=errno,
    )
