"""Layers unpacked by root onto a real file system: what is kept exactly, what is refused without a trace outside."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images_builder import digest_of, directory, entry, hard_link, make_tar, symlink

from sandbox.errors import InvalidInput, SandboxError
from sandbox.images.readfile import read_file
from sandbox.images.streams import UnpackLimits
from sandbox.images.unpack import unpack

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="chown and mknod need root")]
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep
OPAQUE = "trusted.overlay.opaque"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The layer's directory, in a parent in which any stray write would be seen."""
    (tmp_path / "around").mkdir()
    (tmp_path / "around/victim").write_text("untouched")
    layer = tmp_path / "around/layer"
    layer.mkdir()
    yield layer
    assert sorted(p.name for p in (tmp_path / "around").iterdir()) == ["layer", "victim"]
    assert (tmp_path / "around/victim").read_text() == "untouched"
    assert (tmp_path / "around/victim").stat().st_nlink == 1


def unpacked(root: Path, *entries: tuple[tarfile.TarInfo, bytes], limits: UnpackLimits | None = None) -> str:
    return unpack(io.BytesIO(make_tar(*entries)), root, limits or UnpackLimits(), "layer under test")


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, OPAQUE) == b"y"
    except OSError as error:
        assert error.errno == errno.ENODATA
        return False


def test_everything_is_kept(root: Path) -> None:
    unpacked(
        root,
        directory("./", mode=0o751, mtime=1000),
        directory("d", mode=0o2750, uid=7, gid=8, mtime=1111),
        entry("d/f", b"content", mode=0o4755, uid=1000, gid=1001, pax_headers={"mtime": "1234567890.123456789"}),
        hard_link("d/g", "d/f"),
        symlink("d/s", "/absolute/../target", uid=5, gid=6, mtime=99),
        entry("fifo", kind=tarfile.FIFOTYPE, mode=0o620, uid=3),
        entry("null", kind=tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        entry("disk", kind=tarfile.BLKTYPE, mode=0o660, gid=6, devmajor=259, devminor=300),
        entry("implicit/parent/f", b"x"),
    )
    assert stat.S_IMODE(root.stat().st_mode) == 0o751
    assert root.stat().st_mtime == 1000
    status = (root / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (0o2750, 7, 8, 1111)
    status = (root / "d/f").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4755, 1000, 1001)
    assert status.st_mtime_ns == 1234567890_123456789
    assert (root / "d/f").read_bytes() == b"content"
    assert (root / "d/g").stat().st_ino == status.st_ino
    status = (root / "d/s").lstat()
    assert ((root / "d/s").readlink(), status.st_uid, status.st_mtime) == (Path("/absolute/../target"), 5, 99)
    status = (root / "fifo").stat()
    assert stat.S_ISFIFO(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o620, 3)
    status = (root / "null").stat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == os.makedev(1, 3)
    status = (root / "disk").stat()
    assert stat.S_ISBLK(status.st_mode)
    assert (status.st_rdev, status.st_gid) == (os.makedev(259, 300), 6)
    assert stat.S_IMODE((root / "implicit/parent").stat().st_mode) == 0o755


def test_extended_attributes(root: Path) -> None:
    capability = CAPABILITY.decode("utf-8", "surrogateescape")
    pax = {
        "SCHILY.xattr.security.capability": capability,
        "SCHILY.xattr.user.note": "hello",
        "SCHILY.xattr.trusted.overlay.redirect": "/../../etc",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.security.selinux": "x",
    }
    unpacked(root, entry("f", b"x", mode=0o755, pax_headers=pax, uid=12))
    assert os.getxattr(root / "f", "security.capability") == CAPABILITY
    assert os.getxattr(root / "f", "user.note") == b"hello"
    assert set(os.listxattr(root / "f")) == {"security.capability", "user.note"}


def test_names_that_are_not_utf8(root: Path) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name))
    unpack(io.BytesIO(data.getvalue()), root, UnpackLimits(), "layer")
    assert [os.fsencode(p.name) for p in root.iterdir()] == [b"caf\xe9"]


def test_the_diff_id_is_of_the_uncompressed_tar(root: Path) -> None:
    data = make_tar(entry("f", b"x" * 100_000))
    assert unpack(io.BytesIO(gzip.compress(data)), root, UnpackLimits(), "layer") == digest_of(data)


def test_whiteouts_become_overlays_own(root: Path) -> None:
    unpacked(
        root,
        entry("a/.wh.gone"),
        entry("b/.wh..wh..opq"),
        entry("b/new", b"new"),
        entry(".wh..wh.plnk"),
        directory(".wh..wh.aufs"),
        entry(".wh..wh.aufs/junk", b"x"),
    )
    assert is_whiteout(root / "a/gone")
    assert is_opaque(root / "b")
    assert (root / "b/new").read_bytes() == b"new"
    assert sorted(p.name for p in root.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("first", ["whiteout", "directory"])
def test_a_directory_that_replaces_a_hidden_one_is_opaque(root: Path, first: str) -> None:
    parts = [(entry(".wh.d"),), (directory("d"), entry("d/f", b"x"))]
    unpacked(root, *(e for part in (parts if first == "whiteout" else parts[::-1]) for e in part))
    assert is_opaque(root / "d")
    assert (root / "d/f").read_bytes() == b"x"


def test_a_parent_made_over_a_whiteout_is_opaque(root: Path) -> None:
    unpacked(root, entry(".wh.d"), entry("d/e/f", b"x"))
    assert is_opaque(root / "d")
    assert not is_opaque(root / "d/e")


def test_a_file_of_the_same_layer_wins_over_its_whiteout(root: Path) -> None:
    unpacked(root, entry("f", b"x"), entry(".wh.f"), entry(".wh.g"), entry("g", b"y"))
    assert (root / "f").read_bytes() == b"x"
    assert (root / "g").read_bytes() == b"y"


def test_the_kernel_agrees_about_whiteouts(root: Path, tmp_path: Path) -> None:
    """The merged view of overlayfs and of read_file are the same."""
    low, high = root / "low", root / "high"
    low.mkdir()
    high.mkdir()
    unpacked(
        low, entry("a/gone", b"1"), entry("a/kept", b"2"), entry("b/old", b"3"), entry("c/old", b"4"), entry("e", b"5")
    )
    unpacked(
        high, entry("a/.wh.gone"), entry("b/.wh..wh..opq"), entry("b/new", b"6"), entry(".wh.c"), entry("e/f", b"7")
    )
    merged = tmp_path / "merged"
    merged.mkdir()
    from sandbox.linux.libc import libc

    options = f"lowerdir={high}:{low}".encode()
    assert libc.mount(b"overlay", os.fsencode(merged), b"overlay", 1, options) == 0
    try:
        shown = {str(p.relative_to(merged)): p.read_bytes() for p in merged.rglob("*") if p.is_file()}
    finally:
        libc.umount2(os.fsencode(merged), 0)
    assert shown == {"a/kept": b"2", "b/new": b"6", "e/f": b"7"}
    for path in ("a/gone", "a/kept", "b/old", "b/new", "c/old", "e/f", "e"):
        if path != "e":
            assert read_file([str(low), str(high)], path, 100) == shown.get(path)


def test_later_entries_replace_earlier_ones(root: Path) -> None:
    unpacked(
        root,
        directory("d", mtime=5),
        entry("d/below/f", b"x"),
        entry("d", b"now a file"),
        entry("e", b"file"),
        directory("e"),
        entry("e/f", b"below"),
        symlink("l", "/etc"),
        directory("l"),
        entry("l/f", b"inside"),
        entry("same", b"1"),
        entry("same", b"2"),
    )
    assert (root / "d").read_bytes() == b"now a file"
    assert (root / "e/f").read_bytes() == b"below"
    assert not (root / "l").is_symlink()
    assert (root / "l/f").read_bytes() == b"inside"
    assert (root / "same").read_bytes() == b"2"


def test_a_sparse_file_keeps_its_holes(root: Path, tmp_path: Path) -> None:
    import subprocess

    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(50 << 20)
        file.write(b"end")
    for kind in (["--format=gnu"], ["--format=posix"]):
        data = subprocess.run(["tar", "-cS", *kind, "-C", source, "."], capture_output=True, check=True).stdout
        assert len(data) < 1 << 20
        unpack(io.BytesIO(data), root, UnpackLimits(), "layer")
        assert (root / "sparse").read_bytes() == (source / "sparse").read_bytes()
        assert (root / "sparse").stat().st_blocks * 512 < 1 << 20


HOSTILE = {
    "dot-dot": [entry("../victim", b"bad")],
    "dot-dot in the middle": [directory("a"), entry("a/../../victim", b"bad")],
    "absolute": [entry("/etc/sandbox-test-victim", b"bad")],
    "symlinked parent": [symlink("out", ".."), entry("out/victim", b"bad")],
    "absolute symlinked parent": [symlink("out", "/tmp"), entry("out/sandbox-test-victim", b"bad")],
    "symlink inside": [directory("d"), symlink("in", "d"), entry("in/f", b"bad")],
    "symlinked grandparent": [symlink("out", ".."), directory("out/x"), entry("out/x/f", b"bad")],
    "hard link out": [hard_link("link", "../victim"), entry("link", b"bad")],
    "absolute hard link": [hard_link("link", "/etc/passwd")],
    "hard link through a symlink": [symlink("out", ".."), hard_link("link", "out/victim")],
    "hard link to nothing": [hard_link("link", "nothing")],
    "hard link to a directory": [directory("d"), hard_link("link", "d")],
    "hard link to the root": [hard_link("link", ".")],
    "hard link to a whiteout": [entry(".wh.x"), hard_link("link", ".wh.x")],
    "whiteout of dot-dot": [entry(".wh...")],
    "whiteout of dot": [entry("d/.wh..")],
    "whiteout of nothing": [entry(".wh.")],
    "whiteout through a symlink": [symlink("out", ".."), entry("out/.wh.victim")],
    "opaque marker through a symlink": [symlink("out", ".."), entry("out/.wh..wh..opq")],
    "entry below a whiteout": [entry(".wh.x/f", b"x")],
    "entry below a file": [entry("f", b"x"), entry("f/g", b"x")],
    "root is a file": [entry(".", b"x")],
    "empty symlink": [symlink("s", "")],
    "owner minus one": [entry("f", b"x", uid=4294967295)],
    "unknown type": [entry("f", b"", kind=b"Z")],
    "device number": [entry("f", kind=tarfile.CHRTYPE, devmajor=1 << 14, devminor=0)],
    "time": [entry("f", b"x", mtime=1e18)],
    "deep": [entry("/".join(["d"] * 300), b"x")],
    "long name": [entry("n" * 256, b"x")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused(root: Path, case: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        unpacked(root, *HOSTILE[case])
    assert "layer under test" in str(caught.value)
    assert not Path("/etc/sandbox-test-victim").exists()
    assert not Path("/tmp/sandbox-test-victim").exists()


def test_a_symlink_does_not_redirect_attributes(root: Path) -> None:
    """chown, chmod and utime of a link's name are the link's own."""
    before = (root.parent / "victim").stat()
    unpacked(root, symlink("l", "../victim", uid=1, gid=1, mode=0o777, mtime=1), entry("l", b"file"))
    after = (root.parent / "victim").stat()
    assert (before.st_uid, before.st_mode, before.st_mtime_ns) == (after.st_uid, after.st_mode, after.st_mtime_ns)
    assert not (root / "l").is_symlink()


def test_a_sparse_bomb_counts_in_full(root: Path) -> None:
    member, _ = entry("f", b"", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f",
                                             "GNU.sparse.realsize": str(1 << 50)})  # fmt: skip
    content = b"1\n0\n0\n".ljust(512, b"\0")
    member.size = len(content)
    with pytest.raises(InvalidInput, match="unpacks to more than"):
        unpacked(root, (member, content))


def test_a_large_file_is_no_bomb(root: Path) -> None:
    """The ratio is of what has come by, not of what a header announces."""
    data = gzip.compress(make_tar(entry("f", os.urandom(8 << 20))), 1)
    unpack(io.BytesIO(data), root, UnpackLimits(ratio=2, ratio_floor_bytes=1 << 20), "layer")
    assert (root / "f").stat().st_size == 8 << 20


def test_overlapping_sparse_maps_are_refused(root: Path) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f", "GNU.sparse.realsize": "2048"}
    member, _ = entry("f", b"", pax_headers=headers)
    content = b"2\n512\n512\n0\n512\n".ljust(512, b"\0") + b"x" * 1024
    member.size = len(content)
    with pytest.raises(InvalidInput, match="sparse"):
        unpacked(root, (member, content))


_names = st.lists(st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", ".wh...", "c"]), max_size=4).map(
    "/".join
)
_entries = st.one_of(
    st.builds(entry, _names, st.binary(max_size=10)),
    st.builds(directory, _names),
    st.builds(symlink, _names, st.sampled_from(["..", "/", "../victim", "a", "/tmp", "b/.."])),
    st.builds(hard_link, _names, _names),
    st.builds(lambda name: entry(name, kind=tarfile.FIFOTYPE), _names),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(_entries, max_size=10))
def test_any_entries_stay_inside(root: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    import shutil

    shutil.rmtree(root)
    root.mkdir()
    with contextlib.suppress(SandboxError):
        unpacked(root, *entries)
    assert sorted(p.name for p in root.parent.iterdir()) == ["layer", "victim"]
    assert (root.parent / "victim").stat().st_nlink == 1
    assert (root.parent / "victim").read_text() == "untouched"
