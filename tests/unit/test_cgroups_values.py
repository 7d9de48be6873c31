from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cgroups import tree, values
from sandbox.cgroups.detect import parse_mountinfo
from sandbox.cgroups.files import LimitFile, flat_keyed
from sandbox.cgroups.resources import CgroupResources, DeviceRule, HugepageLimit, IoLimit
from sandbox.errors import InvalidInput

ROOT = Path("/sys/fs/cgroup")


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (1, 1), (300000, 10000)])
def test_cpu_weight_meets_the_defaults_of_both_versions(shares: int, weight: int) -> None:
    assert values.cpu_weight(shares) == weight


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000)])
def test_the_old_linear_weight(shares: int, weight: int) -> None:
    assert values.cpu_weight_linear(shares) == weight


@given(st.integers(2, 262143))
def test_cpu_weight_is_monotonic_and_in_range(shares: int) -> None:
    assert 1 <= values.cpu_weight(shares) <= values.cpu_weight(shares + 1) <= 10000


def test_io_weight() -> None:
    assert [values.blkio_weight(w) for w in (1, 100, 10000)] == [10, 19, 1000]


@given(st.sets(st.integers(0, 300), min_size=1))
def test_list_format(numbers: set[int]) -> None:
    assert values.parse_list(",".join(map(str, numbers))) == numbers
    low, high = min(numbers), max(numbers)
    assert values.parse_list(f"{low}-{high}") == set(range(low, high + 1))


@pytest.mark.parametrize(
    "resources",
    [
        CgroupResources(cpu_shares=1),
        CgroupResources(cpu_shares=262145),
        CgroupResources(cpu_period_us=999),
        CgroupResources(cpu_quota_us=999),
        CgroupResources(cpu_quota_us=-2),
        CgroupResources(cpu_burst_us=1),
        CgroupResources(cpu_burst_us=2000, cpu_quota_us=1000),
        CgroupResources(memory_limit_bytes=-2),
        CgroupResources(memory_limit_bytes=2, memory_swap_limit_bytes=1),
        CgroupResources(memory_limit_bytes=-1, memory_swap_limit_bytes=1),
        CgroupResources(pids_limit=0),
        CgroupResources(io_weight=10001),
        CgroupResources(io_limits=(IoLimit(4095, 12345, 1),)),
        CgroupResources(hugepage_limits=(HugepageLimit("3MB", 0),)),
        CgroupResources(cpuset_cpus=""),
        CgroupResources(device_rules=(DeviceRule(True, "d"),)),
        CgroupResources(device_rules=(DeviceRule(True, "c", 1, 3, "x"),)),
        CgroupResources(device_rules=(DeviceRule(True, "c", 4096, 3, "r"),)),
        CgroupResources(cpuset_mems="9999"),
    ],
)
def test_values_that_no_kernel_takes(resources: CgroupResources) -> None:
    with pytest.raises(InvalidInput):
        values.check_values(resources)


def test_huge_page_names() -> None:
    assert [values.size_name(s) for s in (64 << 10, 2 << 20, 512 << 20, 1 << 30)] == ["64KB", "2MB", "512MB", "1GB"]


def test_limit_file_spells_unlimited() -> None:
    file = LimitFile("x")
    assert [file.sanitize_set(v) for v in (-1, None, 0, 5)] == ["max", "max", "0", "5"]
    assert (file.sanitize_get("max"), file.sanitize_get("7")) == (None, 7)


def test_flat_keyed_skips_what_is_not_a_number() -> None:
    assert flat_keyed("low 0\noom_kill 3\nname text\n\nalone\nneg -4") == {"low": 0, "oom_kill": 3, "neg": -4}


@pytest.mark.parametrize("path", ["", "/", "..", "a/../b", "a//b", "./a", "a\0b", "/".join("a" * 40)])
def test_paths_that_could_leave_the_hierarchy(path: str) -> None:
    with pytest.raises(InvalidInput):
        tree.clean(path)


def test_a_leading_slash_is_the_mount() -> None:
    assert tree.clean("/a/b") == "a/b"


SYSTEMD_HYBRID = """\
25 24 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw,nsdelegate
27 25 0:24 / /sys/fs/cgroup/systemd rw,nosuid shared:6 - cgroup cgroup rw,xattr,name=systemd
28 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:7 - cgroup cgroup rw,cpu,cpuacct
29 25 0:26 / /sys/fs/cgroup/net_cls,net_prio rw shared:8 - cgroup cgroup rw,net_cls,net_prio
30 25 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory
31 25 0:28 / /mnt/elsewhere/pids rw - cgroup cgroup rw,pids
32 25 0:29 / /sys/fs/cgroup/odd\\040name rw - cgroup cgroup rw,blkio
"""


def test_controllers_mounted_together_and_apart() -> None:
    found = parse_mountinfo(SYSTEMD_HYBRID, ROOT)
    both = "/sys/fs/cgroup/cpu,cpuacct"
    assert found.v1 == {
        "cpu": both,
        "cpuacct": both,
        "memory": "/sys/fs/cgroup/memory",
        "blkio": "/sys/fs/cgroup/odd name",
    }
    assert found.v2 == "/sys/fs/cgroup/unified"


def test_a_unified_host() -> None:
    found = parse_mountinfo("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n", ROOT)
    assert (found.v1, found.v2) == ({}, "/sys/fs/cgroup")
    assert parse_mountinfo("junk\n\n1 2 3\n1 2 0:1 / /x rw - cgroup2\n", ROOT).v2 == ""
