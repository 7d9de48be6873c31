"""The CNI client against plugins that obey, fail, hang, print garbage, flood, panic and leave children behind."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import NetworkError
from sandbox.network.client import CniClient, Invocation
from sandbox.network.conf import NetworkList, parse_network
from sandbox.network.exec import run_plugin
from sandbox.network.types import NetworkConfig

# Writes what it was given to LOG/<number>, then does as told for the command.
_PLUGIN = """#!/bin/sh
input=$(cat)
n=$(ls {log} | wc -l)
printf '%s' "$input" > {log}/$(printf '%03d' $n).$CNI_COMMAND.{name}
env | grep ^CNI_ > {environment}
case $CNI_COMMAND in
VERSION) echo '{{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0"]}}';;
ADD) {add};;
*) {other};;
esac
"""
_ANSWER = (
    """echo '{"cniVersion":"%s","interfaces":[{"name":"eth0","sandbox":"/n"}],"""
    """"ips":[{"address":"10.0.0.%d/24","interface":0}]}'"""
)
_FAIL = """echo '{"code":%d,"msg":"%s","details":"because"}'; exit 1"""


class Room:
    """A plugin directory with a record of calls."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.bin = root, root / "log", root / "bin"
        self.log.mkdir()
        self.bin.mkdir()
        self.config = NetworkConfig(
            conf_dir=root, bin_dirs=(self.bin,), cache_dir=root / "cni", plugin_timeout_s=20, in_process=False
        )
        self.client = CniClient(self.config)
        self.call = Invocation("pod1", "eth0", str(root), {"IgnoreUnknown": "1", "K8S_POD_NAME": "web"})

    def plugin(self, name: str, add: str = "", other: str = "true", number: int = 2, version: str = "1.0.0") -> Path:
        path = self.bin / name
        text = _PLUGIN.format(
            log=self.log,
            name=name,
            environment=self.root / "environment",
            add=add or _ANSWER % (version, number),
            other=other,
        )
        path.write_text(text)
        path.chmod(0o755)
        return path

    def network(self, *types: str, **keys: Any) -> NetworkList:
        document = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": t} for t in types], **keys}
        return parse_network(document, "test")

    def calls(self) -> list[str]:
        return [path.name.split(".", 1)[1] for path in sorted(self.log.iterdir())]

    def input(self, call: str) -> dict[str, Any]:
        (path,) = [path for path in self.log.iterdir() if path.name.endswith(call)]
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    def cached(self) -> list[str]:
        directory = self.root / "cni" / "results"
        return [path.name for path in directory.iterdir()] if directory.exists() else []


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


async def test_order_previous_results_and_cache(room: Room) -> None:
    room.plugin("one", number=2)
    room.plugin("two", number=3)
    network = room.network("one", "two")
    result = await room.client.add(network, room.call)
    assert result["cniVersion"] == "1.1.0"
    assert result["ips"][0]["address"] == "10.0.0.3/24"
    assert "prevResult" not in room.input("ADD.one")
    assert room.input("ADD.two")["prevResult"]["ips"][0]["address"] == "10.0.0.2/24"
    assert room.input("ADD.two")["name"] == "net"
    assert room.cached() == ["pod1@eth0.json"]

    await room.client.check(room.call)
    await room.client.delete(None, room.call)
    assert room.calls() == ["ADD.one", "ADD.two", "CHECK.one", "CHECK.two", "DEL.two", "DEL.one"]
    for name in ("CHECK.one", "CHECK.two", "DEL.two", "DEL.one"):
        assert room.input(name)["prevResult"]["ips"][0]["address"] == "10.0.0.3/24", "the final result"
    assert room.cached() == []

    await room.client.delete(None, room.call)
    assert len(room.calls()) == 6, "nothing is known of it any more"


async def test_environment(room: Room) -> None:
    room.plugin("one")
    await room.client.add(room.network("one"), room.call)
    lines = (room.root / "environment").read_text().split("\n")
    assert "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web" in lines
    assert "CNI_CONTAINERID=pod1" in lines
    assert "CNI_IFNAME=eth0" in lines
    assert f"CNI_NETNS={room.root}" in lines
    assert f"CNI_PATH={room.bin}" in lines


async def test_capabilities_are_declared_and_supplied(room: Room) -> None:
    room.plugin("one")
    plugins = [{"type": "one", "capabilities": {"portMappings": True, "mac": True, "bandwidth": False}, "x": 1}]
    capabilities = {"portMappings": [{"hostPort": 1}], "bandwidth": {}, "ips": ["10.0.0.9/24"]}
    call = Invocation("pod1", "eth0", str(room.root), {}, capabilities)
    await room.client.add(room.network("one", plugins=plugins), call)
    given = room.input("ADD.one")
    assert given["runtimeConfig"] == {"portMappings": [{"hostPort": 1}]}
    assert "capabilities" not in given
    assert given["x"] == 1
    await room.client.delete(None, Invocation("pod1", "eth0", ""))
    assert room.input("DEL.one")["runtimeConfig"] == {"portMappings": [{"hostPort": 1}]}, "those of ADD"


async def test_failed_add_is_followed_by_del(room: Room) -> None:
    room.plugin("one")
    room.plugin("two", add=_FAIL % (107, "no room left"))
    room.plugin("three")
    with pytest.raises(NetworkError, match=r"CNI plugin two failed at ADD: no room left \(because\)") as caught:
        await room.client.add(room.network("one", "two", "three"), room.call)
    assert caught.value.code == 107
    assert room.calls() == ["ADD.one", "ADD.two", "DEL.three", "DEL.two", "DEL.one"]
    assert room.cached() == []


async def test_failed_add_whose_del_fails_is_kept_for_the_next_del(room: Room) -> None:
    room.plugin("one", add=_FAIL % (100, "add"), other=_FAIL % (101, "del"))
    with pytest.raises(NetworkError, match="add") as caught:
        await room.client.add(room.network("one"), room.call)
    assert "cleaning up failed too" in caught.value.hint
    assert room.cached() == ["pod1@eth0.json"]
    room.plugin("one")
    await room.client.delete(None, room.call)
    assert room.cached() == []


async def test_del_goes_on_after_a_failure_and_is_repeated(room: Room) -> None:
    room.plugin("one")
    room.plugin("two", other=_FAIL % (5, "broken pipe"))
    await room.client.add(room.network("one", "two"), room.call)
    with pytest.raises(NetworkError, match=r"code 5: input or output failure"):
        await room.client.delete(None, room.call)
    assert room.calls()[-2:] == ["DEL.two", "DEL.one"]
    assert room.cached() == ["pod1@eth0.json"]
    room.plugin("two")
    await room.client.delete(None, room.call)
    assert room.cached() == []


async def test_del_uses_the_configuration_of_add(room: Room) -> None:
    room.plugin("one")
    await room.client.add(room.network("one", plugins=[{"type": "one", "colour": "red"}]), room.call)
    changed = room.network("one", plugins=[{"type": "one", "colour": "blue"}])
    await room.client.delete(changed, room.call)
    assert room.input("DEL.one")["colour"] == "red"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": {}}', '{"config": 7, "result": []}', "\0" * 100])
async def test_unreadable_cache_does_not_wedge_del(room: Room, content: str) -> None:
    room.plugin("one")
    await room.client.add(room.network("one"), room.call)
    (room.root / "cni" / "results" / "pod1@eth0.json").write_text(content)
    await room.client.delete(room.network("one"), room.call)
    assert room.calls() == ["ADD.one", "DEL.one"]
    assert room.cached() == []


async def test_missing_netns_is_left_out_of_del(room: Room) -> None:
    room.plugin("one")
    call = Invocation("pod1", "eth0", str(room.root / "ns"))
    (room.root / "ns").touch()
    await room.client.add(room.network("one"), call)
    (room.root / "ns").unlink()
    await room.client.delete(None, call)
    assert "CNI_NETNS=\n" in (room.root / "environment").read_text()


async def test_second_add_is_refused_without_hurting_the_first(room: Room) -> None:
    room.plugin("one")
    await room.client.add(room.network("one"), room.call)
    with pytest.raises(NetworkError, match="has interface eth0 in a network already"):
        await room.client.add(room.network("one"), room.call)
    assert room.calls() == ["ADD.one"]


async def test_highest_version_that_all_plugins_know(room: Room) -> None:
    room.plugin("one")
    network = room.network("one", cniVersions=["0.4.0", "1.0.0", "1.1.0"])
    await room.client.add(network, room.call)
    assert room.input("ADD.one")["cniVersion"] == "1.0.0"
    with pytest.raises(NetworkError, match="know none of its CNI versions") as caught:
        await room.client.add(room.network("one", cniVersions=["0.3.0", "0.3.1"]), Invocation("p", "eth0", "/"))
    assert caught.value.code == 1


async def test_older_results_are_converted(room: Room) -> None:
    add = """echo '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24"}]}'"""
    room.plugin("one", add=add)
    room.plugin("two", add=add)
    result = await room.client.add(room.network("one", "two", cniVersion="0.4.0"), room.call)
    assert room.input("ADD.two")["prevResult"]["ips"][0]["version"] == "4"
    assert "version" not in result["ips"][0]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo hello", "printed no JSON at ADD: 'hello'"),
        ("true", "not a JSON object"),
        ("echo 7", "not a JSON object"),
        ("""echo '{"cniVersion":"1.0.0","ips":7}'""", "ips is not a list"),
        ("kill -9 $$", "was killed by SIGKILL"),
        ("""echo 'panic: nil map' >&2; echo 'goroutine 1 [running]:' >&2; exit 2""", "status 2 at ADD: panic: nil map"),
        ("echo oops; exit 3", "status 3 at ADD: oops"),
        ("head -c 3000000 /dev/zero", "printed more than 1048576 bytes"),
    ],
)
async def test_misbehaving_plugins_become_sentences(room: Room, script: str, words: str) -> None:
    room.plugin("one", add=script)
    with pytest.raises(NetworkError) as caught:
        await room.client.add(room.network("one"), room.call)
    assert words in str(caught.value)
    assert room.calls() == ["ADD.one", "DEL.one"]
    assert room.cached() == []


async def test_plugin_that_is_not_there(room: Room) -> None:
    with pytest.raises(NetworkError, match="CNI plugin nosuch is not in") as caught:
        await room.client.add(room.network("nosuch"), room.call)
    assert "containernetworking-plugins" in caught.value.hint


async def test_hanging_plugin_is_killed_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "hang"
    script.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! > {tmp_path}/child\nsleep 1000\n")
    script.chmod(0o755)
    start = time.monotonic()
    with pytest.raises(NetworkError, match=r"did not end ADD within 0\.3 s and was killed"):
        await run_plugin(script, {"CNI_COMMAND": "ADD"}, b"{}", 0.3)
    assert time.monotonic() - start < 5
    await _gone(int((tmp_path / "child").read_text()))


async def test_child_that_holds_the_output_does_not_hold_up_the_answer(tmp_path: Path) -> None:
    script = tmp_path / "daemonise"
    script.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! > {tmp_path}/child\necho '{{\"a\": 1}}'\n")
    script.chmod(0o755)
    start = time.monotonic()
    assert await run_plugin(script, {"CNI_COMMAND": "ADD"}, b"{}", 30) == {"a": 1}
    assert time.monotonic() - start < 5
    await _gone(int((tmp_path / "child").read_text()))


async def _gone(pid: int) -> None:
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"process {pid} is left")


async def test_unread_input_is_no_error(tmp_path: Path) -> None:
    script = tmp_path / "deaf"
    script.write_text("#!/bin/sh\nexec <&-\necho '{}'\n")
    script.chmod(0o755)
    assert await run_plugin(script, {"CNI_COMMAND": "ADD"}, b" " * 500_000, 10) == {}


async def test_commands_of_one_container_take_turns(room: Room) -> None:
    room.plugin("slow", add="sleep 0.3; " + _ANSWER % ("1.0.0", 2))
    network = room.network("slow")
    adding = asyncio.create_task(room.client.add(network, room.call))
    await asyncio.sleep(0.05)
    other = Invocation("pod2", "eth0", str(room.root))
    await asyncio.gather(room.client.delete(network, room.call), room.client.add(network, other), adding)
    assert room.calls()[-1] == "DEL.slow" or room.calls().index("DEL.slow") > 0
    assert room.calls().count("ADD.slow") == 2
    assert room.cached() == ["pod2@eth0.json"]


async def test_cancelled_add_is_undone(room: Room) -> None:
    room.plugin("slow", add=f"touch {room.root}/started; sleep 100")
    adding = asyncio.create_task(room.client.add(room.network("slow"), room.call))
    while not (room.root / "started").exists():
        await asyncio.sleep(0.01)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert room.calls() == ["ADD.slow", "DEL.slow"]
    assert room.cached() == []


async def test_gc_waits_for_adds_and_names_who_is_valid(room: Room) -> None:
    room.plugin("slow", add="sleep 0.3; " + _ANSWER % ("1.1.0", 2))
    network = room.network("slow", cniVersion="1.1.0")
    adding = asyncio.create_task(room.client.add(network, room.call))
    await asyncio.sleep(0.05)
    await room.client.collect(network, [("pod1", "eth0")])
    assert adding.done()
    await adding
    assert room.calls() == ["ADD.slow", "GC.slow"]
    assert room.input("GC.slow")["cni.dev/valid-attachments"] == [{"containerID": "pod1", "ifname": "eth0"}]


async def test_gc_and_check_are_left_out_where_disabled_or_unknown(room: Room) -> None:
    room.plugin("one", version="1.1.0")
    network = room.network("one", cniVersion="1.1.0", disableGC=True, disableCheck=True)
    await room.client.collect(network, [])
    await room.client.collect(room.network("one"), [])
    await room.client.add(network, room.call)
    await room.client.check(room.call)
    assert room.calls() == ["ADD.one"]


async def test_check_without_add(room: Room) -> None:
    with pytest.raises(NetworkError, match="has no interface eth0 in a network"):
        await room.client.check(room.call)


async def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    script = tmp_path / "fds"
    script.write_text("#!/bin/sh\nls /proc/self/fd | wc -l | sed 's/.*/{\"n\": &}/'\n")
    script.chmod(0o755)
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    try:
        # ls has its own directory and, in a pipe, the three standard ones.
        assert (await run_plugin(script, {"CNI_COMMAND": "ADD"}, b"", 10))["n"] <= 5
    finally:
        for fd in held:
            os.close(fd)
