"""Files of a configMap or secret volume, all changed at once: the kubelet's AtomicWriter layout.

..2024_05_01_12_00_00.1714564800000/   the present contents
..data -> ..2024_…                     swapped by rename(2): a reader sees the old set or the new one
key    -> ..data/key                   what the container opens
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sandbox.errors import InvalidInput

_DATA = "..data"
_KEY = re.compile(r"^[-._a-zA-Z0-9]{1,253}$")


@dataclass(frozen=True)
class FileContent:
    content: bytes
    mode: int


def check_relative(path: str) -> str:
    """A path below a volume, as a Kubernetes manifest may give it. Raises InvalidInput for any other."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith("..") or "\0" in path:
        raise InvalidInput(f"{path!r} is not a relative path inside a volume", subject=path)
    return path


def check_key(key: str) -> str:
    if not _KEY.match(key) or key.startswith(".."):
        raise InvalidInput(f"{key!r} cannot be the name of a file in a volume", subject=key)
    return key


def make_directory(path: Path) -> None:
    """0755, whatever the daemon's umask is: containers of any user look in. Idempotent; its parent exists."""
    path.mkdir(exist_ok=True)
    path.chmod(0o755)


def write_atomically(directory: Path, files: Mapping[str, FileContent], group: int | None) -> bool:
    """Makes `directory` (which exists, and in which only the daemon writes) show exactly `files`.

    `group` owns what is written and may read it. False when it showed them already. A crash leaves the old set.
    """
    for path in files:
        check_relative(path)
    previous = _target(directory)
    if previous is not None and _shows(previous, files, group):
        return False
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime()) + str(time.time_ns())
    fresh = directory / stamp
    make_directory(fresh)
    for path, file in files.items():
        _write(fresh, path, file, group)
    swap = directory / "..data_tmp"
    swap.unlink(missing_ok=True)
    swap.symlink_to(stamp)
    swap.rename(directory / _DATA)
    _link(directory, {PurePosixPath(path).parts[0] for path in files})
    for entry in os.scandir(directory):
        if entry.name.startswith("..2") and entry.name != stamp:
            shutil.rmtree(entry.path)
    return True


def _write(root: Path, path: str, file: FileContent, group: int | None) -> None:
    target = root / path
    for directory in reversed(target.parents):
        if directory.is_relative_to(root):
            make_directory(directory)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(file.content)
        if group is not None:
            os.fchown(fd, -1, group)
        os.fchmod(fd, _mode(file, group))


def _mode(file: FileContent, group: int | None) -> int:
    return file.mode | (0o440 if group is not None else 0)


def _link(directory: Path, names: set[str]) -> None:
    """The names a container sees: those missing are made, those no longer there are removed."""
    present = {entry.name for entry in os.scandir(directory) if not entry.name.startswith("..")}
    for name in names - present:
        (directory / name).symlink_to(f"{_DATA}/{name}")
    for name in present - names:
        (directory / name).unlink()


def _target(directory: Path) -> Path | None:
    try:
        return directory / (directory / _DATA).readlink()
    except FileNotFoundError:
        return None


def _shows(root: Path, files: Mapping[str, FileContent], group: int | None) -> bool:
    found = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    return found == {str(PurePosixPath(path)) for path in files} and all(
        (root / path).read_bytes() == file.content
        and (root / path).stat().st_mode & 0o7777 == _mode(file, group)
        and (group is None or (root / path).stat().st_gid == group)
        for path, file in files.items()
    )
