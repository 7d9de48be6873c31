"""Volumes: made twice as once, laid out as the kubelet does, gone afterwards. Needs root only for owners."""

from __future__ import annotations

import base64
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import InvalidInput
from sandbox.manifest import load_manifests
from sandbox.pods import trees
from sandbox.pods.atomic import FileContent, check_relative, write_atomically
from sandbox.pods.hostpath import prepare_host_path
from sandbox.pods.kube import Pod, PodManifest
from sandbox.pods.objects import ObjectStore
from sandbox.pods.settings import PodSettings
from sandbox.pods.volumes import Volumes
from sandbox.store.database import Database
from tests.unit.pods_fakes import DirectoryTmpfs, pod

root = pytest.mark.skipif(os.geteuid() != 0, reason="owners can be set by root only")
UID = "11111111-2222"


class Room:
    def __init__(self, directory: Path) -> None:
        self.settings = PodSettings(directory / "root", directory / "run", host_ip="192.0.2.7", node_name="node")
        self.objects = ObjectStore(Database(directory / "state.db"))
        self.tmpfs = DirectoryTmpfs()
        self.volumes = Volumes(self.settings, self.objects, self.tmpfs)
        self.disk = self.settings.volumes_directory(UID)
        self.memory = self.settings.memory_volumes_directory(UID)

    def pod(self, volume: str, *, spec: str = "", container: str = "") -> PodManifest:
        (loaded,) = load_manifests([("p", pod(spec=f"volumes: [{volume}]\n{spec}", container=container).encode())])
        assert isinstance(loaded, Pod)
        return PodManifest.of(loaded)

    def put(self, text: str) -> None:
        (thing,) = load_manifests([("o", text.encode())])
        self.objects.put(thing)

    def prepare(self, volume: str, **options: Any) -> PodManifest:
        """Twice, as after a crash in between."""
        manifest = self.pod(volume, **options)
        self.volumes.check(manifest)
        self.volumes.prepare(manifest, UID)
        self.volumes.prepare(manifest, UID)
        return manifest


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_an_empty_dir_is_open_to_all_and_keeps_its_files(room: Room) -> None:
    manifest = room.prepare("{name: v, emptyDir: {}}")
    assert _mode(room.disk / "v") == 0o777
    (room.disk / "v" / "file").write_text("kept")
    room.volumes.prepare(manifest, UID)
    assert (room.disk / "v" / "file").read_text() == "kept"
    assert room.volumes.owners() == {UID}
    await room.volumes.teardown(UID)
    await room.volumes.teardown(UID)
    assert not room.disk.exists() and not room.volumes.owners()


async def test_an_empty_dir_in_memory_is_a_tmpfs_of_its_size(room: Room) -> None:
    room.prepare("{name: v, emptyDir: {medium: Memory, sizeLimit: 8Mi}}")
    assert room.tmpfs.mounted == {room.memory / "v": 8 << 20}
    await room.volumes.teardown(UID)
    assert not room.tmpfs.mounted and not room.memory.exists()


def test_a_tmpfs_is_no_larger_than_the_containers_memory(room: Room) -> None:
    room.prepare("{name: v, emptyDir: {medium: Memory}}", container="resources: {limits: {memory: 32Mi}}")
    assert room.tmpfs.mounted == {room.memory / "v": 32 << 20}


@root
def test_fs_group_owns_the_volume_and_what_is_made_in_it(room: Room) -> None:
    room.prepare("{name: v, emptyDir: {}}", spec="securityContext: {fsGroup: 4321}")
    assert (room.disk / "v").stat().st_gid == 4321
    assert _mode(room.disk / "v") == 0o2777


CONFIG = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a.conf: one}, binaryData: {bin: AP8=}}"


def test_a_config_map_has_the_layout_of_the_kubelet(room: Room) -> None:
    room.put(CONFIG)
    room.prepare("{name: v, configMap: {name: c}}")
    place = room.disk / "v"
    assert (place / "a.conf").read_text() == "one"
    assert (place / "bin").read_bytes() == b"\x00\xff"
    assert (place / "a.conf").readlink() == Path("..data/a.conf")
    assert (place / "..data").is_symlink() and str((place / "..data").readlink()).startswith("..2")
    assert _mode(place / "a.conf") == 0o644
    assert sorted(entry.name for entry in place.iterdir() if not entry.name.startswith("..")) == ["a.conf", "bin"]


def test_items_and_modes(room: Room) -> None:
    room.put(CONFIG)
    items = "items: [{key: a.conf, path: etc/x.conf, mode: 0600}, {key: bin, path: b}], defaultMode: 0440"
    room.prepare(f"{{name: v, configMap: {{name: c, {items}}}}}")
    place = room.disk / "v"
    assert (place / "etc" / "x.conf").read_text() == "one"
    assert _mode(place / "etc" / "x.conf") == 0o600 and _mode(place / "b") == 0o440
    assert not (place / "a.conf").exists()


@root
def test_fs_group_reads_a_private_secret(room: Room) -> None:
    room.put("{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {key: hush}}")
    room.prepare("{name: v, secret: {secretName: s, defaultMode: 0400}}", spec="securityContext: {fsGroup: 4321}")
    file = room.memory / "v" / "key"
    assert file.read_text() == "hush" and _mode(file) == 0o440 and file.stat().st_gid == 4321
    assert room.memory / "v" in room.tmpfs.mounted, "secrets never touch the disk"
    assert not room.disk.exists()


def test_optional_objects_may_be_absent_and_others_not(room: Room) -> None:
    room.prepare("{name: v, configMap: {name: absent, optional: true}}")
    assert [e.name for e in (room.disk / "v").iterdir() if not e.name.startswith("..")] == []
    with pytest.raises(InvalidInput, match="refers to Secret 'absent'"):
        room.volumes.check(room.pod("{name: v, secret: {secretName: absent}}"))
    room.put(CONFIG)
    with pytest.raises(InvalidInput, match="'nope', which ConfigMap 'c' does not have"):
        room.volumes.check(room.pod("{name: v, configMap: {name: c, items: [{key: nope, path: x}]}}"))


def test_an_update_is_seen_at_once_and_as_a_whole(tmp_path: Path) -> None:
    first = {"a": FileContent(b"1", 0o644), "gone": FileContent(b"x", 0o644), "d/e": FileContent(b"deep", 0o644)}
    assert write_atomically(tmp_path, first, None)
    before = (tmp_path / "..data").readlink()
    assert not write_atomically(tmp_path, first, None), "nothing to do"
    assert (tmp_path / "..data").readlink() == before
    held = os.open(tmp_path / "a", os.O_RDONLY)
    assert write_atomically(tmp_path, {"a": FileContent(b"2", 0o644), "d/f": FileContent(b"new", 0o600)}, None)
    assert (tmp_path / "a").read_bytes() == b"2" and os.read(held, 9) == b"1"
    os.close(held)
    assert not (tmp_path / "gone").is_symlink() and not (tmp_path / "d" / "e").exists()
    assert len([e for e in tmp_path.iterdir() if e.name.startswith("..2")]) == 1


def test_a_crash_before_the_swap_leaves_the_old_set(tmp_path: Path) -> None:
    write_atomically(tmp_path, {"a": FileContent(b"1", 0o644)}, None)
    (tmp_path / "..2001_stale").mkdir()
    (tmp_path / "..data_tmp").symlink_to("..2001_stale")
    assert (tmp_path / "a").read_bytes() == b"1"
    write_atomically(tmp_path, {"a": FileContent(b"2", 0o644)}, None)
    assert (tmp_path / "a").read_bytes() == b"2" and not (tmp_path / "..2001_stale").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "..data", "..2024/x", "a\0b"])
def test_hostile_paths_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidInput):
        check_relative(path)
    with pytest.raises(InvalidInput):
        write_atomically(tmp_path, {path: FileContent(b"", 0o644)}, None)
    assert list(tmp_path.iterdir()) == []


def test_secret_data_that_is_not_base64_is_refused(room: Room) -> None:
    good = base64.b64encode(b"x").decode()
    (thing,) = load_manifests(
        [("o", f"{{apiVersion: v1, kind: Secret, metadata: {{name: s}}, data: {{k: {good}}}}}".encode())]
    )
    thing.data["k"] = "%%%"  # type: ignore[index, union-attr]
    with pytest.raises(InvalidInput, match="not base64"):
        room.objects.put(thing)


# hostPath


@pytest.mark.parametrize("kind", ["", "DirectoryOrCreate"])
def test_host_directories_are_made(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "a" / "b"
    assert prepare_host_path("v", str(place), kind) == place
    assert place.is_dir() and _mode(place) == 0o755
    (place / "kept").touch()
    prepare_host_path("v", str(place), kind)
    assert (place / "kept").exists()


def test_host_files_are_made_only_in_a_directory(tmp_path: Path) -> None:
    prepare_host_path("v", str(tmp_path / "f"), "FileOrCreate")
    assert (tmp_path / "f").is_file() and _mode(tmp_path / "f") == 0o644
    with pytest.raises(InvalidInput, match="cannot be made"):
        prepare_host_path("v", str(tmp_path / "no" / "f"), "FileOrCreate")


def test_host_path_types(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "sock"))
    fits = {
        "Directory": tmp_path,
        "DirectoryOrCreate": tmp_path,
        "File": tmp_path / "file",
        "FileOrCreate": tmp_path / "file",
        "Socket": tmp_path / "sock",
        "CharDevice": Path("/dev/null"),
    }
    for kind, place in fits.items():
        prepare_host_path("v", str(place), kind)
        for other, wrong in fits.items():
            if wrong != place:
                with pytest.raises(InvalidInput, match=f"hostPath '{wrong}' of volume 'v' is not a"):
                    prepare_host_path("v", str(wrong), kind)
                assert other
    with pytest.raises(InvalidInput, match="is not a block device"):
        prepare_host_path("v", "/dev/null", "BlockDevice")
    for kind in ("Directory", "File", "Socket", "CharDevice", "BlockDevice"):
        with pytest.raises(InvalidInput, match="does not exist"):
            prepare_host_path("v", str(tmp_path / "absent"), kind)
    listener.close()


@pytest.mark.parametrize("path", ["relative", "/a/../b"])
def test_host_paths_are_absolute_and_plain(path: str) -> None:
    with pytest.raises(InvalidInput, match="absolute path"):
        prepare_host_path("v", path, "")


# Sub paths and removal


def test_sub_paths_are_made_below_the_volume(room: Room) -> None:
    manifest = room.prepare(
        "{name: v, emptyDir: {}}", container="volumeMounts: [{name: v, mountPath: /d, subPath: x/y}]"
    )
    (mount,) = room.volumes.mounts(manifest, UID, manifest.spec.containers[0], {}, make_sub_paths=True)
    assert mount.sub_path == "x/y" and (room.disk / "v" / "x" / "y").is_dir()
    assert _mode(room.disk / "v" / "x") == 0o777


def test_a_sub_path_is_not_made_through_a_link(room: Room, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    manifest = room.prepare(
        "{name: v, emptyDir: {}}", container="volumeMounts: [{name: v, mountPath: /d, subPath: link/new}]"
    )
    (room.disk / "v" / "link").symlink_to(outside)
    room.volumes.mounts(manifest, UID, manifest.spec.containers[0], {}, make_sub_paths=True)
    assert list(outside.iterdir()) == []


def test_payload_volumes_are_mounted_read_only(room: Room) -> None:
    room.put(CONFIG)
    manifest = room.prepare(
        "{name: v, configMap: {name: c}}", container="volumeMounts: [{name: v, mountPath: /d/a.conf, subPath: a.conf}]"
    )
    (mount,) = room.volumes.mounts(manifest, UID, manifest.spec.containers[0], {}, make_sub_paths=True)
    assert mount.readonly and (room.disk / "v" / mount.sub_path).read_text() == "one"


@pytest.mark.parametrize("files", [3, 600])
async def test_removal_follows_no_link(tmp_path: Path, files: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    (victim / "link").symlink_to(outside)
    for number in range(files):
        (victim / "deep" / str(number)).touch()
    await trees.remove_tree(victim)
    await trees.remove_tree(victim)
    assert not victim.exists() and (outside / "precious").exists()


async def test_removal_of_a_link_removes_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    await trees.remove_tree(tmp_path / "link")
    assert (tmp_path / "real").is_dir() and not (tmp_path / "link").is_symlink()


async def test_a_sub_path_that_becomes_a_link_while_it_is_made(room: Room, tmp_path: Path, monkeypatch: Any) -> None:
    """A container that shares the volume swaps the new directory for a link: what the link names keeps its mode."""
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    volume = tmp_path / "volume"
    volume.mkdir()
    mkdir = os.mkdir

    def swapped(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        mkdir(path, mode, dir_fd=dir_fd)
        os.rename(path, "aside", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        os.symlink(precious, path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    trees.make_below(volume, "sub", 0o777)
    assert precious.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("volume", ["{name: v, configMap: {name: c, items: [{key: a.conf, path: x/y/z}]}}"])
def test_every_user_finds_the_way_to_the_files(room: Room, volume: str) -> None:
    """The daemon makes files for nobody else; a container of any user reads these."""
    room.put(CONFIG)
    room.prepare(volume)
    place = room.disk / "v" / "x" / "y" / "z"
    assert _mode(place) == 0o644
    assert {_mode(room.disk / "v"), *(_mode(room.disk / "v" / "x" / part) for part in ("", "y"))} == {0o755}
    assert _mode(room.disk / "v" / "..data/") == 0o755
