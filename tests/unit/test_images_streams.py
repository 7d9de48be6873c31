"""Tar streams: complete ones come through, damaged and malicious ones end in an error, with bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import InvalidInput, SandboxError, UnsupportedByHost
from sandbox.images.streams import MAX_HEADER_BYTES, Stopped, TarStream, UnpackLimits, decompressed, read_members
from sandbox.images.unpack import split_member_path

LIMITS = UnpackLimits()


def tar_of(*names: str, size: int = 3) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(b"x" * size))
    return output.getvalue()


def names_in(data: bytes, limits: UnpackLimits = LIMITS) -> list[str]:
    stream = TarStream(io.BytesIO(data), limits, "test", threading.Event())
    names = [member.name for member in read_members(stream, limits, "test")]
    stream.finish()
    return names


def test_members_of_plain_and_compressed_tars() -> None:
    data = tar_of("a", "b" * 200, "c")
    assert names_in(data) == ["a", "b" * 200, "c"]
    assert names_in(gzip.compress(data)) == ["a", "b" * 200, "c"]
    half = len(data) // 2
    assert names_in(gzip.compress(data[:half]) + gzip.compress(data[half:]) + b"\0" * 100) == ["a", "b" * 200, "c"]


def test_the_digest_is_of_every_byte_up_to_the_end() -> None:
    import hashlib

    data = tar_of("a") + b"trailing bytes are part of the layer"
    stream = TarStream(io.BytesIO(gzip.compress(data)), LIMITS, "test", threading.Event())
    list(read_members(stream, LIMITS, "test"))
    assert stream.finish() == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 700, 1024 + 100])
def test_a_truncated_tar_is_refused(cut: int) -> None:
    with pytest.raises(InvalidInput):
        names_in(tar_of("a", "b", size=600)[:cut])


def test_truncated_and_damaged_gzip_is_refused() -> None:
    data = gzip.compress(tar_of("a", "b", size=5000))
    for bad in (data[:-10], data[:40], data[:30] + b"\xff" * 20 + data[50:]):
        with pytest.raises(InvalidInput):
            names_in(bad)


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end() -> None:
    data = bytearray(tar_of("a", "b", "c"))
    data[1024 + 10] ^= 0xFF  # the checksum of the second header no longer fits
    with pytest.raises(InvalidInput, match="middle"):
        names_in(bytes(data))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE])
def test_a_header_that_claims_gigabytes_is_refused_without_reading_them(kind: bytes) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, 8 << 30
    data = member.tobuf(tarfile.GNU_FORMAT)[:512] + b"\0" * (MAX_HEADER_BYTES * 2)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput):
            names_in(data)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_negative_size_is_refused() -> None:
    member = tarfile.TarInfo("x")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x00"  # base-256, -256
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    with pytest.raises(InvalidInput):
        names_in(bytes(header) + b"\0" * 1024)


def test_a_chain_of_extended_headers_is_refused() -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
    one = member.tobuf(tarfile.GNU_FORMAT)[:512] + b"a" + b"\0" * 511
    with pytest.raises(InvalidInput):
        names_in(one * 5000)


def test_bounds_on_entries_size_and_ratio() -> None:
    with pytest.raises(InvalidInput, match="more than 3 entries"):
        names_in(tar_of("a", "b", "c", "d"), UnpackLimits(entries=3))
    with pytest.raises(InvalidInput, match="more than 4096 bytes"):
        names_in(tar_of("a", size=10_000), UnpackLimits(total_bytes=4096))
    bomb = gzip.compress(tar_of("a", size=8 << 20))
    assert names_in(bomb) == ["a"]
    with pytest.raises(InvalidInput, match="100 times its size"):
        names_in(bomb, UnpackLimits(ratio=100, ratio_floor_bytes=1 << 20))


def test_other_compressions_are_named() -> None:
    for data, name in ((b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0\0", "xz")):
        with pytest.raises(UnsupportedByHost, match=name):
            decompressed(io.BytesIO(data), "test")


def test_zstd_is_read_or_named() -> None:
    zstandard_frame = bytes.fromhex("28b52ffd2000010000")  # an empty frame
    try:
        assert decompressed(io.BytesIO(zstandard_frame), "test").read(10) == b""
    except UnsupportedByHost as error:
        assert "zstd" in str(error)
        assert "zstandard" in error.hint


def test_a_cancelled_reader_stops() -> None:
    stop = threading.Event()
    stream = TarStream(io.BytesIO(tar_of("a", "b")), LIMITS, "test", stop)
    members = read_members(stream, LIMITS, "test")
    next(members)
    stop.set()
    with pytest.raises(Stopped):
        list(members)


@given(st.binary(max_size=3000))
def test_any_bytes_end_in_members_or_in_our_error(data: bytes) -> None:
    with contextlib.suppress(SandboxError):
        names_in(data)


@given(st.data())
def test_any_damage_to_a_tar_ends_in_members_or_in_our_error(data: st.DataObject) -> None:
    body = bytearray(tar_of("a", "b" * 150, "c"))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SandboxError):
        names_in(bytes(body))


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b c", "é", "x" * 255]), max_size=8).map("/".join))
def test_member_paths_never_leave(name: str) -> None:
    try:
        components = split_member_path(name, LIMITS, "test")
    except InvalidInput:
        assert name.startswith("/") or ".." in name.split("/")
        return
    assert not name.startswith("/")
    assert not {"", ".", ".."} & set(components)
    assert "/".join(components) == "/".join(c for c in name.split("/") if c not in ("", "."))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "a/..", "..", "a\0b", "x" * 256, "a/" * 300, "a" * 5000]
)
def test_member_paths_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        split_member_path(name, LIMITS, "test")
