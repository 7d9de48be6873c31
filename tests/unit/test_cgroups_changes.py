"""From one set of limits to another: exactly what differs, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cgroups.changes import NOTHING, lowers_memory, merged, transition, wider
from sandbox.cgroups.resources import CgroupResources, HugepageLimit, IoLimit

FULL = CgroupResources(
    cpu_shares=512,
    cpu_quota_us=50_000,
    cpu_period_us=100_000,
    cpu_burst_us=10_000,
    memory_limit_bytes=64 << 20,
    memory_swap_limit_bytes=64 << 20,
    pids_limit=10,
    io_limits=(IoLimit(8, 0, read_bytes_per_second=100, write_bytes_per_second=200),),
)


def test_no_difference_writes_nothing() -> None:
    assert transition(FULL, FULL) == NOTHING


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"cpu_shares": 700}, CgroupResources(cpu_shares=700)),
        (
            {"cpu_quota_us": 20_000},
            CgroupResources(cpu_quota_us=20_000, cpu_period_us=100_000, cpu_burst_us=10_000),
        ),
        ({"cpu_burst_us": None}, CgroupResources(cpu_quota_us=50_000, cpu_period_us=100_000, cpu_burst_us=0)),
        (
            {"memory_limit_bytes": 1 << 20},
            CgroupResources(memory_limit_bytes=1 << 20, memory_swap_limit_bytes=64 << 20),
        ),
        ({"pids_limit": None}, CgroupResources(pids_limit=-1)),
        ({"memory_high_bytes": 5}, CgroupResources(memory_high_bytes=5)),
        ({"hugepage_limits": (HugepageLimit("2MB", 4),)}, CgroupResources(hugepage_limits=(HugepageLimit("2MB", 4),))),
    ],
)
def test_only_what_differs_with_what_depends_on_it(changed: dict[str, object], expected: CgroupResources) -> None:
    assert transition(FULL, replace(FULL, **changed)) == expected  # type: ignore[arg-type]


def test_io_limits_of_each_disk() -> None:
    new = replace(
        FULL, io_limits=(IoLimit(8, 0, write_bytes_per_second=300), IoLimit(8, 16, read_operations_per_second=5))
    )
    assert transition(FULL, new).io_limits == (
        IoLimit(8, 0, read_bytes_per_second=-1, write_bytes_per_second=300),
        IoLimit(8, 16, read_operations_per_second=5),
    )
    assert transition(new, FULL).io_limits == (
        IoLimit(8, 0, read_bytes_per_second=100, write_bytes_per_second=200),
        IoLimit(8, 16, read_operations_per_second=-1),
    )


def test_merged_keeps_what_is_not_given() -> None:
    given_ = CgroupResources(cpu_quota_us=10_000, io_limits=(IoLimit(8, 0, read_bytes_per_second=5),))
    expected = replace(
        FULL, cpu_quota_us=10_000, io_limits=(IoLimit(8, 0, read_bytes_per_second=5, write_bytes_per_second=200),)
    )
    assert merged(FULL, given_) == expected
    assert merged(FULL, NOTHING) == FULL


@pytest.mark.parametrize(
    ("old", "new", "quota", "memory"),
    [
        ((50_000, 10), (20_000, 20), 50_000, 20),
        ((20_000, 20), (50_000, 10), 50_000, 20),
        ((None, None), (50_000, 10), None, None),
        ((50_000, 10), (None, None), None, None),
        ((-1, -1), (5_000, 1), -1, -1),
    ],
)
def test_wider_forbids_neither(
    old: tuple[int, int], new: tuple[int, int], quota: int | None, memory: int | None
) -> None:
    between = wider(
        CgroupResources(cpu_quota_us=old[0], memory_limit_bytes=old[1]),
        CgroupResources(cpu_quota_us=new[0], memory_limit_bytes=new[1]),
    )
    assert (between.cpu_quota_us, between.memory_limit_bytes) == (quota, memory)


def test_lowers_memory() -> None:
    some, more, free = (CgroupResources(memory_limit_bytes=n) for n in (10, 20, -1))
    assert lowers_memory(more, some) and lowers_memory(free, more) and lowers_memory(NOTHING, more)
    assert not lowers_memory(some, more) and not lowers_memory(some, free) and not lowers_memory(some, some)


NUMBER = st.none() | st.integers(1, 5)
RESOURCES = st.builds(
    CgroupResources,
    cpu_shares=st.integers(2, 5),
    cpu_quota_us=NUMBER,
    cpu_burst_us=NUMBER,
    memory_limit_bytes=NUMBER,
    memory_swap_limit_bytes=NUMBER,
    memory_low_bytes=NUMBER,
    pids_limit=NUMBER,
)


class Kernel:
    """Files as `transition` writes them."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def write(self, change: CgroupResources) -> None:
        for name, value in vars(change).items():
            if value is not None and value != ():
                self.values[name] = value


@given(RESOURCES, RESOURCES, st.integers(0, 9))
def test_the_way_back_ends_where_it_began(old: CgroupResources, new: CgroupResources, kept: int) -> None:
    """Also from half way: of the new values only the first few were written."""
    kernel = Kernel()
    kernel.write(transition(NOTHING, old))
    kernel.write(transition(new, old))
    before = dict(kernel.values)
    half = {name: value for name, value in list(vars(transition(old, new)).items())[:kept]}
    kernel.write(CgroupResources(**half))
    kernel.write(transition(new, old))
    assert kernel.values == before
