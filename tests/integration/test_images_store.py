"""The store as a whole: what loads, what is refused with nothing left, names, removal, crashes, users of it at once."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import shutil
import subprocess
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from images_builder import (
    OCI,
    OciLayout,
    digest_of,
    directory,
    docker_archive,
    entry,
    hard_link,
    make_tar,
    symlink,
    to_json,
)

from sandbox.errors import Conflict, ImageNotFound, InvalidInput, StateError, UnsupportedByHost
from sandbox.images.busybox import build_busybox, ensure_default_image
from sandbox.images.model import ImageConfig
from sandbox.images.store import ImageStore
from sandbox.images.streams import UnpackLimits
from sandbox.images.users import resolve_user
from sandbox.store.database import Database

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="unpacking needs root")]

LAYER = make_tar(directory("etc"), entry("etc/name", b"one"), entry("f", b"x" * 5000))
UPPER = make_tar(entry("etc/name", b"two"), entry(".wh.f"))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "state.db")


@pytest.fixture
def store(tmp_path: Path, database: Database) -> ImageStore:
    return ImageStore(tmp_path / "images", database)


def left_in(tmp_path: Path) -> list[str]:
    """Everything below the store but its own directories."""
    own = {"blobs", "blobs/sha256", "layers", "staging"}
    root = tmp_path / "images"
    return sorted({str(p.relative_to(root)) for p in root.rglob("*")} - own)


def oci(*layers: bytes, name: str = "localhost/app:1", **arguments: Any) -> OciLayout:
    layout = OciLayout()
    layout.add(*(layers or (LAYER, UPPER)), name=name, **arguments)
    return layout


# What loads


async def test_an_oci_archive(store: ImageStore, tmp_path: Path) -> None:
    config = {
        "Entrypoint": ["/bin/app"],
        "Cmd": ["-v"],
        "Env": ["A=1", "B="],
        "User": "app",
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
        "Volumes": {"/data": {}},
        "Labels": {"k": "v"},
        "ExposedPorts": {"80/tcp": {}},
    }
    layout = OciLayout()
    manifest = layout.add(
        LAYER, UPPER, name="localhost/app:1", config=config, image={"created": "2024-01-02T03:04:05Z"}
    )
    (image,) = await store.load(io.BytesIO(layout.tar()))
    assert image.names == ("localhost/app:1",)
    assert image.digests == (f"localhost/app@{manifest}",)
    assert image.created == "2024-01-02T03:04:05Z"
    assert image.config == ImageConfig(
        ("/bin/app",), ("-v",), ("A=1", "B="), "app", "/srv", "SIGINT", ("/data",), (("k", "v"),), ("80/tcp",)
    )
    assert len(image.layers) == 2
    assert Path(image.layers[0], "f").stat().st_size == 5000
    assert store.read_file(image, "/etc/name", 100) == b"two"
    assert store.read_file(image, "/f", 100) is None
    assert image.size_bytes == sum(len(layout.files[f"blobs/sha256/{p.name}"]) for p in blobs(tmp_path))


def blobs(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "images/blobs/sha256").iterdir())


async def test_the_same_image_by_every_way(store: ImageStore, tmp_path: Path) -> None:
    """Directory, tar, gzipped tar, pipe: one image, one id, one copy of each layer."""
    layout = oci()
    path = tmp_path / "image.tar.gz"
    path.write_bytes(gzip.compress(layout.tar()))
    read_end, write_end = os.pipe()
    writer = threading.Thread(target=lambda: os.fdopen(write_end, "wb").write(layout.tar()))
    writer.start()
    ids = set()
    with os.fdopen(read_end, "rb") as pipe:
        for source in (layout.write(tmp_path / "layout"), path, io.BytesIO(layout.tar()), pipe):
            ids.add((await store.load(source))[0].id)
    writer.join()
    assert len(ids) == 1
    assert len(store.list_images()) == 1
    assert len([p for p in left_in(tmp_path) if p.count("/") == 1 and p.startswith("layers/")]) == 2


async def test_a_docker_archive(store: ImageStore, tmp_path: Path) -> None:
    archive = docker_archive(LAYER, UPPER, LAYER, tags=("app:1", "localhost/app:2"), link_last_to_first=True)
    (image,) = await store.load(io.BytesIO(archive))
    assert image.names == ("docker.io/library/app:1", "localhost/app:2")
    assert image.config.cmd == ("sh",)
    # A layer that occurs twice is mounted once, where it is topmost.
    assert len(image.layers) == 2
    assert store.read_file(image, "/etc/name", 100) == b"one"
    again = await store.load(io.BytesIO(archive))
    assert again == [image]


async def test_docker_archive_with_oci_inside(store: ImageStore) -> None:
    """What newer `docker save` writes: both descriptions of the same blobs."""
    layout = oci(name="1")
    config = json.loads(layout.files[f"blobs/sha256/{layout.entries[0]['digest'][7:]}"])["config"]["digest"]
    layers = [f"blobs/sha256/{digest_of(gzip.compress(layer, mtime=0))[7:]}" for layer in (LAYER, UPPER)]
    layout.files["manifest.json"] = to_json(
        [{"Config": f"blobs/sha256/{config[7:]}", "RepoTags": ["quay.io/x/app:1"], "Layers": layers}]
    )
    (image,) = await store.load(io.BytesIO(layout.tar()))
    assert image.names == ("quay.io/x/app:1",)


async def test_several_images_share_layers(store: ImageStore, tmp_path: Path) -> None:
    layout = oci(LAYER, name="localhost/a:1")
    layout.add(LAYER, UPPER, name="localhost/b:1")
    first, second = await store.load(io.BytesIO(layout.tar()))
    assert first.layers == second.layers[:1]
    assert {n for i in store.list_images() for n in i.names} == {"localhost/a:1", "localhost/b:1"}


async def test_the_platform_of_this_host_is_chosen(store: ImageStore) -> None:
    from sandbox.images.model import host_architectures

    layout = OciLayout()
    ours = layout.manifest(LAYER)
    theirs = layout.manifest(UPPER, image={"architecture": "s390x"})
    nested = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}index.v1+json",
        "manifests": [
            {**theirs, "platform": {"os": "linux", "architecture": "s390x"}},
            {**ours, "platform": {"os": "linux", "architecture": host_architectures()[0]}},
            {**theirs, "platform": {"os": "unknown", "architecture": "unknown"}},
        ],
    }
    layout.entries.append(layout.blob(to_json(nested), f"{OCI}index.v1+json"))
    (image,) = await store.load(io.BytesIO(layout.tar()), name="localhost/multi")
    assert image.names == ("localhost/multi:latest",)
    assert store.read_file(image, "/etc/name", 100) == b"one"


@pytest.mark.skipif(not shutil.which("zstd"), reason="the zstd program, which makes the layer, is not installed")
async def test_zstd_layers_load_or_are_named(store: ImageStore, tmp_path: Path) -> None:
    packed = subprocess.run(["zstd", "-c"], input=LAYER, capture_output=True, check=True).stdout
    layout = OciLayout()
    layers = [layout.blob(packed, f"{OCI}layer.v1.tar+zstd")]
    layout.entries.append(layout.manifest(LAYER, layers=layers))
    try:
        (image,) = await store.load(io.BytesIO(layout.tar()), name="localhost/z")
        assert store.read_file(image, "/etc/name", 100) == b"one"
    except UnsupportedByHost as error:
        assert "zstd" in str(error)
        assert left_in(tmp_path) == []


async def test_memory_is_bounded(store: ImageStore) -> None:
    layout = oci(make_tar(entry("big", os.urandom(64 << 20))), compress=False)
    data = layout.tar()
    del layout
    tracemalloc.start()
    try:
        await store.load(io.BytesIO(data))
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


# What is refused


def _damage_layer(layout: OciLayout) -> None:
    name = f"blobs/sha256/{digest_of(gzip.compress(LAYER, mtime=0))[7:]}"
    layout.files[name] = layout.files[name][:-1] + b"!"


def _truncate_layer(layout: OciLayout) -> None:
    name = f"blobs/sha256/{digest_of(gzip.compress(LAYER, mtime=0))[7:]}"
    layout.files[name] = layout.files[name][:-20]


def _lose_layer(layout: OciLayout) -> None:
    del layout.files[f"blobs/sha256/{digest_of(gzip.compress(LAYER, mtime=0))[7:]}"]


def _index(change: Callable[[OciLayout], dict[str, Any]]) -> Callable[[OciLayout], None]:
    def apply(layout: OciLayout) -> None:
        layout.entries = [change(layout)]

    return apply


def _both(layout: OciLayout) -> dict[str, Any]:
    """CVE-2021-41190: a manifest that is also an index."""
    return layout.manifest(LAYER, manifests=[])


def _nested(layout: OciLayout) -> dict[str, Any]:
    descriptor = layout.entries[0]
    for _ in range(6):
        index = {"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": [descriptor]}
        descriptor = layout.blob(to_json(index), f"{OCI}index.v1+json")
    return descriptor


BAD: dict[str, tuple[Callable[[OciLayout], None], str]] = {
    "damaged layer": (_damage_layer, "does not match its digest"),
    "truncated layer": (_truncate_layer, "does not match its digest"),
    "missing layer": (_lose_layer, "not in the archive"),
    "wrong size": (_index(lambda x: {**x.entries[0], "size": 3}), "descriptor says 3"),
    "wrong diff_id": (
        _index(lambda x: x.manifest(LAYER, image={"rootfs": {"type": "layers", "diff_ids": [digest_of(b"")]}})),
        "does not match its digest",
    ),
    "no diff_ids": (_index(lambda x: x.manifest(LAYER, image={"rootfs": {}})), "lists 0"),
    "manifest and index": (_index(_both), "at once"),
    "index as manifest": (_index(lambda x: {**x.entries[0], "mediaType": f"{OCI}index.v1+json"}), "descriptor says"),
    "schema 1": (_index(lambda x: x.manifest(LAYER, schemaVersion=1)), "schema version"),
    "unknown type": (_index(lambda x: x.manifest(LAYER, mediaType="text/plain")), "media type"),
    "no image": (_index(lambda x: x.manifest(LAYER, config=None, **{"layers": None})), "no layers"),
    "bad digest": (_index(lambda x: {**x.entries[0], "digest": "sha256:../../../../etc/passwd"}), "expected sha256"),
    "nested": (_index(_nested), "nested"),
    "empty index": (
        _index(lambda x: {"schemaVersion": 2, "mediaType": "x", "digest": "y", "size": 1}),
        "expected sha256",
    ),
    "layer type": (
        _index(lambda x: x.manifest(LAYER, layers=[x.blob(LAYER, "application/vnd.cncf.helm.chart")])),
        "no container layer",
    ),
    "config type": (_index(lambda x: x.manifest(LAYER, config={"Env": "A=1"})), "bad Env"),
    "NUL in config": (_index(lambda x: x.manifest(LAYER, config={"Cmd": ["a\0b"]})), "bad Cmd"),
    "hostile layer": (_index(lambda x: x.manifest(LAYER, make_tar(entry("../x", b"")))), "leaves the layer"),
    "layer is no tar": (_index(lambda x: x.manifest(LAYER, b"not a tar")), "not a usable archive"),
    "128 layers": (_index(lambda x: x.manifest(*([LAYER] * 128))), "127"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("form", ["tar", "directory"])
async def test_refused_with_nothing_left(store: ImageStore, tmp_path: Path, case: str, form: str) -> None:
    layout = oci(LAYER)
    change, message = BAD[case]
    change(layout)
    with pytest.raises(InvalidInput, match=message):
        await store.load(io.BytesIO(layout.tar()) if form == "tar" else layout.write(tmp_path / "layout"))
    assert left_in(tmp_path) == []
    assert store.list_images() == []


async def test_another_platform_is_named(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedByHost, match="windows/amd64"):
        await store.load(io.BytesIO(oci(LAYER, image={"os": "windows", "architecture": "amd64"}).tar()))
    layout = oci(LAYER)
    layout.entries[0]["platform"] = {"os": "linux", "architecture": "s390x"}
    with pytest.raises(UnsupportedByHost, match="it offers linux/s390x"):
        await store.load(io.BytesIO(layout.tar()))
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"index.json": b"["},
        {"index.json": b"[" * 100_000},
        {"index.json": b"[]"},
        {"index.json": b"{}"},
        {"index.json": b'{"manifests":[1]}'},
        {"index.json": b'{"manifests":[],"layers":[]}'},
        {"index.json": b" " * (5 << 20)},
        {"manifest.json": b"{}"},
        {"manifest.json": b"[]"},
        {"manifest.json": b'[{"Config":"../x","Layers":[]}]'},
        {"manifest.json": b'[{"Config":"manifest.json","Layers":["manifest.json"]}]'},
        {"manifest.json": b'[{"Config":"' + b"a" * 64 + b'.json","Layers":[]}]', "a" * 64 + ".json": b"{}"},
    ],
)
async def test_archives_that_are_no_images(store: ImageStore, tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(InvalidInput):
        await store.load(io.BytesIO(make_tar(*(entry(name, content) for name, content in files.items()))))
    (tmp_path / "layout").mkdir()
    for name, content in files.items():
        (tmp_path / "layout" / name).write_bytes(content)
    with pytest.raises(InvalidInput):
        await store.load(tmp_path / "layout")
    assert left_in(tmp_path) == []


async def test_names_in_an_archive_are_never_paths(store: ImageStore, tmp_path: Path) -> None:
    layout = oci()
    good = layout.tar()
    hostile = make_tar(
        entry("../../../escaped", b"x"),
        entry("/tmp/sandbox-test-escaped", b"x"),
        symlink("blobs", "/etc"),
        hard_link("h", "/x"),
    )
    (image,) = await store.load(io.BytesIO(hostile[:-10240] + good if hostile[-10240:].strip(b"\0") == b"" else good))
    assert image.names
    assert not Path("/tmp/sandbox-test-escaped").exists()
    assert not list(tmp_path.parent.rglob("escaped"))


async def test_a_directory_with_special_files(store: ImageStore, tmp_path: Path) -> None:
    layout = oci().write(tmp_path / "layout")
    (layout / "index.json").unlink()
    os.mkfifo(layout / "index.json")
    with pytest.raises(InvalidInput, match="regular"):
        await store.load(layout)
    (layout / "index.json").unlink()
    (layout / "index.json").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="regular"):
        await store.load(layout)


async def test_missing_path_and_bad_name(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no"):
        await store.load(tmp_path / "nothing.tar")
    with pytest.raises(InvalidInput):
        await store.load(io.BytesIO(oci().tar()), name="Not A Name")
    with pytest.raises(InvalidInput, match="2 images"):
        layout = oci(LAYER, name="localhost/a")
        layout.add(UPPER, name="localhost/b")
        await store.load(io.BytesIO(layout.tar()), name="localhost/c")


async def test_a_bomb_is_refused(tmp_path: Path, database: Database) -> None:
    store = ImageStore(tmp_path / "images", database, UnpackLimits(total_bytes=1 << 30, ratio_floor_bytes=16 << 20))
    bomb = make_tar(entry("zeros", b"\0" * (64 << 20)))
    with pytest.raises(InvalidInput, match="200 times its size"):
        await store.load(io.BytesIO(oci(bomb).tar()))
    many = make_tar(*(entry(f"n{i}", kind=b"3", devmajor=1, devminor=i) for i in range(200)))
    store = ImageStore(tmp_path / "images", database, UnpackLimits(entries=100))
    with pytest.raises(InvalidInput, match="more than 100 entries"):
        await store.load(io.BytesIO(oci(many).tar()))
    assert left_in(tmp_path) == []


# Names and removal


async def test_resolve(store: ImageStore) -> None:
    layout = oci(name="localhost/busybox:latest")
    manifest = layout.entries[0]["digest"]
    (image,) = await store.load(io.BytesIO(layout.tar()))
    hexadecimal = image.id.removeprefix("sha256:")
    for text in (
        "localhost/busybox",
        "localhost/busybox:latest",
        image.id,
        hexadecimal,
        hexadecimal[:12],
        manifest,
        f"localhost/busybox@{manifest}",
        f"localhost/busybox:other@{manifest}",
    ):
        assert store.resolve(text) is image
    for text in ("localhost/busybox:2", "busybox", hexadecimal[:11], f"localhost/other@{manifest}", "f" * 12, "f" * 64):
        with pytest.raises(ImageNotFound) as caught:
            store.resolve(text)
        assert "sandbox load" in caught.value.hint
    with pytest.raises(ImageNotFound) as caught:
        store.resolve("bussybox")
    assert "did you mean localhost/busybox:latest?" in caught.value.hint
    with pytest.raises(InvalidInput):
        store.resolve("../x")


async def test_a_name_moves_to_the_newer_image(store: ImageStore) -> None:
    (old,) = await store.load(io.BytesIO(oci(LAYER).tar()))
    (new,) = await store.load(io.BytesIO(oci(UPPER).tar()))
    assert store.resolve("localhost/app:1") == new
    assert store.resolve(old.id).names == ()


async def test_remove_untags_then_deletes(store: ImageStore, tmp_path: Path) -> None:
    (image,) = await store.load(io.BytesIO(docker_archive(LAYER, tags=("a:1", "b:1"))))
    await store.load(io.BytesIO(oci(LAYER, UPPER).tar()))
    assert await store.remove("a:1", in_use={image.id}) == ["docker.io/library/a:1"]
    assert store.resolve("b:1").names == ("docker.io/library/b:1",)
    with pytest.raises(Conflict, match="used by a container"):
        await store.remove("b:1", in_use={image.id})
    with pytest.raises(Conflict):
        await store.remove(image.id, in_use={image.id})
    assert await store.remove("b:1") == ["docker.io/library/b:1", image.id]
    with pytest.raises(ImageNotFound):
        await store.remove("b:1")
    shared = store.resolve("localhost/app:1")
    assert all(Path(layer).is_dir() for layer in shared.layers)
    assert await store.remove(shared.id[7:19]) == ["localhost/app:1", shared.id]
    assert left_in(tmp_path) == []


# Crashes and company


async def test_it_survives_a_restart(store: ImageStore, tmp_path: Path, database: Database) -> None:
    images = await store.load(io.BytesIO(oci(config={"Labels": {"a": "b"}, "Env": ["A=1"]}).tar()))
    assert ImageStore(tmp_path / "images", database).list_images() == images


async def test_what_a_crash_left_is_swept(store: ImageStore, tmp_path: Path, database: Database) -> None:
    await store.load(io.BytesIO(oci().tar()))
    before = left_in(tmp_path)
    images = tmp_path / "images"
    (images / "staging/0123").mkdir()
    (images / "staging/0123/7").write_bytes(b"half")
    (images / "layers/tmp-0123/d").mkdir(parents=True)
    (images / "layers/abcdefghijklmnopqrstuvwxyz").mkdir()
    (images / "blobs/sha256" / ("f" * 64)).write_bytes(b"unreferenced")
    ImageStore(images, database)
    assert left_in(tmp_path) == before


async def test_an_image_whose_layer_is_gone_is_dropped(store: ImageStore, tmp_path: Path, database: Database) -> None:
    (image,) = await store.load(io.BytesIO(oci().tar()))
    shutil.rmtree(image.layers[0])
    again = ImageStore(tmp_path / "images", database)
    with pytest.raises(ImageNotFound):
        again.resolve("localhost/app:1")
    assert left_in(tmp_path) == []
    assert await again.load(io.BytesIO(oci().tar())) == [image]


async def test_a_full_disk_is_the_hosts_fault(tmp_path: Path, database: Database) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], check=True)
    try:
        store = ImageStore(mount / "images", database)
        with pytest.raises(StateError, match="ENOSPC"):
            await store.load(io.BytesIO(oci(make_tar(entry("f", os.urandom(2 << 20))), compress=False).tar()))
        with pytest.raises(StateError, match="ENOSPC"):
            await store.load(io.BytesIO(oci(make_tar(entry("f", b"\0" * (2 << 20)))).tar()))
        assert [p for p in (mount / "images").rglob("*") if p.is_file()] == []
    finally:
        subprocess.run(["umount", mount], check=True)


async def test_many_loads_of_one_image_at_once(store: ImageStore, tmp_path: Path) -> None:
    data = oci(make_tar(*(entry(f"f{i}", b"x") for i in range(300))), UPPER).tar()
    results = await asyncio.gather(*(store.load(io.BytesIO(data)) for _ in range(20)))
    assert all(result == results[0] for result in results)
    assert len(list((tmp_path / "images/layers").iterdir())) == 2
    assert list((tmp_path / "images/staging").iterdir()) == []


async def test_removal_and_failure_beside_a_load(store: ImageStore) -> None:
    """What another request sweeps is never what this one is about to publish."""
    data, bad = oci(LAYER, UPPER).tar(), oci(LAYER)
    _index(lambda x: x.manifest(LAYER, make_tar(entry("../x", b""))))(bad)

    async def churn() -> None:
        for _ in range(10):
            with pytest.raises(InvalidInput):
                await store.load(io.BytesIO(bad.tar()))
            with contextlib.suppress(ImageNotFound):
                await store.remove("localhost/app:1")

    async def load() -> None:
        for _ in range(10):
            (image,) = await store.load(io.BytesIO(data))
            if image in store.list_images():  # the other may have removed it since
                assert all(Path(layer).is_dir() for layer in image.layers)

    await asyncio.gather(churn(), load(), load())
    (image,) = await store.load(io.BytesIO(data))
    assert store.read_file(image, "/etc/name", 10) == b"two"


async def test_a_cancelled_load_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    data = oci(make_tar(*(entry(f"d{i % 50}/f{i}", b"x" * 100) for i in range(5_000)))).tar()
    task = asyncio.ensure_future(store.load(io.BytesIO(data)))
    while not list((tmp_path / "images/layers").iterdir()):
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_in(tmp_path) == []


async def test_the_loop_stays_responsive(store: ImageStore) -> None:
    data = oci(make_tar(*(entry(f"d{i % 50}/f{i}", b"x" * 100) for i in range(5_000)))).tar()
    task = asyncio.ensure_future(store.load(io.BytesIO(data)))
    loop = asyncio.get_running_loop()
    worst, begin = 0.0, loop.time()
    while not task.done():
        start = loop.time()
        await asyncio.sleep(0.001)
        worst = max(worst, loop.time() - start)
    await task
    assert worst < (loop.time() - begin) / 3


# busybox


@pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="busybox-static is not installed")
async def test_the_default_image(store: ImageStore, tmp_path: Path) -> None:
    image = await ensure_default_image(store)
    assert image.names == ("localhost/busybox:latest",)
    assert await ensure_default_image(store) is image
    assert build_busybox() == build_busybox()
    (root,) = image.layers
    assert (Path(root) / "tmp").stat().st_mode & 0o7777 == 0o1777
    result = subprocess.run(
        [
            "chroot",
            root,
            "/bin/sh",
            "-c",
            "/usr/bin/env id -un; wget --help 2>&1 | head -1; echo | /sbin/nc 2>&1 | head -1",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("root\nBusyBox")
    assert resolve_user(store, image, "nobody").uid == 65534


async def test_a_busybox_that_will_not_do(store: ImageStore, tmp_path: Path) -> None:
    for path in (tmp_path / "none", Path("/bin/ls"), Path("/etc/passwd")):
        with pytest.raises(UnsupportedByHost) as caught:
            await ensure_default_image(store, path)
        assert "busybox-static" in caught.value.hint
