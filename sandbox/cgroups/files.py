"""cgroupspy's controllers on single directories: typed files, with errors that name what was tried.

cgroupspy walks whole hierarchies to find its nodes; a container needs one directory in each. A `ControllerFiles` is
therefore built directly on the node of one directory, and keeps cgroupspy's typed descriptors.
"""

from __future__ import annotations

import errno
import os
from typing import Any, cast

from cgroupspy.controllers import Controller
from cgroupspy.interfaces import BaseFileInterface
from cgroupspy.nodes import Node

from sandbox.errors import KernelError, NotFound, UnsupportedByHost

MAX_FILE_BYTES = 1 << 20


class ControllerFiles(Controller):  # type: ignore[misc]
    """The files of one controller in one cgroup. `name` is the controller's, as /proc/cgroups has it."""

    name = ""

    def __init__(self, directory: str) -> None:
        super().__init__(Node(directory))
        self.directory = directory

    def path(self, filename: str | bytes) -> str:
        return f"{self.directory}/{os.fsdecode(filename)}"

    def has(self, filename: str | bytes) -> bool:
        return os.access(self.path(filename), os.F_OK)

    def get_property(self, filename: str | bytes) -> str:
        """The content without surrounding space. Raises NotFound (no such cgroup), UnsupportedByHost (no such file)."""
        path = self.path(filename)
        try:
            return read_file(path)
        except OSError as e:
            raise self._error("read", path, e) from e

    def set_property(self, filename: str | bytes, value: object) -> int:
        """One write(2). Raises as `get_property` does, and KernelError when the kernel refuses the value."""
        path = self.path(filename)
        try:
            write_file(path, str(value))
        except OSError as e:
            raise self._error(f"write {value!r} to", path, e) from e
        return 0

    def _error(self, action: str, path: str, e: OSError) -> KernelError | NotFound | UnsupportedByHost:
        if e.errno in (errno.ENOENT, errno.ENODEV):
            if not os.access(self.directory, os.F_OK):
                return NotFound(f"no cgroup {self.directory}", operation=f"{action} {path}", subject=self.directory)
            return UnsupportedByHost(
                f"cgroup controller {self.name} has no file {os.path.basename(path)} on this kernel",  # noqa: PTH119
                operation=f"{action} {path}",
                subject=self.name,
            )
        return KernelError(
            f"cannot {action} {path}",
            operation="cgroup",
            subject=path,
            errno=e.errno or 0,
            hint=_HINTS.get(e.errno, ""),
        )


_HINTS: dict[int | None, str] = {
    errno.EINVAL: "the value is outside what the kernel or the cgroup's parent allows",
    errno.EBUSY: "the cgroup is in use in a way that forbids the change, such as a limit below the present usage",
    errno.EROFS: "the cgroup file system is mounted read-only",
    errno.EACCES: "the daemon needs root and a writable cgroup file system",
}


def read_file(path: str) -> str:
    """A bounded read of a small kernel file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 65536)
        while len(data) < MAX_FILE_BYTES:
            more = os.read(fd, 65536)
            if not more:
                break
            data += more
    finally:
        os.close(fd)
    return data.decode("ascii", "replace").strip()


def write_file(path: str, value: str) -> None:
    """One write(2) to an existing file. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


class LimitFile(BaseFileInterface):  # type: ignore[misc]
    """An integer or the word max; -1 (and None) is max, as our resources spell unlimited."""

    def __get__(self, instance: Any, owner: Any = None) -> int | None:
        return cast("int | None", super().__get__(instance, owner))

    def __set__(self, instance: Any, value: int | None) -> None:
        super().__set__(instance, value)

    def sanitize_get(self, value: str) -> int | None:
        return None if value == "max" else int(value)

    def sanitize_set(self, value: int | None) -> str:
        return "max" if value is None or value < 0 else str(int(value))


class FlatKeyedFile(BaseFileInterface):  # type: ignore[misc]
    """Lines of "key value" (cgroup-v2.rst, "flat keyed"); tolerant of values that are no integers."""

    def __init__(self, filename: str) -> None:
        super().__init__(filename, readonly=True)

    def __get__(self, instance: Any, owner: Any = None) -> dict[str, int]:
        return cast("dict[str, int]", super().__get__(instance, owner))

    def sanitize_get(self, value: str) -> dict[str, int]:
        return flat_keyed(value)


class TextFile(BaseFileInterface):  # type: ignore[misc]
    """The text as it is."""

    def __get__(self, instance: Any, owner: Any = None) -> str:
        return cast("str", super().__get__(instance, owner))

    def __set__(self, instance: Any, value: str) -> None:
        super().__set__(instance, value)

    def sanitize_get(self, value: str) -> str:
        return value

    def sanitize_set(self, value: Any) -> str:
        return str(value)


def flat_keyed(text: str) -> dict[str, int]:
    """ "key value" lines as a dictionary; lines of another form are skipped."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.lstrip("-").isdigit():
            found[key] = int(value)
    return found
