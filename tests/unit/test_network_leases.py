"""Addresses and host ports: round robin, never given twice, between threads and processes too."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import NetworkError
from sandbox.network.embedded.leases import Leases, Owner, Port
from sandbox.network.embedded.ranges import parse_ranges

SMALL = parse_ranges({"subnet": "10.1.0.0/29"})  # gateway .1, pods .2 to .6


def take(leases: Leases, name: str, sets: Any = SMALL, wanted: list[str] | None = None) -> list[str]:
    with leases.transaction():
        found = leases.reserve(Owner(name, "eth0"), sets, [ipaddress.ip_address(w) for w in wanted or []])
    return [str(interface) for interface, _ in found]


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    return Leases(tmp_path / "n.db")


def test_round_robin_does_not_reuse_at_once(leases: Leases) -> None:
    assert take(leases, "a") == ["10.1.0.2/29"]
    leases.release(Owner("a", "eth0"))
    assert take(leases, "b") == ["10.1.0.3/29"]


def test_exhaustion_is_a_sentence_and_takes_nothing(leases: Leases) -> None:
    given_out = [take(leases, f"p{i}")[0] for i in range(5)]
    assert len(set(given_out)) == 5
    with pytest.raises(NetworkError, match=r"no address is free in 10\.1\.0\.0/29: all 5 are taken") as caught:
        take(leases, "sixth")
    assert caught.value.code == 11
    leases.release(Owner("p3", "eth0"))
    assert take(leases, "sixth") == [given_out[3]]


def test_a_half_successful_dual_stack_reservation_is_undone(leases: Leases) -> None:
    sets = parse_ranges({"ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "10.1.0.0/30"}]]})
    assert take(leases, "a", sets) == ["10.2.0.2/24", "10.1.0.2/30"]
    with pytest.raises(NetworkError, match="no address is free"):
        take(leases, "b", sets)
    assert leases.held(Owner("b", "eth0")) == []


def test_one_attachment_gets_one_reservation(leases: Leases) -> None:
    take(leases, "a")
    with pytest.raises(NetworkError, match=r"has address 10\.1\.0\.2 on eth0 already"):
        take(leases, "a")


def test_wanted_addresses(leases: Leases) -> None:
    assert take(leases, "a", wanted=["10.1.0.5"]) == ["10.1.0.5/29"]
    with pytest.raises(NetworkError, match=r"10\.1\.0\.5 is taken by container a"):
        take(leases, "b", wanted=["10.1.0.5"])
    with pytest.raises(NetworkError, match=r"10\.9\.0\.1 is not within 10\.1\.0\.0/29"):
        take(leases, "b", wanted=["10.9.0.1"])
    with pytest.raises(NetworkError, match=r"10\.1\.0\.1 is not within"):
        take(leases, "b", wanted=["10.1.0.1"])


def test_reservations_survive_reopening(tmp_path: Path) -> None:
    first = Leases(tmp_path / "n.db")
    take(first, "a")
    first.close()
    second = Leases(tmp_path / "n.db")
    assert second.owners() == {Owner("a", "eth0")}
    assert take(second, "b") == ["10.1.0.3/29"]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "n.db").write_text("garbage " * 500)
    with pytest.raises(NetworkError, match=r"n\.db cannot be read"):
        Leases(tmp_path / "n.db")


def port(address: str = "", number: int = 80, protocol: str = "tcp") -> Port:
    return Port(4, address, protocol, number, "10.1.0.2", 8080, "a")


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (port(), port(), True),
        (port(), port("192.0.2.1"), True),
        (port("192.0.2.1"), port(), True),
        (port("192.0.2.1"), port("192.0.2.2"), False),
        (port("192.0.2.1"), port("192.0.2.1"), True),
        (port(), port(number=81), False),
        (port(), port(protocol="udp"), False),
    ],
)
def test_host_ports_clash(leases: Leases, one: Port, other: Port, clash: bool) -> None:
    leases.add_port(Owner("a", "eth0"), one)
    if not clash:
        leases.add_port(Owner("b", "eth0"), other)
        return
    with pytest.raises(NetworkError, match="is taken by pod sandbox a"):
        leases.add_port(Owner("b", "eth0"), other)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=40))
def test_never_given_twice(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]) -> None:
    leases = Leases(tmp_path_factory.mktemp("l") / "n.db")
    model: dict[int, str] = {}
    for is_add, pod in steps:
        if is_add and pod not in model and len(model) < 5:
            (address,) = take(leases, str(pod))
            assert address not in model.values()
            model[pod] = address
        elif not is_add:
            leases.release(Owner(str(pod), "eth0"))
            model.pop(pod, None)
    leases.close()


_TAKER = """
import sys
from pathlib import Path
from sandbox.network.embedded.leases import Leases, Owner
from sandbox.network.embedded.ranges import parse_ranges
leases = Leases(Path(sys.argv[1]))
sets = parse_ranges({"subnet": "10.3.0.0/24"})
for i in range(20):
    with leases.transaction():
        print(leases.reserve(Owner(f"{sys.argv[2]}-{i}", "eth0"), sets)[0][0])
"""


def test_processes_do_not_get_the_same_address(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _TAKER, str(tmp_path / "n.db")]
    takers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "abcd"]
    lines = [line for taker in takers for line in taker.communicate(timeout=60)[0].split()]
    assert [taker.returncode for taker in takers] == [0] * 4
    assert len(lines) == len(set(lines)) == 80


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "neither subnet nor ranges"),
        ({"subnet": "10.0.0.1/24"}, "is none"),
        ({"subnet": "10.0.0.0/31"}, "too small"),
        ({"subnet": "10.0.0.0/24", "gateway": "10.1.0.1"}, "gateway 10.1.0.1 is not a usable address"),
        ({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.3"}, "comes after"),
        ({"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"}, "not a usable address"),
        ({"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.255"}, "not a usable address"),
        ({"ranges": []}, "list of non-empty lists"),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]}, "mixes IPv4 and IPv6"),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/16"}]]}, "overlap"),
    ],
)
def test_bad_ranges(config: dict[str, Any], words: str) -> None:
    with pytest.raises(NetworkError, match=words) as caught:
        parse_ranges(config)
    assert caught.value.code == 7


def test_large_and_dual_stack_ranges() -> None:
    four, six = parse_ranges({"ranges": [[{"subnet": "10.0.0.0/8"}], [{"subnet": "fd00:1::/64"}]]})
    assert four[0].size == 2**24 - 3
    assert str(next(six[0].after(None))) == "fd00:1::2"
