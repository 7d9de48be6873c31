import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.cgroups import annotations as a
from sandbox.cgroups.resources import CgroupResources, IoLimit
from sandbox.errors import InvalidInput

MI = 1 << 20
LIMITED = CgroupResources(cpu_quota_us=50000, cpu_period_us=100000, memory_limit_bytes=64 * MI)


def a_disk() -> tuple[int, int]:
    for device in sorted(Path("/sys/dev/block").iterdir()):
        if not (device / "partition").exists():
            major, _, minor = device.name.partition(":")
            return int(major), int(minor)
    pytest.skip("no block device in /sys/dev/block")


def node_of(major: int, minor: int) -> str | None:
    for path in Path("/dev").iterdir():
        if path.is_block_device() and path.stat().st_rdev == os.makedev(major, minor):
            return str(path)
    return None


def test_io_limits() -> None:
    major, minor = a_disk()
    got = a.annotated(CgroupResources(), {"sandbox/io": f" {major}:{minor} rbps=1Mi wbps=2M  riops=max ; "}, "web")
    assert got.io_limits == (IoLimit(major, minor, MI, 2_000_000, -1, None),)


def test_a_device_by_path_is_resolved(tmp_path: Path) -> None:
    major, minor = a_disk()
    node = node_of(major, minor)
    if node is None:
        pytest.skip("the disk has no node in /dev")
    assert a.resolve_device(node) == (major, minor)


def test_a_partition_becomes_its_disk() -> None:
    partitions = [p for p in Path("/sys/dev/block").iterdir() if (p / "partition").exists()]
    if not partitions:
        pytest.skip("no partition on this host")
    major, _, minor = partitions[0].name.partition(":")
    whole = a.whole_disk(int(major), int(minor))
    assert whole != (int(major), int(minor))
    assert not Path(f"/sys/dev/block/{whole[0]}:{whole[1]}/partition").exists()


def test_the_named_container_goes_first() -> None:
    notes = {"sandbox/pids": "10", "sandbox/pids.web": "20"}
    assert a.annotated(CgroupResources(), notes, "web").pids_limit == 20
    assert a.annotated(CgroupResources(), notes, "db").pids_limit == 10


def test_every_limit() -> None:
    notes = {
        "sandbox/cpu-burst": "200m",
        "sandbox/cpuset-cpus": "0",
        "sandbox/cpuset-mems": "0",
        "sandbox/io-weight": "500",
        "sandbox/memory-high": "48Mi",
        "sandbox/memory-low": "16Mi",
        "sandbox/pids": "max",
        "sandbox/swap": "8Mi",
        "other/swap": "nonsense",
        "sandbox/anything": "else",
    }
    assert a.annotated(LIMITED, notes, "web") == replace(
        LIMITED,
        cpu_burst_us=20000,
        cpuset_cpus="0",
        cpuset_mems="0",
        io_weight=500,
        memory_high_bytes=48 * MI,
        memory_low_bytes=16 * MI,
        pids_limit=-1,
        memory_swap_limit_bytes=72 * MI,
    )
    assert a.annotated(LIMITED, {"sandbox/swap": "max"}, "web").memory_swap_limit_bytes == -1


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("io", "", "no device"),
        ("io", "/dev/null rbps=1", "no block device"),
        ("io", "/dev/no-such rbps=1", "no such file"),
        ("io", "/etc/passwd rbps=1", "neither"),
        ("io", "999:999 rbps=1", "no block device of this host"),
        ("io", "DISK", "has no limit"),
        ("io", "DISK speed=1", "is not one of"),
        ("io", "DISK rbps", "is not one of"),
        ("io", "DISK rbps=1 rbps=2", "each once"),
        ("io", "DISK rbps=0", "would stop"),
        ("io", "DISK rbps=fast", "quantity"),
        ("io", "DISK rbps=1; DISK wbps=1", "same disk"),
        ("io-weight", "0", "between 1 and 10000"),
        ("io-weight", "1.5", "whole number"),
        ("cpu-burst", "600m", "more than the cpu limit"),
        ("cpu-burst", "-1", "negative"),
        ("memory-high", "-1", "whole number"),
        ("memory-low", "lots", "quantity"),
        ("pids", "0", "between 1"),
        ("cpuset-cpus", "0-", "a list such as"),
        ("cpuset-cpus", "70000", "a list such as"),
        ("cpuset-cpus", "60000", "online"),
    ],
)
def test_a_bad_value_names_the_annotation(name: str, value: str, complaint: str) -> None:
    disk = "{}:{}".format(*a_disk())
    with pytest.raises(InvalidInput, match=complaint) as caught:
        a.annotated(LIMITED, {f"sandbox/{name}.web": value.replace("DISK", disk)}, "web")
    assert str(caught.value).startswith(f"annotation sandbox/{name}.web: ")


def test_burst_and_swap_need_their_limit() -> None:
    for name in ("cpu-burst", "swap"):
        with pytest.raises(InvalidInput, match="limit"):
            a.annotated(CgroupResources(), {f"sandbox/{name}": "1"}, "web")


def test_a_container_that_is_not_there() -> None:
    a.check_keys({"sandbox/io.web": "", "sandbox/pids": "", "o/io.x": ""}, ["web"])
    with pytest.raises(InvalidInput, match=r"sandbox/io\.wbe: the pod has no container 'wbe', did you mean 'web'\?"):
        a.check_keys({"sandbox/io.wbe": ""}, ["web"])


def test_a_limit_that_there_is_not() -> None:
    with pytest.raises(InvalidInput, match=r"sandbox/pidz\.web: there is no limit 'pidz', did you mean 'pids'\?") as e:
        a.check_keys({"sandbox/pidz.web": "5"}, ["web"])
    assert e.value.subject == "sandbox/pidz.web"
    with pytest.raises(InvalidInput, match="known are cpu-burst, cpuset-cpus"):
        a.check_keys({"sandbox/unheard": "5"}, ["web"])


def test_the_annotation_that_names_the_container_goes_first() -> None:
    both = {"sandbox/pids": "5", "sandbox/pids.web": "6", "sandbox/pids.db": "7", "sandbox/io-weight": "9"}
    assert a.keys_for(both, "web") == ["sandbox/io-weight", "sandbox/pids.web"]
    assert a.annotated(CgroupResources(), both, "web").pids_limit == 6
