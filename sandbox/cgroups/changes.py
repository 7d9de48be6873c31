"""From one set of limits to another: what has to be written, and what both allow on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sandbox.cgroups.quantities import PERIOD_US
from sandbox.cgroups.resources import CgroupResources, HugepageLimit, IoLimit
from sandbox.cgroups.values import MIN_SHARES

NOTHING = CgroupResources()

_GROUPS = (
    ("cpu_shares",),
    ("cpu_quota_us", "cpu_period_us", "cpu_burst_us"),
    ("cpuset_cpus",),
    ("cpuset_mems",),
    ("memory_limit_bytes", "memory_swap_limit_bytes"),
    ("memory_high_bytes",),
    ("memory_low_bytes",),
    ("pids_limit",),
    ("io_weight",),
)
"""Values of one group depend on each other in the kernel: one that changes is written with the others."""

_UNSET: dict[str, Any] = {
    "cpu_shares": MIN_SHARES,
    "cpu_quota_us": -1,
    "cpu_period_us": PERIOD_US,
    "cpu_burst_us": 0,
    "memory_limit_bytes": -1,
    "memory_swap_limit_bytes": -1,
    "memory_high_bytes": -1,
    "memory_low_bytes": 0,
    "pids_limit": -1,
    "io_weight": 100,
}
"""What a limit is that nobody has set."""

_IO = ("read_bytes_per_second", "write_bytes_per_second", "read_operations_per_second", "write_operations_per_second")


def merged(old: CgroupResources, given: CgroupResources) -> CgroupResources:
    """`old` with what `given` sets; the rest stays, as the CRI's UpdateContainerResources has it."""
    values = {field: getattr(given, field) for group in _GROUPS for field in group if getattr(given, field) is not None}
    if given.device_rules is not None:
        values["device_rules"] = given.device_rules
    limits = {_device(limit): limit for limit in old.io_limits}
    for limit in given.io_limits:
        before = limits.get(_device(limit), limit)
        changed = {key: getattr(limit, key) for key in _IO if getattr(limit, key) is not None}
        limits[_device(limit)] = replace(before, **changed)
    pages = {limit.page_size: limit for limit in (*old.hugepage_limits, *given.hugepage_limits)}
    return replace(
        old,
        **values,
        io_limits=tuple(limits.values()),
        hugepage_limits=tuple(pages.values()),
        unified=tuple({**dict(old.unified), **dict(given.unified)}.items()),
    )


def transition(old: CgroupResources, new: CgroupResources) -> CgroupResources:
    """What must be written to a cgroup with the limits `old` so that it has those of `new`: no more than differs.

    A limit that only `old` has is lifted. `transition(new, old)` is the way back, also from half way.
    """
    values: dict[str, Any] = {}
    for group in _GROUPS:
        if all(getattr(old, field) == getattr(new, field) for field in group):
            continue
        for field in group:
            value = getattr(new, field)
            if value is None and getattr(old, field) is not None:
                value = _unset(field)
            values[field] = value
    if new.device_rules != old.device_rules:
        values["device_rules"] = new.device_rules
    if new.unified != old.unified:
        values["unified"] = new.unified
    return CgroupResources(**values, io_limits=_io(old, new), hugepage_limits=_hugepages(old, new))


def _unset(field: str) -> Any:
    if field.startswith("cpuset"):
        kind, file = ("cpu", "cpu/online") if field == "cpuset_cpus" else ("node", "node/online")
        path = Path("/sys/devices/system", file)
        return path.read_text().strip() if path.exists() else "0" if kind == "node" else None
    return _UNSET[field]


def _device(limit: IoLimit) -> tuple[int, int]:
    return limit.major, limit.minor


def _io(old: CgroupResources, new: CgroupResources) -> tuple[IoLimit, ...]:
    before = {_device(limit): limit for limit in old.io_limits}
    after = {_device(limit): limit for limit in new.io_limits}
    limits = []
    for device in dict.fromkeys([*after, *before]):
        was, wanted = before.get(device, IoLimit(*device)), after.get(device, IoLimit(*device))
        values: dict[str, int] = {}
        for key in _IO:
            present, value = getattr(was, key), getattr(wanted, key)
            if present != value:
                values[key] = -1 if value is None else value
        if values:
            limits.append(IoLimit(*device, **values))
    return tuple(limits)


def _hugepages(old: CgroupResources, new: CgroupResources) -> tuple[HugepageLimit, ...]:
    lifted = {limit.page_size: HugepageLimit(limit.page_size, -1) for limit in old.hugepage_limits}
    wanted = {**lifted, **{limit.page_size: limit for limit in new.hugepage_limits}}
    return tuple(limit for limit in wanted.values() if limit not in old.hugepage_limits)


def wider(old: CgroupResources, new: CgroupResources) -> CgroupResources:
    """`new`, but CPU quota, memory and tasks not below those of `old`: under it the cgroups below may change from
    their share of the one to that of the other (cgroup v1 refuses a child more CPU than its parent has)."""
    values: dict[str, Any] = {}
    if _share(old) > _share(new):
        values |= {field: getattr(old, field) for field in _GROUPS[1]}
    for fields in (("memory_limit_bytes", "memory_swap_limit_bytes"), ("pids_limit",)):
        if _amount(getattr(old, fields[0])) > _amount(getattr(new, fields[0])):
            values |= {field: getattr(old, field) for field in fields}
    return replace(new, **values)


def _amount(limit: int | None) -> float:
    return float("inf") if limit is None or limit < 0 else limit


def _share(resources: CgroupResources) -> float:
    return _amount(resources.cpu_quota_us) / (resources.cpu_period_us or PERIOD_US)


def lowers_memory(old: CgroupResources, new: CgroupResources) -> bool:
    return _amount(new.memory_limit_bytes) < _amount(old.memory_limit_bytes)
