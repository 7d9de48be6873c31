"""Bounded readers: decompression, and tar headers that cannot make the parser read, remember or loop without end."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from sandbox.errors import InvalidInput, UnsupportedByHost

BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 20
"""Everything between two members: pax records, long names, sparse maps."""
MAX_GLOBAL_RECORDS = 64

# What tarfile raises on bytes made to upset it.
_PARSER_ERRORS = (tarfile.TarError, ValueError, OverflowError, IndexError, KeyError, RecursionError, EOFError)


@dataclass(frozen=True)
class UnpackLimits:
    """Bounds on what one archive may become. A layer beyond one of them is refused, and nothing of it is kept."""

    total_bytes: int = 64 << 30
    """Of the uncompressed tar, and of the files it makes (sparse files count in full)."""
    entries: int = 2_000_000
    ratio: int = 200
    """Uncompressed to compressed; looked at from `ratio_floor_bytes` on: small layers may be all zeros."""
    ratio_floor_bytes: int = 256 << 20
    path_bytes: int = 4096
    path_components: int = 256


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def corrupt(subject: str, why: str) -> InvalidInput:
    """The error for an archive that is not what it must be."""
    return InvalidInput(f"{subject} is not a usable archive: {why}", operation="read archive", subject=subject)


class Stopped(Exception):
    """The request that wanted the result was cancelled."""


class _Counted:
    """Counts what is read, and stops a worker thread whose caller went away."""

    def __init__(self, source: Readable, stop: threading.Event) -> None:
        self._source = source
        self._stop = stop
        self.bytes_read = 0

    def read(self, size: int) -> bytes:
        if self._stop.is_set():
            raise Stopped
        data = self._source.read(size)
        self.bytes_read += len(data)
        return data


class _Prefixed:
    """A source whose first bytes were already looked at."""

    def __init__(self, prefix: bytes, source: Readable) -> None:
        self._prefix = prefix
        self._source = source

    def read(self, size: int) -> bytes:
        if not self._prefix:
            return self._source.read(size)
        data, self._prefix = self._prefix[:size], self._prefix[size:]
        return data


class _Gunzip:
    """gzip (RFC 1952), several members in a row; zero padding after the last is no error."""

    def __init__(self, source: Readable, subject: str) -> None:
        self._source = source
        self._subject = subject
        self._inflate = zlib.decompressobj(wbits=31)
        self._input = b""
        self._members = 0

    def read(self, size: int) -> bytes:
        while True:
            if self._inflate.eof and not self._next_member():
                return b""
            if not self._input:
                self._input = self._source.read(CHUNK_BYTES)
                if not self._input:
                    raise corrupt(self._subject, "its gzip stream ends too early")
            try:
                data = self._inflate.decompress(self._input, size)
            except zlib.error as error:
                raise corrupt(self._subject, f"its gzip stream is damaged ({error})") from error
            self._input = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if data:
                return data

    def _next_member(self) -> bool:
        while True:
            self._input = self._input.lstrip(b"\0")
            if self._input:
                self._inflate = zlib.decompressobj(wbits=31)
                return True
            self._input = self._source.read(CHUNK_BYTES)
            if not self._input:
                return False


def _unzstd(source: Readable, subject: str) -> Readable:
    """zstd by the standard library (Python 3.14) or the zstandard package, whichever is there."""
    reader: Readable
    with contextlib.suppress(ImportError):
        reader = importlib.import_module("compression.zstd").ZstdFile(source)
        return reader
    with contextlib.suppress(ImportError):
        decompressor = importlib.import_module("zstandard").ZstdDecompressor()
        reader = decompressor.stream_reader(source, read_across_frames=True)
        return reader
    raise UnsupportedByHost(
        f"{subject} is compressed with zstd, which this Python cannot read",
        operation="unpack layer",
        subject=subject,
        hint="install the Python package zstandard beside sandbox, or convert the image to gzip "
        "(skopeo copy --dest-compress-format gzip)",
    )


_OTHER_MAGIC = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}


def _read_exactly(source: Readable, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            break
        data += more
    return data


def decompressed(source: Readable, subject: str) -> Readable:
    """What `source` holds, by its first bytes and not by what it claims to be: gzip, zstd or plain."""
    magic = _read_exactly(source, 6)
    whole = _Prefixed(magic, source)
    if magic.startswith(b"\x1f\x8b"):
        return _Gunzip(whole, subject)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _unzstd(whole, subject)
    for prefix, name in _OTHER_MAGIC.items():
        if magic.startswith(prefix):
            raise UnsupportedByHost(
                f"{subject} is compressed with {name}, which images do not use",
                operation="unpack layer",
                subject=subject,
            )
    return whole


class TarStream:
    """The uncompressed tar as a forward-only file for tarfile: hashed, counted, every bound held.

    tarfile allocates what a header claims, so a read while a header is parsed may not exceed MAX_HEADER_BYTES. A seek
    backwards, which a negative size asks for, is refused.
    """

    def __init__(self, source: Readable, limits: UnpackLimits, subject: str, stop: threading.Event) -> None:
        self._compressed = _Counted(source, stop)
        self._plain = decompressed(self._compressed, subject)
        self._limits = limits
        self._subject = subject
        self._hash = hashlib.sha256()
        self._position = 0
        self._header_left: int | None = None
        self._content_bytes = 0
        self.last_header = b""

    def begin_header(self) -> None:
        self._header_left = MAX_HEADER_BYTES

    def end_header(self) -> None:
        self._header_left = None

    def charge(self, size: int) -> None:
        """Accounts for a file of `size` bytes before it is made; the ratio is seen when its bytes come by."""
        self._content_bytes += size
        self._check_total(self._content_bytes)

    def _check_total(self, size: int) -> None:
        if size > self._limits.total_bytes:
            raise corrupt(self._subject, f"it unpacks to more than {self._limits.total_bytes} bytes")

    def _check(self, size: int) -> None:
        limits = self._limits
        self._check_total(size)
        if size > limits.ratio_floor_bytes and size > limits.ratio * max(1, self._compressed.bytes_read):
            raise corrupt(self._subject, f"it unpacks to more than {limits.ratio} times its size")

    def read(self, size: int = -1) -> bytes:
        """Exactly `size` bytes unless the stream ends."""
        if size < 0:
            raise corrupt(self._subject, "a header has a negative size")
        if self._header_left is not None:
            self._header_left -= size
            if self._header_left < 0:
                raise corrupt(self._subject, f"a header is larger than {MAX_HEADER_BYTES} bytes")
        data = self._plain.read(size)
        while len(data) < size:
            more = self._plain.read(size - len(data))
            if not more:
                break
            data += more
        self._position += len(data)
        self._check(self._position)
        self._hash.update(data)
        if self._header_left is not None:
            self.last_header = data
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence != 0 or offset < self._position:
            raise corrupt(self._subject, "a header points backwards")
        left, self._header_left = self._header_left, None
        while self._position < offset:
            if not self.read(min(CHUNK_BYTES, offset - self._position)):
                raise corrupt(self._subject, "it ends too early")
        self._header_left = left
        return self._position

    def copy(self, size: int, write: Callable[[bytes], object]) -> None:
        """Passes the next `size` bytes to `write`, in pieces."""
        while size > 0:
            data = self.read(min(CHUNK_BYTES, size))
            if not data:
                raise corrupt(self._subject, "it ends too early")
            write(data)
            size -= len(data)

    def finish(self) -> str:
        """Reads what is left and returns the digest of all of it, `sha256:…`."""
        while self.read(CHUNK_BYTES):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def read_members(stream: TarStream, limits: UnpackLimits, subject: str) -> Iterator[tarfile.TarInfo]:
    """Each member while the stream stands at its content; the consumer may read that content, or leave it.

    Raises InvalidInput on anything that is not a complete tar.
    """
    tar: Any = None
    count = 0
    while True:
        stream.begin_header()
        try:
            if tar is None:
                tar = tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
            member = tar.next()
        except _PARSER_ERRORS as error:
            raise corrupt(subject, str(error) or type(error).__name__) from error
        stream.end_header()
        if member is None:
            break
        tar.members.clear()  # tarfile keeps every header it has seen
        count += 1
        if count > limits.entries:
            raise corrupt(subject, f"it has more than {limits.entries} entries")
        if member.size < 0 or len(tar.pax_headers) > MAX_GLOBAL_RECORDS:
            raise corrupt(subject, f"the header of {member.name[:80]!r} is malformed")
        yield member
    # tarfile takes a damaged header in the middle for the end of the archive.
    if stream.last_header.strip(b"\0") or len(stream.last_header) not in (0, BLOCK_BYTES):
        raise corrupt(subject, "a header in the middle is damaged")
