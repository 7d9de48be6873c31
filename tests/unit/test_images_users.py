"""Users and files of an image, read from layers that are plain directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import InvalidInput
from sandbox.images.model import Image, ImageConfig
from sandbox.images.readfile import read_file
from sandbox.images.store import ImageStore
from sandbox.images.users import MAX_DATABASE_BYTES, ResolvedUser, resolve_user
from sandbox.store.database import Database

PASSWD = """root:x:0:0:root:/root:/bin/sh
app:x:1000:1001:App:/srv/app:/bin/sh
# a comment
broken line
huge:x:4294967296:0::/:/bin/sh
negative:x:-1:0::/:/bin/sh
nohome:x:1002:1002:::/bin/sh
app:x:5:5:second:/second:/bin/sh
"""
GROUP = "root:x:0:\nwheel:x:10:app,other\nstaff:x:50:other\nappgrp:x:1001:\nbig:x:99999999999:app\naudio:x:29:app\n"


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    directory = tmp_path / "layer"
    (directory / "etc").mkdir(parents=True)
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    return directory


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images", Database(tmp_path / "state.db"))


def image(*layers: Path, user: str = "") -> Image:
    return Image("sha256:" + "0" * 64, (), (), 0, "", ImageConfig(user=user), tuple(map(str, layers)))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", ResolvedUser(0, 0, (0,), "root", "/root")),
        ("root", ResolvedUser(0, 0, (0,), "root", "/root")),
        ("app", ResolvedUser(1000, 1001, (1001, 10, 29), "app", "/srv/app")),
        ("1000", ResolvedUser(1000, 1001, (1001, 10, 29), "app", "/srv/app")),
        ("app:wheel", ResolvedUser(1000, 10, (10, 29), "app", "/srv/app")),
        ("app:77", ResolvedUser(1000, 77, (77, 10, 29), "app", "/srv/app")),
        ("4242", ResolvedUser(4242, 0, (0,), "", "/")),
        ("4242:4243", ResolvedUser(4242, 4243, (4243,), "", "/")),
        ("nohome", ResolvedUser(1002, 1002, (1002,), "nohome", "/")),
        ("2147483647", ResolvedUser(2147483647, 0, (0,), "", "/")),
    ],
)
def test_resolved(store: ImageStore, layer: Path, spec: str, expected: ResolvedUser) -> None:
    assert resolve_user(store, image(layer), spec) == expected
    assert resolve_user(store, image(layer, user=spec)) == expected


@pytest.mark.parametrize(
    "spec",
    ["nobody", "app:nogroup", "2147483648", "4294967296", "99999999999999999999", "1:4294967295", "-1", "+1", "0x0",
     "huge", "negative", "1 ", "\u0661", ":nogroup", "u" * 600],
)  # fmt: skip
def test_refused(store: ImageStore, layer: Path, spec: str) -> None:
    with pytest.raises(InvalidInput):
        resolve_user(store, image(layer), spec)


def test_policies_and_overrides(store: ImageStore, layer: Path) -> None:
    strict = resolve_user(store, image(layer), "app", policy="Strict", supplemental_groups=(5, 6))
    assert strict.groups == (1001, 5, 6)
    merged = resolve_user(store, image(layer), "app", group=7, supplemental_groups=(5, 10))
    assert (merged.gid, merged.groups) == (7, (7, 5, 10, 29))
    for bad in (-1, 1 << 31):
        with pytest.raises(InvalidInput):
            resolve_user(store, image(layer), "app", group=bad)
        with pytest.raises(InvalidInput):
            resolve_user(store, image(layer), "app", supplemental_groups=(bad,))


def test_an_image_without_databases(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert resolve_user(store, image(tmp_path / "empty"), "").uid == 0
    assert resolve_user(store, image(tmp_path / "empty"), "root:root").home == "/root"
    with pytest.raises(InvalidInput):
        resolve_user(store, image(tmp_path / "empty"), "app")


def test_a_huge_database_is_refused(store: ImageStore, layer: Path) -> None:
    (layer / "etc/passwd").write_bytes(b"x" * (MAX_DATABASE_BYTES + 1))
    with pytest.raises(InvalidInput, match="more than"):
        resolve_user(store, image(layer), "app")


@given(content=st.binary(max_size=200), spec=st.text(max_size=12))
def test_any_database_resolves_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, spec: str
) -> None:
    root = tmp_path_factory.mktemp("users")
    (root / "layer/etc").mkdir(parents=True)
    (root / "layer/etc/passwd").write_bytes(content)
    try:
        user = resolve_user(ImageStore(root / "images", Database(root / "db")), image(root / "layer"), spec)
    except InvalidInput:
        return
    assert 0 <= user.uid < 1 << 31
    assert all(0 <= group < 1 << 31 for group in user.groups)


def test_the_topmost_layer_wins(tmp_path: Path) -> None:
    for name in ("low", "high"):
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "etc/both").write_text(name)
        (tmp_path / name / f"etc/{name}").write_text(name)
    layers = [str(tmp_path / "low"), str(tmp_path / "high")]
    assert read_file(layers, "/etc/both", 100) == b"high"
    assert read_file(layers, "etc/low", 100) == b"low"
    assert read_file(layers, "//etc/./high", 100) == b"high"
    assert read_file(layers, "/etc/none", 100) is None
    assert read_file(layers, "/etc/both/below", 100) is None
    assert read_file(layers, "/etc/low/../both", 100) is None


def test_a_file_above_a_directory_hides_it(tmp_path: Path) -> None:
    (tmp_path / "low/x").mkdir(parents=True)
    (tmp_path / "low/x/f").write_text("hidden")
    (tmp_path / "high").mkdir()
    (tmp_path / "high/x").write_text("file")
    layers = [str(tmp_path / "low"), str(tmp_path / "high")]
    assert read_file(layers, "x/f", 100) is None
    assert read_file(layers, "x", 100) == b"file"
    assert read_file([str(tmp_path / "high"), str(tmp_path / "low")], "x/f", 100) == b"hidden"


def test_symbolic_links_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    low, high = tmp_path / "low", tmp_path / "high"
    (low / "usr/etc").mkdir(parents=True)
    (low / "usr/etc/passwd").write_text("inside")
    high.mkdir()
    (high / "etc").symlink_to("/usr/etc")
    (low / "up").symlink_to(f"../../../../..{tmp_path}/secret")
    (low / "absolute").symlink_to(tmp_path / "secret")
    (low / "dot").symlink_to("usr/../usr/./etc/passwd")
    (low / "loop").symlink_to("loop")
    (low / "long").symlink_to("a/" * 1000)
    layers = [str(low), str(high)]
    assert read_file(layers, "/etc/passwd", 100) == b"inside"
    assert read_file(layers, "/dot", 100) == b"inside"
    assert read_file(layers, "/../../etc/passwd", 100) == b"inside"
    for name in ("up", "absolute", "long"):
        assert read_file(layers, name, 100) is None
    with pytest.raises(InvalidInput, match="symbolic links"):
        read_file(layers, "loop", 100)


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "big").write_bytes(b"x" * 101)
    for name in ("fifo", "directory", "big", "/"):
        with pytest.raises(InvalidInput):
            read_file([str(tmp_path)], name, 100)
