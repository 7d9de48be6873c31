"""The CNI client with executables: Debian's reference plugins, and `sandbox-network` itself."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import NetworkError
from sandbox.network.manager import Attachment, HostPort, NetworkConfig, NetworkManager
from sandbox.network.plugin import EmbeddedPlugin
from tests.netns import Namespace, host_objects, isolated_host, run, world

pytestmark = pytest.mark.root
REFERENCE = Path("/usr/lib/cni")


@pytest.fixture
def host() -> Iterator[None]:
    with isolated_host():
        yield


class Lab:
    """A manager over a conflist and a plugin directory."""

    def __init__(self, root: Path, plugins: list[dict[str, Any]], version: str, bin_dir: Path) -> None:
        self.root = root
        (root / "net.d").mkdir(exist_ok=True)
        document = {"cniVersion": version, "name": "lab", "plugins": plugins}
        (root / "net.d" / "10-lab.conflist").write_text(json.dumps(document))
        self.manager = NetworkManager(
            NetworkConfig(
                conf_dir=root / "net.d", bin_dirs=(bin_dir, REFERENCE), cache_dir=root / "cni", in_process=False
            )
        )

    def pod(self, id: str, *ports: HostPort) -> tuple[Namespace, Attachment]:
        space = Namespace()
        return space, Attachment(id, id, "default", f"uid-{id}", space.path, port_mappings=ports)

    def files(self) -> list[str]:
        names = (path for path in self.root.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.root)) for path in names if "net.d" not in str(path))


def reference_plugins(root: Path) -> list[dict[str, Any]]:
    return [
        {
            "type": "bridge",
            "bridge": "ref0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(root / "host-local"),
                "ranges": [[{"subnet": "10.77.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]


def our_plugins(root: Path, **settings: Any) -> list[dict[str, Any]]:
    plugin = {
        "type": "sandbox-network",
        "bridge": "ours0",
        "subnet": "10.78.0.0/16",
        "dataDir": str(root / "leases"),
        "capabilities": {"portMappings": True},
        **settings,
    }
    return [plugin]


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A plugin directory with `sandbox-network` as an executable."""
    directory = tmp_path / "bin"
    directory.mkdir()
    path = directory / "sandbox-network"
    repository = Path(__file__).parents[2]
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(repository)!r})\n"
        "from sandbox.network.plugin import main\nsys.exit(main())\n"
    )
    path.chmod(0o755)
    return directory


def talk(listener: socket.socket, client: socket.socket) -> str:
    with listener, client:
        server, peer = listener.accept()
        server.close()
    return str(peer[0])


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
@pytest.mark.skipif(not (REFERENCE / "bridge").exists(), reason="containernetworking-plugins is not installed")
async def test_reference_plugins(host: None, tmp_path: Path, bin_dir: Path, version: str) -> None:
    lab = Lab(tmp_path, reference_plugins(tmp_path), version, bin_dir)
    with world() as beyond:
        space, attachment = lab.pod("a", HostPort("", 8080, 80))
        result = await lab.manager.setup(attachment)
        address = result.addresses[0].split("/")[0]
        assert address.startswith("10.77.0.")
        assert result.gateway == "10.77.0.1"
        assert result.raw["cniVersion"] == "1.1.0"
        # portmap's CHECK looks for rules of IPv6 that its ADD does not make: checked without host ports.
        plain_space, plain = lab.pod("plain")
        await lab.manager.setup(plain)
        await lab.manager.check(plain)
        plain_space.run("ip", "route", "del", "default")
        if version != "0.3.1":
            with pytest.raises(NetworkError, match="CNI plugin bridge failed at CHECK"):
                await lab.manager.check(plain)
        await lab.manager.teardown(plain)
        plain_space.close()
        assert talk(space.listen(80), socket.create_connection((address, 80), 3))
        assert talk(space.listen(80), socket.create_connection(("127.0.0.1", 8080), 3))
        assert talk(space.listen(80), beyond.connect("198.51.100.1", 8080))
        assert talk(beyond.listen(9000), space.connect("198.51.100.2", 9000)) == "198.51.100.1"
        await lab.manager.teardown("a")
        await lab.manager.teardown("a")
        links = host_objects()["links"]
        assert [name for name in links if name.startswith("veth")] == []
        assert f"dnat to {address}" not in run("nft", "list", "ruleset")
        assert "8080" not in run("nft", "list", "ruleset")
        left = [name for name in lab.files() if name.split("/")[-1].startswith("10.77") or "results" in name]
        assert left == [], "no address and no cache file is left"
        space.close()


@pytest.mark.skipif(not (REFERENCE / "bridge").exists(), reason="containernetworking-plugins is not installed")
async def test_reference_plugins_without_netns_and_with_corrupt_cache(
    host: None, tmp_path: Path, bin_dir: Path
) -> None:
    lab = Lab(tmp_path, reference_plugins(tmp_path), "1.0.0", bin_dir)
    for id, harm in (("a", "netns"), ("b", "cache")):
        space, attachment = lab.pod(id, HostPort("", 8080, 80))
        await lab.manager.setup(attachment)
        if harm == "netns":
            space.close()
        else:
            (tmp_path / "cni" / "results" / f"{id}@eth0.json").write_text("")
        await lab.manager.teardown(attachment)
        space.close()
        assert [n for n in lab.files() if n.split("/")[-1].startswith("10.77") or "results" in n] == []


@pytest.mark.skipif(not (REFERENCE / "bridge").exists(), reason="containernetworking-plugins is not installed")
async def test_a_failing_last_plugin_takes_the_first_down_again(host: None, tmp_path: Path, bin_dir: Path) -> None:
    failing = bin_dir / "fails"
    failing.write_text(
        '#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit 0\necho \'{"code": 100, "msg": "not today"}\'; exit 1\n'
    )
    failing.chmod(0o755)
    lab = Lab(tmp_path, [*reference_plugins(tmp_path), {"type": "fails"}], "1.0.0", bin_dir)
    space, attachment = lab.pod("a", HostPort("", 8080, 80))
    with pytest.raises(NetworkError, match="CNI plugin fails failed at ADD: not today"):
        await lab.manager.setup(attachment)
    assert "eth0" not in space.run("ip", "-br", "link")
    assert [n for n in lab.files() if n.split("/")[-1].startswith("10.77") or "results" in n] == []
    assert "8080" not in run("nft", "list", "ruleset")
    space.close()


@pytest.mark.skipif(not (REFERENCE / "portmap").exists(), reason="containernetworking-plugins is not installed")
async def test_reference_plugins_chained_after_ours(host: None, tmp_path: Path, bin_dir: Path) -> None:
    chain = [*our_plugins(tmp_path, capabilities={}), {"type": "portmap", "capabilities": {"portMappings": True}}]
    lab = Lab(tmp_path, chain, "1.0.0", bin_dir)
    space, attachment = lab.pod("a", HostPort("", 8080, 80))
    await lab.manager.setup(attachment)
    assert talk(space.listen(80), socket.create_connection(("127.0.0.1", 8080), 3))
    await lab.manager.teardown(attachment)
    space.close()


@pytest.mark.parametrize("version", ["0.3.0", "0.4.0", "1.0.0", "1.1.0"])
async def test_our_plugin_as_an_executable(host: None, tmp_path: Path, bin_dir: Path, version: str) -> None:
    lab = Lab(tmp_path, our_plugins(tmp_path), version, bin_dir)
    space, attachment = lab.pod("a", HostPort("", 8080, 80))
    result = await lab.manager.setup(attachment)
    assert result.addresses == ("10.78.0.2/16",)
    assert talk(space.listen(80), socket.create_connection(("10.78.0.2", 80), 3)) == "10.78.0.1"
    assert talk(space.listen(80), socket.create_connection(("127.0.0.1", 8080), 3))
    await lab.manager.check(attachment)
    await lab.manager.plugin_status()
    await lab.manager.teardown(attachment)
    await lab.manager.teardown(attachment)
    assert [name for name in host_objects()["links"] if name.startswith("sb")] == []
    assert "elements" not in run("nft", "list", "table", "inet", "sandbox-ours0")
    assert [name for name in lab.files() if "results" in name] == []
    space.close()


async def test_executables_at_once_get_different_addresses(host: None, tmp_path: Path, bin_dir: Path) -> None:
    lab = Lab(tmp_path, our_plugins(tmp_path), "1.1.0", bin_dir)
    pods = [lab.pod(f"p{i}", HostPort("", 8000 + i, 80)) for i in range(6)]
    results = await asyncio.gather(*(lab.manager.setup(attachment) for _, attachment in pods))
    assert len({result.addresses for result in results}) == 6
    for i, (space, _) in enumerate(pods):
        assert talk(space.listen(80), socket.create_connection(("127.0.0.1", 8000 + i), 3))
    await asyncio.gather(*(lab.manager.teardown(attachment) for _, attachment in pods))
    assert "elements" not in run("nft", "list", "table", "inet", "sandbox-ours0")
    for space, _ in pods:
        space.close()


def invoke(bin_dir: Path, config: Any, **environment: str) -> tuple[int, dict[str, Any]]:
    """Runs the plugin as any CNI runtime does."""
    done = subprocess.run(
        [bin_dir / "sandbox-network"],
        input=config if isinstance(config, str) else json.dumps(config),
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def test_protocol_of_the_executable(host: None, tmp_path: Path, bin_dir: Path) -> None:
    config = {"cniVersion": "1.1.0", "name": "n", **our_plugins(tmp_path)[0]}
    pod = {"CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_NETNS": "/nowhere"}
    assert invoke(bin_dir, {}, CNI_COMMAND="VERSION")[1]["supportedVersions"][-1] == "1.1.0"
    for changed, environment, code in (
        (config, {"CNI_COMMAND": "ADD", **pod, "CNI_CONTAINERID": ""}, 4),
        (config, {"CNI_COMMAND": "ADD", **pod, "CNI_IFNAME": "a/b"}, 4),
        (config, {"CNI_COMMAND": "ADD", **pod, "CNI_NETNS": ""}, 4),
        (config, {"CNI_COMMAND": "FROB", **pod}, 4),
        ("{", {"CNI_COMMAND": "ADD", **pod}, 6),
        ({**config, "cniVersion": "0.1.0"}, {"CNI_COMMAND": "ADD", **pod}, 1),
        ({**config, "subnet": "x"}, {"CNI_COMMAND": "ADD", **pod}, 7),
        (config, {"CNI_COMMAND": "ADD", **pod}, 100),
        (config, {"CNI_COMMAND": "CHECK", **pod}, 7),
    ):
        status, answer = invoke(bin_dir, changed, **environment)
        assert (status, answer.get("code")) == (1, code), answer
        assert answer["msg"]
    assert invoke(bin_dir, config, CNI_COMMAND="DEL", **pod) == (0, {})
    assert invoke(bin_dir, config, CNI_COMMAND="STATUS") == (0, {})


def test_gc_of_the_executable(host: None, tmp_path: Path, bin_dir: Path) -> None:
    config = {"cniVersion": "1.1.0", "name": "n", **our_plugins(tmp_path)[0]}
    spaces = [Namespace(), Namespace()]
    for name, space in zip(("keep", "drop"), spaces, strict=True):
        status, _ = invoke(
            bin_dir, config, CNI_COMMAND="ADD", CNI_CONTAINERID=name, CNI_IFNAME="eth0", CNI_NETNS=space.path
        )
        assert status == 0
    valid = [{"containerID": "keep", "ifname": "eth0"}]
    assert invoke(bin_dir, {**config, "cni.dev/valid-attachments": valid}, CNI_COMMAND="GC") == (0, {})
    assert "eth0" in spaces[0].run("ip", "-br", "link")
    assert "eth0" not in spaces[1].run("ip", "-br", "link")
    for space in spaces:
        space.close()


def test_the_executable_and_the_daemon_share_a_network(host: None, tmp_path: Path, bin_dir: Path) -> None:
    """What one makes the other takes down."""
    from sandbox.network.embedded.settings import Request

    config = {"cniVersion": "1.1.0", "name": "n", **our_plugins(tmp_path)[0]}
    plugin = EmbeddedPlugin()
    one, other = Namespace(), Namespace()
    first = plugin.call("ADD", Request("a", "eth0", one.path, config))
    _, second = invoke(bin_dir, config, CNI_COMMAND="ADD", CNI_CONTAINERID="b", CNI_IFNAME="eth0", CNI_NETNS=other.path)
    assert first is not None
    assert first["ips"][0]["address"] != second["ips"][0]["address"]
    plugin.call("DEL", Request("b", "eth0", other.path, config))
    invoke(bin_dir, config, CNI_COMMAND="DEL", CNI_CONTAINERID="a", CNI_IFNAME="eth0", CNI_NETNS=one.path)
    assert [name for name in host_objects()["links"] if name.startswith("sb")] == []
    assert plugin.network(config).remove()
    plugin.close()
    for space in (one, other):
        space.close()
