"""The embedded network in process: connectivity, host ports, masquerade, leftovers, and nothing left at the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandbox.errors import NetworkError
from sandbox.network.embedded import links
from sandbox.network.manager import Attachment, HostPort, NetworkConfig, NetworkManager, NetworkResult
from tests.netns import Namespace, host_objects, isolated_host, run, world

pytestmark = pytest.mark.root
GATEWAY = "10.85.0.1"


@pytest.fixture
def host() -> Iterator[None]:
    with isolated_host():
        yield


class Lab:
    """A manager on a host of its own, and pods."""

    def __init__(self, root: Path, **settings: object) -> None:
        self.root = root
        self.config = NetworkConfig(conf_dir=root / "net.d", cache_dir=root / "cni", **settings)  # type: ignore[arg-type]
        self.manager = NetworkManager(self.config)
        self.namespaces: list[Namespace] = []

    def attachment(self, id: str, *ports: HostPort, fds: bool = True) -> tuple[Namespace, Attachment]:
        space = Namespace()
        self.namespaces.append(space)
        attachment = Attachment(id, id, "default", f"uid-{id}", space.path, port_mappings=ports)
        if fds:
            attachment = Attachment(
                id, id, "default", f"uid-{id}", space.path, space.fd, space.netlink_fd, port_mappings=ports
            )
        return space, attachment

    async def pod(self, id: str, *ports: HostPort, fds: bool = True) -> tuple[Namespace, str, NetworkResult]:
        """(its namespace, its first address, the result)."""
        space, attachment = self.attachment(id, *ports, fds=fds)
        result = await self.manager.setup(attachment)
        return space, result.addresses[0].split("/")[0], result

    def restart(self) -> None:
        """A new daemon over the same state."""
        self.manager.close()
        self.manager = NetworkManager(self.config)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    def close(self) -> None:
        self.manager.close()
        for space in self.namespaces:
            space.close()


@pytest.fixture
async def lab(host: None, tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def talk(listener: socket.socket, client: socket.socket) -> tuple[str, int]:
    """Sends a word through; returns whom the server sees."""
    with listener, client:
        server, peer = listener.accept()
        with server:
            server.settimeout(3)
            client.sendall(b"ping")
            assert server.recv(16) == b"ping"
            server.sendall(b"pong")
            assert client.recv(16) == b"pong"
    return peer[0], peer[1]


async def test_a_pod_gets_address_route_and_gateway(lab: Lab) -> None:
    space, address, result = await lab.pod("a")
    assert result.addresses == ("10.85.0.2/16",)
    assert result.gateway == GATEWAY
    assert result.routes == (("0.0.0.0/0", GATEWAY),)
    assert f"inet {address}/16 brd 10.85.255.255" in space.run("ip", "addr", "show", "eth0")
    assert f"default via {GATEWAY} dev eth0" in space.run("ip", "route")
    assert [entry["name"] for entry in result.raw["interfaces"]][::2] == ["sandbox0", "eth0"]
    for entry, text in zip(
        result.raw["interfaces"], (run("ip", "a"), run("ip", "a"), space.run("ip", "a")), strict=True
    ):
        assert entry["mac"] in text


async def test_host_and_pods_reach_each_other_at_once(lab: Lab) -> None:
    one, address, _ = await lab.pod("a")
    other, other_address, _ = await lab.pod("b", fds=False)
    listener = one.listen(80)
    assert talk(listener, socket.create_connection((address, 80), 1))[0] == GATEWAY
    assert talk(one.listen(80), other.connect(address, 80, 1))[0] == other_address
    with socket.create_server(("0.0.0.0", 7000)) as listener:
        listener.settimeout(3)
        assert talk(listener, one.connect(GATEWAY, 7000, 1))[0] == address


async def test_pods_reach_the_world_masqueraded_and_the_world_no_pod(lab: Lab) -> None:
    with world() as beyond:
        space, address, _ = await lab.pod("a")
        assert talk(beyond.listen(9000), space.connect("198.51.100.2", 9000))[0] == "198.51.100.1"
        with pytest.raises(OSError):
            beyond.connect(address, 80, 0.3)


async def test_host_ports_from_everywhere(lab: Lab) -> None:
    with world() as beyond:
        space, address, _ = await lab.pod("web", HostPort("", 8080, 80))
        other, other_address, _ = await lab.pod("b")
        assert talk(space.listen(80), beyond.connect("198.51.100.1", 8080))[0] == "198.51.100.2", "the source is kept"
        assert talk(space.listen(80), socket.create_connection(("198.51.100.1", 8080), 3))
        assert talk(space.listen(80), socket.create_connection(("127.0.0.1", 8080), 3))
        assert talk(space.listen(80), other.connect(GATEWAY, 8080))
        assert talk(space.listen(80), space.connect("198.51.100.1", 8080)), "a pod by its own host port"
        assert other_address != address

        await lab.manager.teardown("web")
        with pytest.raises(OSError):
            beyond.connect("198.51.100.1", 8080, 0.3)


async def test_host_port_on_one_address(lab: Lab) -> None:
    with world() as beyond:
        space, _, _ = await lab.pod("web", HostPort("127.0.0.1", 8080, 80), HostPort("0.0.0.0", 8081, 81))
        assert talk(space.listen(80), socket.create_connection(("127.0.0.1", 8080), 3))
        with pytest.raises(OSError):
            beyond.connect("198.51.100.1", 8080, 0.3)
        assert talk(space.listen(81), beyond.connect("198.51.100.1", 8081))


async def test_udp_host_port(lab: Lab) -> None:
    space, _, _ = await lab.pod("dns", HostPort("", 5353, 53, "UDP"))

    def bind() -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("0.0.0.0", 53))
        bound.settimeout(3)
        return bound

    with space.call(bind) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.connect(("127.0.0.1", 5353))
        client.send(b"query")
        data, peer = server.recvfrom(100)
        server.sendto(data + b"!", peer)
        assert client.recv(100) == b"query!"


async def test_udp_host_port_follows_to_the_next_pod(lab: Lab) -> None:
    """A client that goes on sending from the same port must not be led to the pod that is gone."""

    def bind() -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("0.0.0.0", 53))
        bound.settimeout(3)
        return bound

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        for id in ("first", "second"):
            space, _, _ = await lab.pod(id, HostPort("", 5353, 53, "UDP"))
            with space.call(bind) as server:
                client.sendto(id.encode(), ("127.0.0.1", 5353))
                assert server.recv(100) == id.encode()
            await lab.manager.teardown(id)
            with contextlib.suppress(OSError):
                client.sendto(b"nobody", ("127.0.0.1", 5353))


async def test_a_taken_host_port_is_a_sentence_and_leaves_nothing(lab: Lab) -> None:
    await lab.pod("a", HostPort("", 8080, 80))
    before = host_objects()
    _, attachment = lab.attachment("b", HostPort("127.0.0.1", 8080, 80))
    with pytest.raises(NetworkError, match=r"host port 127\.0\.0\.1:8080/tcp is taken by pod sandbox a"):
        await lab.manager.setup(attachment)
    assert host_objects() == before
    assert "cni/results/b@eth0.json" not in lab.files()


async def test_no_pod_reaches_the_hosts_loopback(lab: Lab) -> None:
    space, _, _ = await lab.pod("evil", HostPort("", 8080, 80))
    with socket.create_server(("127.0.0.1", 7000)) as listener:
        listener.settimeout(0.3)
        space.run("ip", "route", "add", "127.0.0.0/8", "via", GATEWAY, "table", "200")
        space.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        space.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        space.run("ip", "rule", "add", "pref", "1", "lookup", "200")
        space.run("ip", "rule", "del", "pref", "0")
        assert GATEWAY in space.run("ip", "route", "get", "127.0.0.1")
        with pytest.raises(OSError):
            space.connect("127.0.0.1", 7000, 0.3)
        with pytest.raises(OSError):
            listener.accept()


async def test_nothing_is_left(lab: Lab) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    before = host_objects()
    for i in range(5):
        await lab.pod(f"p{i}", HostPort("", 8000 + i, 80))
    during = host_objects()
    assert len(during["links"]) == len(before["links"]) + 6
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    assert await lab.manager.remove_unused() == [], "pods are attached"
    await asyncio.gather(*(lab.manager.teardown(f"p{i}") for i in range(5)))
    left = host_objects()
    assert [name for name in left["links"] if links.is_veth_name(name)] == []
    assert "elements" not in "".join(left["rules"])
    assert lab.files() == [f for f in lab.files() if f.startswith("cni/networks/")]
    assert await lab.manager.remove_unused() == ["sandbox0"]
    assert host_objects() == before
    assert lab.files() == []
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"
    assert await lab.manager.remove_unused() == ["sandbox0"], "idempotent"
    assert host_objects() == before


async def test_teardown_twice_unknown_and_without_netns(lab: Lab) -> None:
    space, _, _ = await lab.pod("a", HostPort("", 8080, 80))
    space.close()
    await lab.manager.teardown("a")
    await lab.manager.teardown("a")
    await lab.manager.teardown("never-was")
    _, attachment = lab.attachment("never-was-either")
    await lab.manager.teardown(attachment)
    assert [name for name in host_objects()["links"] if links.is_veth_name(name)] == []


async def test_addresses_are_not_reused_at_once_and_exhaustion_leaves_nothing(host: None, tmp_path: Path) -> None:
    lab = Lab(tmp_path, subnet="10.99.0.0/29", bridge="br-small")
    try:
        addresses = [(await lab.pod(f"p{i}"))[1] for i in range(5)]
        assert len(set(addresses)) == 5
        before = host_objects()
        with pytest.raises(NetworkError, match=r"no address is free in 10\.99\.0\.0/29: all 5 are taken"):
            await lab.pod("too-many")
        assert host_objects() == before
        await lab.manager.teardown("p1")
        await lab.manager.teardown("p3")
        assert (await lab.pod("next"))[1] == addresses[1]
    finally:
        lab.close()


async def test_an_address_that_moves_to_another_pod_works_at_once(host: None, tmp_path: Path) -> None:
    lab = Lab(tmp_path, subnet="10.99.0.0/30", bridge="br-tiny")
    try:
        for id in ("a", "b", "c"):
            space, address, _ = await lab.pod(id)
            start = time.monotonic()
            talk(space.listen(80), socket.create_connection((address, 80), 3))
            assert time.monotonic() - start < 0.5, "no stale neighbour entry"
            await lab.manager.teardown(id)
    finally:
        lab.close()


async def test_the_first_packet_is_not_lost(lab: Lab) -> None:
    """On a busy machine too: ADD ends when the links can send, not when they are configured."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for i in range(40):
            space, attachment = lab.attachment(f"p{i}")
            listener = space.listen(80)
            result = await lab.manager.setup(attachment)
            start = time.monotonic()
            talk(listener, socket.create_connection((result.addresses[0].split("/")[0], 80), 3))
            assert time.monotonic() - start < 0.8, "a lost packet is sent again after a second"
            await lab.manager.teardown(attachment)
            space.close()
    finally:
        for process in busy:
            process.kill()
            process.wait()


async def test_check_names_the_difference(lab: Lab) -> None:
    space, attachment = lab.attachment("a")
    await lab.manager.setup(attachment)
    await lab.manager.check(attachment)
    space.run("ip", "addr", "del", "10.85.0.2/16", "dev", "eth0")
    with pytest.raises(NetworkError, match=r"address 10\.85\.0\.2/16 is missing on eth0"):
        await lab.manager.check(attachment)
    run("ip", "link", "set", links.veth_name("sandbox0", "a", "eth0"), "nomaster")
    with pytest.raises(NetworkError, match="not an active port of bridge sandbox0"):
        await lab.manager.check(attachment)


async def test_a_flushed_rule_set_heals_with_the_next_pod(lab: Lab) -> None:
    space, _, _ = await lab.pod("a", HostPort("", 8080, 80))
    run("nft", "flush", "ruleset")
    await lab.pod("b")
    assert talk(space.listen(80), socket.create_connection(("127.0.0.1", 8080), 3))
    run("nft", "flush", "ruleset")
    await lab.manager.teardown("a")
    await lab.manager.teardown("b")


async def test_a_deleted_bridge_is_made_again(lab: Lab) -> None:
    await lab.pod("a")
    run("ip", "link", "del", "sandbox0")
    space, address, _ = await lab.pod("b")
    assert talk(space.listen(80), socket.create_connection((address, 80), 3))[0] == GATEWAY


async def test_leftovers_of_a_crash(lab: Lab) -> None:
    """A daemon killed after the link was made: no result in the cache, an empty cache file, a link of nobody."""
    await lab.pod("live", HostPort("", 8080, 80))
    await lab.pod("dead", HostPort("", 8081, 80))
    await lab.pod("corrupt")
    await lab.pod("forgotten", HostPort("", 8082, 80))
    results = lab.root / "cni" / "results"
    (results / "corrupt@eth0.json").write_text("")
    (results / "forgotten@eth0.json").unlink()
    (results / "x@eth0.tmp").write_text("half")
    run(
        "ip",
        "link",
        "add",
        links.veth_name("sandbox0", "ghost", "eth0"),
        "master",
        "sandbox0",
        "type",
        "veth",
        "peer",
        "name",
        "x",
    )
    lab.restart()
    assert sorted(await lab.manager.reconcile({"live"})) == ["corrupt", "dead"]
    left = host_objects()
    assert [n for n in left["links"] if links.is_veth_name(n)] == [links.veth_name("sandbox0", "live", "eth0")]
    text = "".join(left["rules"])
    assert "8080" in text
    assert "8081" not in text
    assert "8082" not in text
    assert [path.name for path in results.iterdir()] == ["live@eth0.json"]
    space = lab.namespaces[0]
    assert talk(space.listen(80), socket.create_connection(("127.0.0.1", 8080), 3)), "the live one was not touched"
    assert await lab.manager.reconcile({"live"}) == []


async def test_a_broken_configuration_does_not_hold_up_reconciliation(lab: Lab) -> None:
    await lab.pod("dead")
    (lab.root / "net.d").mkdir()
    (lab.root / "net.d" / "10.conflist").write_text("{")
    lab.restart()
    assert await lab.manager.reconcile(set()) == ["dead"]
    with pytest.raises(NetworkError, match="not JSON"):
        lab.manager.status()


async def test_a_link_left_by_a_crash_does_not_stop_the_same_pod(lab: Lab) -> None:
    await lab.pod("first")
    run("ip", "link", "add", links.veth_name("sandbox0", "again", "eth0"), "type", "veth", "peer", "name", "y")
    space, address, _ = await lab.pod("again")
    assert talk(space.listen(80), socket.create_connection((address, 80), 3))


async def test_restarted_daemon_takes_down_what_the_last_one_made(lab: Lab) -> None:
    await lab.pod("a", HostPort("", 8080, 80))
    lab.restart()
    await lab.manager.teardown("a")
    assert await lab.manager.remove_unused() == ["sandbox0"]
    assert lab.files() == []


async def test_failures_inside_the_pod_are_undone(lab: Lab) -> None:
    await lab.pod("first")
    before = host_objects()
    space, attachment = lab.attachment("a")
    space.run("ip", "link", "add", "eth0", "type", "bridge")
    with pytest.raises(NetworkError, match=r"could not create veth pair \w+ with eth0 in the pod: EEXIST"):
        await lab.manager.setup(attachment)
    space.run("ip", "link", "del", "eth0")
    space.run("ip", "link", "add", "dummy0", "type", "bridge")
    assert host_objects() == before
    gone = Attachment("b", "b", "default", "u", str(lab.root / "none"))
    with pytest.raises(NetworkError, match="none cannot be entered: no such file"):
        await lab.manager.setup(gone)
    assert host_objects() == before
    await lab.manager.setup(attachment)


async def test_subnet_in_use_on_the_host_is_named(lab: Lab) -> None:
    run("ip", "link", "add", "lan0", "type", "bridge")
    run("ip", "addr", "add", "10.85.3.1/24", "dev", "lan0")
    run("ip", "link", "set", "lan0", "up")
    with pytest.raises(
        NetworkError, match=r"subnet 10.85.0.0/16 .* overlaps the host's route to 10.85.3.0/24 over lan0"
    ):
        await lab.pod("a")
    with pytest.raises(NetworkError) as caught:
        await lab.manager.plugin_status()
    assert caught.value.code == 50
    run("ip", "link", "del", "lan0")
    await lab.manager.plugin_status()


async def test_two_networks_side_by_side(host: None, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = Lab(tmp_path / "one")
    two = Lab(tmp_path / "two", bridge="sandbox1", subnet="10.86.0.0/16")
    thief = Lab(tmp_path / "two", subnet="10.87.0.0/16")
    try:
        first, address, _ = await one.pod("a")
        second, _, _ = await two.pod("a", HostPort("", 8080, 80))
        talk(first.listen(80), second.connect(address, 80))
        with pytest.raises(NetworkError, match="bridge sandbox0 belongs to another network"):
            await thief.pod("b")
        await one.manager.teardown("a")
        assert await one.manager.remove_unused() == ["sandbox0"]
        assert talk(second.listen(80), socket.create_connection(("127.0.0.1", 8080), 3)), "not touched by the other"
    finally:
        for lab in (one, two, thief):
            lab.close()


async def test_dual_stack(host: None, tmp_path: Path) -> None:
    lab = Lab(tmp_path, subnet6="fd85::/64")
    try:
        space, _, result = await lab.pod("a", HostPort("", 8080, 80))
        assert result.addresses == ("10.85.0.2/16", "fd85::2/64")
        assert talk(space.listen(80, "::"), socket.create_connection(("fd85::2", 80), 3))[0] == "fd85::1"
        assert talk(space.listen(80, "::"), socket.create_connection(("fd85::1", 8080), 3))
        other, _, _ = await lab.pod("b")
        assert talk(space.listen(80, "::"), other.connect("fd85::2", 80))[0] == "fd85::3"
        await lab.manager.teardown("a")
        await lab.manager.teardown("b")
        assert await lab.manager.remove_unused() == ["sandbox0"]
    finally:
        lab.close()


async def test_many_at_once(lab: Lab) -> None:
    made = [lab.attachment(f"p{i}", HostPort("", 9000 + i, 80)) for i in range(20)]
    results = await asyncio.gather(*(lab.manager.setup(attachment) for _, attachment in made))
    assert len({result.addresses for result in results}) == 20
    await asyncio.gather(*(lab.manager.teardown(attachment) for _, attachment in made))
    assert [name for name in host_objects()["links"] if links.is_veth_name(name)] == []
    assert await lab.manager.remove_unused() == ["sandbox0"]


async def test_caller_that_gives_up_leaves_nothing(lab: Lab) -> None:
    await lab.pod("first")
    before = host_objects()
    for delay in (0, 0.0005, 0.001, 0.002, 0.003):
        _, attachment = lab.attachment(f"c{delay}")
        task = asyncio.create_task(lab.manager.setup(attachment))
        await asyncio.sleep(delay)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
            await lab.manager.teardown(attachment)
        assert host_objects() == before
    assert lab.files() == [f for f in lab.files() if "results" not in f or "first" in f]


async def test_mtu_and_hairpin(host: None, tmp_path: Path) -> None:
    (tmp_path / "net.d").mkdir()
    (tmp_path / "net.d" / "10.conflist").write_text(
        '{"cniVersion": "1.1.0", "name": "mine", "plugins": [{"type": "sandbox-network", "bridge": "br9", "mtu": 1300,'
        f' "hairpinMode": true, "subnet": "10.90.0.0/24", "dataDir": "{tmp_path}/data", "ipMasq": false,'
        ' "routes": [{"dst": "192.0.2.0/24"}], "dns": {"nameservers": ["10.90.0.1"]}}]}'
    )
    lab = Lab(tmp_path)
    try:
        space, _, result = await lab.pod("a")
        assert "mtu 1300" in space.run("ip", "link", "show", "eth0")
        assert "mtu 1300" in run("ip", "link", "show", "br9")
        assert "192.0.2.0/24 via 10.90.0.1" in space.run("ip", "route")
        assert "hairpin on" in run("ip", "-d", "link", "show", links.veth_name("br9", "a", "eth0"))
        assert result.dns == {"nameservers": ["10.90.0.1"]}
        assert "10.90.0.0/24 ip daddr" not in run("nft", "list", "ruleset")
        await lab.manager.teardown("a")
        assert await lab.manager.remove_unused() == ["br9", "sandbox0"]
    finally:
        lab.close()


async def test_setup_takes_a_few_milliseconds(lab: Lab) -> None:
    """The budget is 6 ms in the median on an idle machine; the bound here is for a busy one."""
    adds, removals = [], []
    for i in range(20):
        _, attachment = lab.attachment(f"p{i}", HostPort("", 8000 + i, 80))
        start = time.perf_counter()
        await lab.manager.setup(attachment)
        adds.append(time.perf_counter() - start)
        start = time.perf_counter()
        await lab.manager.teardown(attachment)
        removals.append(time.perf_counter() - start)
    assert statistics.median(adds) < 0.02, f"ADD {statistics.median(adds) * 1000:.1f} ms"
    assert statistics.median(removals) < 0.02, f"DEL {statistics.median(removals) * 1000:.1f} ms"
