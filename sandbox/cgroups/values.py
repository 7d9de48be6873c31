"""Checks and conversions of values, the same for v1 and v2."""

from __future__ import annotations

import math
import os
from pathlib import Path

from sandbox.cgroups.resources import CgroupResources, IoLimit
from sandbox.errors import InvalidInput

MIN_SHARES, MAX_SHARES = 2, 262144
MIN_PERIOD_US, MAX_PERIOD_US = 1_000, 1_000_000
MIN_QUOTA_US = 1_000


def _invalid(what: str, value: object, wanted: str) -> InvalidInput:
    return InvalidInput(f"{what} {value!r} is not {wanted}", operation="check limits", subject=what)


def _within(what: str, value: int | None, low: int, high: int, *, unlimited: bool = False) -> None:
    if value is None or (unlimited and value == -1) or low <= value <= high:
        return
    raise _invalid(what, value, f"between {low} and {high}" + (" or -1" if unlimited else ""))


def check_values(resources: CgroupResources) -> None:
    """What is wrong on every host. Raises InvalidInput."""
    r, most = resources, 2**63 - 1
    _within("cpu shares", r.cpu_shares, MIN_SHARES, MAX_SHARES)
    _within("cpu period (microseconds)", r.cpu_period_us, MIN_PERIOD_US, MAX_PERIOD_US)
    _within("cpu quota (microseconds)", r.cpu_quota_us, MIN_QUOTA_US, most, unlimited=True)
    _within("cpu burst (microseconds)", r.cpu_burst_us, 0, most)
    if r.cpu_burst_us:
        if r.cpu_quota_us is None or r.cpu_quota_us < 0:
            raise _invalid("cpu burst (microseconds)", r.cpu_burst_us, "usable without a cpu limit")
        _within("cpu burst (microseconds)", r.cpu_burst_us, 0, r.cpu_quota_us)
    for what, value in (
        ("memory limit", r.memory_limit_bytes),
        ("memory high", r.memory_high_bytes),
        ("memory low", r.memory_low_bytes),
        ("memory and swap limit", r.memory_swap_limit_bytes),
    ):
        _within(what, value, 0, most, unlimited=True)
    limit, swap = r.memory_limit_bytes, r.memory_swap_limit_bytes
    if swap is not None and swap != -1 and limit is not None and (limit == -1 or swap < limit):
        raise _invalid("memory and swap limit", swap, f"at least the memory limit {limit}")
    _within("pids limit", r.pids_limit, 1, 4 << 20, unlimited=True)
    _within("io weight", r.io_weight, 1, 10000)
    for hugepages in r.hugepage_limits:
        _within(f"hugepages {hugepages.page_size} limit", hugepages.limit_bytes, 0, most, unlimited=True)
        if f"{hugepages.page_size}" not in hugepage_sizes():
            raise _invalid("hugepage size", hugepages.page_size, f"one of {', '.join(hugepage_sizes()) or 'none'}")
    for limit_ in r.io_limits:
        _check_io(limit_)
    for rule in r.device_rules or ():
        if rule.kind not in ("a", "b", "c") or not rule.access or not set(rule.access) <= set("rwm"):
            raise _invalid("device rule", f"{rule.kind} {rule.access}", "a kind a, b or c and some of r, w and m")
        _within("device number", rule.major, 0, (1 << 12) - 1)
        _within("device number", rule.minor, 0, (1 << 20) - 1)
    for what, text, online in (
        ("cpuset cpus", r.cpuset_cpus, "/sys/devices/system/cpu/online"),
        ("cpuset mems", r.cpuset_mems, "/sys/devices/system/node/online"),
    ):
        if text is not None:
            _check_list(what, text, online)


def _check_io(limit: IoLimit) -> None:
    device = f"{limit.major}:{limit.minor}"
    place = Path(f"/sys/dev/block/{device}")
    if not place.exists():
        raise _invalid("io limit device", device, "a block device of this host")
    if (place / "partition").exists():
        raise _invalid("io limit device", device, "a whole disk (the kernel throttles disks, not partitions)")
    for what, value in io_values(limit).items():
        if value is not None:
            _within(f"io {what} of {device}", value, 1, 2**63 - 1, unlimited=True)


def io_values(limit: IoLimit) -> dict[str, int | None]:
    """By cgroup v2's names."""
    return {
        "rbps": limit.read_bytes_per_second,
        "wbps": limit.write_bytes_per_second,
        "riops": limit.read_operations_per_second,
        "wiops": limit.write_operations_per_second,
    }


def parse_list(text: str) -> set[int]:
    """ "0-3,7" → numbers (cpuset(7), "List format"). Raises ValueError; bounded."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.strip().partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if not 0 <= low <= high < 1 << 16:
            raise ValueError(part)
        numbers.update(range(low, high + 1))
    return numbers


def _check_list(what: str, text: str, online: str) -> None:
    try:
        wanted = parse_list(text)
    except ValueError:
        raise _invalid(what, text, "a list such as 0-3,7") from None
    try:
        shown = Path(online).read_text().strip()
    except OSError:  # a kernel without NUMA has no list of nodes
        shown = f"0-{(os.cpu_count() or 1) - 1}" if what == "cpuset cpus" else "0"
    if not wanted <= parse_list(shown):
        raise _invalid(what, text, f"within what is online, {shown}")


def hugepage_sizes() -> tuple[str, ...]:
    """Sizes this kernel has, as the cgroup files spell them: 2MB, 1GB."""
    names: list[str] = []
    directory = Path("/sys/kernel/mm/hugepages")
    for entry in sorted(directory.iterdir()) if directory.is_dir() else []:
        names.append(size_name(int(entry.name.removeprefix("hugepages-").removesuffix("kB")) << 10))
    return tuple(names)


def size_name(size: int) -> str:
    """Bytes as the hugetlb files spell them (mm/hugetlb_cgroup.c): the largest unit that fits."""
    for shift, unit in ((30, "GB"), (20, "MB"), (10, "KB")):
        if size >= 1 << shift:
            return f"{size >> shift}{unit}"
    return f"{size}B"


def blkio_weight(io_weight: int) -> int:
    """1..10000 (io.weight) → 10..1000 (blkio.weight, and what BFQ takes): linear, as runc's inverse."""
    return 10 + (io_weight - 1) * 990 // 9999


def cpu_weight_linear(shares: int) -> int:
    """cpu.weight from cpu.shares as KEP-2254 and older runtimes have it: [2, 262144] → [1, 10000] on a straight line.

    Kept for comparison; the driver uses `cpu_weight`.

    1024 shares become 39, not 100: a container competes badly with the rest of the system.
    """
    return 1 + (shares - MIN_SHARES) * 9999 // (MAX_SHARES - MIN_SHARES)


def cpu_weight(shares: int) -> int:
    """cpu.weight from cpu.shares as runc from 1.3.2 and crun from 1.23 on convert for the kubelet.

    log10(weight) is a quadratic function of log2(shares) through (2, 1), (1024, 100) and (262144, 10000), so that the
    defaults of v1 and v2 meet: 10^(l²/612 + 125·l/612 - 7/34) with l = log2(shares), rounded up.
    """
    if shares <= MIN_SHARES:
        return 1
    if shares >= MAX_SHARES:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))
