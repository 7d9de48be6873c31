"""A layer's tar to a directory that overlayfs can take as a lower one; nothing is ever written outside it.

tarfile only parses. Every parent directory is opened with openat2(2) beneath the layer's root, following no symbolic
link, and every object is made in that directory with a name of one component. Source: OCI image-spec `layer.md`;
overlayfs.rst for whiteouts (character device 0:0) and opaque directories (trusted.overlay.opaque).
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tarfile
import threading
from pathlib import Path
from typing import Any

from sandbox.errors import InvalidInput, SandboxError, StateError
from sandbox.images.streams import Readable, TarStream, UnpackLimits, corrupt, read_members
from sandbox.linux.constants import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV
from sandbox.linux.openat2 import openat2
from sandbox.linux.trees import remove_tree

WHITEOUT_PREFIX = ".wh."
WHITEOUT_META_PREFIX = ".wh..wh."
OPAQUE_MARKER = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
MAX_ID = (1 << 32) - 2
"""uid_t -1 means "leave it" to chown(2)."""
MAX_NAME_BYTES = 255

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PAX_XATTR = "SCHILY.xattr."
_LAYERS_FAULT = frozenset(
    (
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EXDEV,
    )
)
"""Errors that come of what the layer says; the others are the host's."""

_DECIMAL_TIME = re.compile(r"([0-9]{1,11})\.([0-9]{1,20})")
"""A float, as tarfile keeps it, does not hold the nanoseconds of today."""

Components = tuple[str, ...]


def unpack(
    source: Readable, directory: Path, limits: UnpackLimits, subject: str, stop: threading.Event | None = None
) -> str:
    """Unpacks a layer (plain, gzip or zstd) into the empty `directory`; returns its diff_id. Blocks: for a thread.

    Needs root. Raises InvalidInput for a layer that is malformed, beyond a bound or would leave the directory; the
    caller removes the directory then. Whoever unpacks owns `directory`: nothing else writes in it meanwhile.
    """
    stream = TarStream(source, limits, subject, stop or threading.Event())
    with _Unpacker(directory, stream, limits, subject) as unpacker:
        for member in read_members(stream, limits, subject):
            try:
                unpacker.add(member)
            except OSError as error:
                kind = InvalidInput if error.errno in _LAYERS_FAULT else StateError
                raise kind(
                    f"{subject}: entry {member.name[:200]!r} cannot be unpacked",
                    operation="unpack layer",
                    subject=member.name[:200],
                    errno=error.errno or 0,
                ) from error
        unpacker.set_directory_times()
    return stream.finish()


def split_member_path(name: str, limits: UnpackLimits, subject: str) -> Components:
    """The components of an entry's path below the layer's root; () is the root. Raises InvalidInput."""
    if "\0" in name:
        raise corrupt(subject, f"entry {name[:80]!r} has a NUL byte in its path")
    if name.startswith("/"):
        raise corrupt(subject, f"entry {name[:80]!r} has an absolute path")
    components = tuple(c for c in name.split("/") if c not in ("", "."))
    if ".." in components:
        raise corrupt(subject, f"entry {name[:80]!r} leaves the layer")
    if len(os.fsencode(name)) >= limits.path_bytes or len(components) > limits.path_components:
        raise corrupt(subject, f"entry {name[:80]!r}… has a path longer than {limits.path_bytes} bytes or too deep")
    if any(len(os.fsencode(c)) > MAX_NAME_BYTES for c in components):
        raise corrupt(subject, f"entry {name[:80]!r}… has a name longer than {MAX_NAME_BYTES} bytes")
    return components


class _Unpacker:
    """The state of one layer being unpacked: the root, the parent used last, the times still to be set."""

    def __init__(self, directory: Path, stream: TarStream, limits: UnpackLimits, subject: str) -> None:
        self._directory = directory
        self._stream = stream
        self._limits = limits
        self._subject = subject
        self._root = -1
        self._parent_fd = -1
        self._parent: Components = ()
        self._times: dict[Components, int] = {}

    def __enter__(self) -> _Unpacker:
        self._root = os.open(self._directory, _DIRECTORY | os.O_NOFOLLOW)
        return self

    def __exit__(self, *exc: object) -> None:
        self._forget_parent()
        os.close(self._root)

    def add(self, member: tarfile.TarInfo) -> None:
        """Makes one entry. An entry that is there already is replaced, unless both are directories."""
        components = split_member_path(member.name, self._limits, self._subject)
        if not components:
            if member.isdir():
                self._directory_attributes(components, os.dup(self._root), member)
                return
            raise corrupt(self._subject, f"its root is not a directory but of type {member.type!r}")
        if any(c.startswith(WHITEOUT_PREFIX) for c in components[:-1]):
            if any(c.startswith(WHITEOUT_META_PREFIX) for c in components[:-1]):
                return  # what aufs kept for itself
            raise corrupt(self._subject, f"entry {member.name[:80]!r} lies below a whiteout")
        name = components[-1]
        if name.startswith(WHITEOUT_PREFIX):
            self._whiteout(components, member)
            return
        if not 0 <= member.uid <= MAX_ID or not 0 <= member.gid <= MAX_ID:
            raise corrupt(self._subject, f"entry {member.name[:80]!r} has the owner {member.uid}:{member.gid}")
        parent = self._open_parent(components[:-1])
        if member.isdir():
            self._add_directory(parent, components, member)
            return
        self._clear(parent, components)
        if member.isreg():
            self._add_file(parent, name, member)
        elif member.islnk():
            self._add_hard_link(parent, name, member)
        elif member.issym():
            os.symlink(self._symlink_target(member), name, dir_fd=parent)
            self._finish_special(parent, name, member)
        elif member.isfifo() or member.ischr() or member.isblk():
            self._add_node(parent, name, member)
        else:
            raise corrupt(self._subject, f"entry {member.name[:80]!r} has the unknown type {member.type!r}")

    def set_directory_times(self) -> None:
        """At the end, deepest first: making an entry changes its directory's time."""
        for components in sorted(self._times, key=len, reverse=True):
            fd = self._open_directory(components)
            try:
                os.utime(fd, ns=(self._times[components], self._times[components]))
            finally:
                os.close(fd)

    # Parents

    def _open_directory(self, components: Components) -> int:
        return openat2(self._root, "/".join(components) or ".", _DIRECTORY, 0, _RESOLVE)

    def _forget_parent(self) -> None:
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
        self._parent_fd = -1

    def _open_parent(self, components: Components) -> int:
        """A descriptor that stays ours; missing directories are made, root's and 0755."""
        if self._parent_fd >= 0 and self._parent == components:
            return self._parent_fd
        self._forget_parent()
        try:
            fd = self._open_directory(components)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            fd = self._make_parents(components)
        self._parent_fd, self._parent = fd, components
        return fd

    def _make_parents(self, components: Components) -> int:
        fd = os.dup(self._root)
        try:
            for name in components:
                opaque = False
                found = _lstat(fd, name)
                if found is not None and _is_whiteout(found):
                    os.unlink(name, dir_fd=fd)
                    found, opaque = None, True
                if found is None:
                    os.mkdir(name, 0o755, dir_fd=fd)
                elif not stat.S_ISDIR(found.st_mode):
                    kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
                    raise corrupt(self._subject, f"{'/'.join(components)[:80]!r} has entries, but {name!r} is {kind}")
                below = openat2(fd, name, _DIRECTORY, 0, _RESOLVE)
                os.close(fd)
                fd = below
                if found is None:
                    os.fchmod(fd, 0o755)
                if opaque:
                    os.setxattr(fd, OPAQUE_XATTR, b"y")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _clear(self, parent: int, components: Components) -> os.stat_result | None:
        """Removes what has this name already; returns what it was."""
        name = components[-1]
        found = _lstat(parent, name)
        if found is None:
            return None
        if stat.S_ISDIR(found.st_mode):
            remove_tree(name, dir_fd=parent)
            depth = len(components)
            self._times = {key: value for key, value in self._times.items() if key[:depth] != components}
        else:
            os.unlink(name, dir_fd=parent)
        return found

    # Entries

    def _add_directory(self, parent: int, components: Components, member: tarfile.TarInfo) -> None:
        name = components[-1]
        found = _lstat(parent, name)
        if found is None or not stat.S_ISDIR(found.st_mode):
            self._clear(parent, components)
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = openat2(parent, name, _DIRECTORY, 0, _RESOLVE)
        if found is not None and _is_whiteout(found):
            os.setxattr(fd, OPAQUE_XATTR, b"y")
        self._directory_attributes(components, fd, member)

    def _directory_attributes(self, components: Components, fd: int, member: tarfile.TarInfo) -> None:
        """Takes over `fd`."""
        try:
            self._attributes(fd, member)
        finally:
            os.close(fd)
        self._times[components] = self._time(member)

    def _add_file(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        self._stream.charge(member.size)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            if member.sparse is None:
                self._stream.copy(member.size, lambda data: _write_all(fd, data))
            else:
                self._write_sparse(fd, member)
            self._attributes(fd, member)
            time_ns = self._time(member)
            os.utime(fd, ns=(time_ns, time_ns))
        finally:
            os.close(fd)

    def _write_sparse(self, fd: int, member: tarfile.TarInfo) -> None:
        """The map is checked here: tarfile's own reader loops on one that overlaps."""
        end = 0
        sparse_map: Any = member.sparse
        for offset, size in sparse_map:
            if size == 0:
                continue  # padding of the table
            if offset < end or size < 0 or offset + size > member.size:
                raise corrupt(self._subject, f"entry {member.name[:80]!r} has a malformed sparse map")
            end = offset + size
            os.lseek(fd, offset, os.SEEK_SET)
            self._stream.copy(size, lambda data: _write_all(fd, data))
        os.ftruncate(fd, member.size)

    def _add_hard_link(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        target = split_member_path(member.linkname, self._limits, self._subject)
        if not target or any(c.startswith(WHITEOUT_PREFIX) for c in target):
            raise corrupt(self._subject, f"hard link {member.name[:80]!r} points to {member.linkname[:80]!r}")
        try:
            source = self._open_directory(target[:-1])
        except OSError as error:
            raise self._bad_link(member, error) from error
        try:
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            raise self._bad_link(member, error) from error
        finally:
            os.close(source)

    def _bad_link(self, member: tarfile.TarInfo, error: OSError) -> SandboxError:
        return InvalidInput(
            f"{self._subject}: hard link {member.name[:80]!r} points to {member.linkname[:80]!r}, "
            "which is no file of the same layer",
            operation="unpack layer",
            subject=member.name[:200],
            errno=error.errno or 0,
        )

    def _symlink_target(self, member: tarfile.TarInfo) -> str:
        target = member.linkname
        if not target or "\0" in target or len(os.fsencode(target)) >= self._limits.path_bytes:
            raise corrupt(self._subject, f"symbolic link {member.name[:80]!r} has a bad target")
        return target

    def _add_node(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        if member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        else:
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            if not 0 <= member.devmajor < 1 << 12 or not 0 <= member.devminor < 1 << 20:
                raise corrupt(self._subject, f"entry {member.name[:80]!r} has a bad device number")
            os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
        self._finish_special(parent, name, member)

    def _finish_special(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        """Owner, mode and time of what cannot be opened; `name` was made here, and nobody else writes."""
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            os.chmod(name, member.mode & 0o7777, dir_fd=parent)
        time_ns = self._time(member)
        os.utime(name, ns=(time_ns, time_ns), dir_fd=parent, follow_symlinks=False)

    def _attributes(self, fd: int, member: tarfile.TarInfo) -> None:
        """The owner first: chown(2) clears setuid bits and capabilities."""
        os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            if key.startswith(_PAX_XATTR) and _wanted_xattr(key[len(_PAX_XATTR) :]):
                _set_xattr(fd, key[len(_PAX_XATTR) :], value.encode("utf-8", "surrogateescape"))

    def _time(self, member: tarfile.TarInfo) -> int:
        """Nanoseconds; what the file system cannot hold is refused."""
        if not -(1 << 31) <= float(member.mtime) < 1 << 34:
            raise corrupt(self._subject, f"entry {member.name[:80]!r} has the time {member.mtime}")
        exact = _DECIMAL_TIME.fullmatch(member.pax_headers.get("mtime", ""))
        if exact:
            return int(exact[1]) * 1_000_000_000 + int(exact[2][:9].ljust(9, "0"))
        return int(float(member.mtime) * 1_000_000_000)

    def _whiteout(self, components: Components, member: tarfile.TarInfo) -> None:
        """`.wh.NAME` hides NAME of the layers below; the marker hides all that the directory has there."""
        name = components[-1]
        parent = self._open_parent(components[:-1])
        if name == OPAQUE_MARKER:
            os.setxattr(parent, OPAQUE_XATTR, b"y")
            return
        if name.startswith(WHITEOUT_META_PREFIX):
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in ("", ".", ".."):
            raise corrupt(self._subject, f"entry {member.name[:80]!r} is a whiteout of {hidden!r}")
        found = _lstat(parent, hidden)
        if found is None:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        elif stat.S_ISDIR(found.st_mode):
            # The layer itself put a directory there: it replaces the hidden one instead of merging with it.
            fd = openat2(parent, hidden, _DIRECTORY, 0, _RESOLVE)
            try:
                os.setxattr(fd, OPAQUE_XATTR, b"y")
            finally:
                os.close(fd)


def _wanted_xattr(name: str) -> bool:
    """File capabilities and user.*; trusted.* and user.overlay.* would steer overlayfs, others are the host's."""
    return name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))


def _set_xattr(fd: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP or not name.startswith("user."):
            raise  # a program without its capabilities is broken; without a user's remark it is not


def _lstat(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=parent)
    except FileNotFoundError:
        return None


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
