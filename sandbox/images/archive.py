"""Where an image comes from: a tar (a file or a pipe, perhaps gzipped) or a directory, as files by name.

A tar is staged as it streams by, since its manifest may come last: each file is hashed while it is written under a
number, and the names in the tar are only keys of a table, never paths on this host.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
import threading
from pathlib import Path
from typing import Any, Protocol

from sandbox.errors import InvalidInput
from sandbox.images.blobs import BlobWriter, StagedBlob
from sandbox.images.streams import CHUNK_BYTES, Readable, Stopped, TarStream, UnpackLimits, corrupt, read_members

MAX_DOCUMENT_BYTES = 4 << 20
"""Of a manifest, index or configuration (OCI distribution-spec asks for at least 4 MiB)."""
MAX_FILES = 100_000
MAX_LINKS = 8


class Archive(Protocol):
    """Files by name, hashed."""

    def get(self, name: str) -> StagedBlob | None:
        """The file `name` in staging, or None where there is none."""


class TarArchive:
    """A tar read once from front to back into `staging`. Memory is bounded by the number of its entries."""

    def __init__(self, source: Readable, staging: Path, limits: UnpackLimits, stop: threading.Event) -> None:
        subject = "the image archive"
        self._files: dict[str, StagedBlob] = {}
        self._links: dict[str, str] = {}
        stream = TarStream(source, limits, subject, stop)
        bounds = UnpackLimits(entries=MAX_FILES)
        for number, member in enumerate(read_members(stream, bounds, subject)):
            name = posixpath.normpath(member.name)
            self._files.pop(name, None)
            self._links.pop(name, None)
            if member.isreg() and member.sparse is None:
                writer = BlobWriter(staging / str(number))
                try:
                    stream.copy(member.size, writer.write)
                    self._files[name] = writer.finish()
                finally:
                    writer.close()
            elif member.issym():
                self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                self._links[name] = posixpath.normpath(member.linkname)
            elif not member.isdir():
                raise corrupt(subject, f"entry {member.name[:80]!r} is neither a file nor a link nor a directory")
        stream.finish()

    def get(self, name: str) -> StagedBlob | None:
        name = posixpath.normpath(name)
        for _ in range(MAX_LINKS):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                return None
            name = self._links[name]
        return None


class DirectoryArchive:
    """A directory such as an OCI layout; files are copied into `staging` when they are asked for."""

    def __init__(self, root: Path, staging: Path, limits: UnpackLimits, stop: threading.Event) -> None:
        self._root = root
        self._staging = staging
        self._limits = limits
        self._stop = stop
        self._copied: dict[str, StagedBlob] = {}

    def get(self, name: str) -> StagedBlob | None:
        if name not in self._copied:
            if name.startswith("/") or ".." in name.split("/"):
                return None
            try:
                if not stat.S_ISREG((self._root / name).lstat().st_mode):
                    raise InvalidInput(f"{self._root / name} is not a regular file", subject=name)
                fd = os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise InvalidInput(
                    f"{self._root / name} cannot be read", operation="load image", subject=name, errno=error.errno or 0
                ) from error
            with os.fdopen(fd, "rb", buffering=0) as file:
                self._copied[name] = self._copy(file, os.fstat(fd), name)
        return self._copied[name]

    def _copy(self, file: Any, status: os.stat_result, name: str) -> StagedBlob:
        if status.st_size > self._limits.total_bytes:
            raise InvalidInput(f"{self._root / name} has more than {self._limits.total_bytes} bytes", subject=name)
        writer = BlobWriter(self._staging / str(len(self._copied)))
        try:
            while data := file.read(CHUNK_BYTES):
                if self._stop.is_set():
                    raise Stopped
                writer.write(data)
            return writer.finish()
        finally:
            writer.close()


def read_document(blob: StagedBlob, what: str) -> Any:
    """The JSON of a staged file. Raises InvalidInput."""
    if blob.size_bytes > MAX_DOCUMENT_BYTES:
        raise InvalidInput(f"{what} is larger than {MAX_DOCUMENT_BYTES} bytes", operation="load image", subject=what)
    try:
        return json.loads(blob.path.read_bytes(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} is not JSON: {error}", operation="load image", subject=what) from error


def read_object(blob: StagedBlob, what: str) -> dict[str, Any]:
    """The JSON object of a staged file. Raises InvalidInput."""
    document = read_document(blob, what)
    if not isinstance(document, dict):
        raise InvalidInput(f"{what} is not a JSON object", operation="load image", subject=what)
    return document


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON value")
