"""A hybrid host: v1 controllers, and a cgroup2 mount beside them.

Limits go to the hierarchy that has the controller. The cgroup2 directory is used for what v1 cannot do: entering by
CLONE_INTO_CGROUP, killing at once (cgroup.kill), freezing with an answer, and the event that the last process is gone.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from sandbox.cgroups import tree
from sandbox.cgroups.driver import CgroupEntry, CgroupStats, OomWatch
from sandbox.cgroups.resources import CgroupResources
from sandbox.cgroups.v1.driver import V1Driver
from sandbox.cgroups.v2.driver import V2Driver
from sandbox.errors import NotFound

NOTHING = CgroupResources()

FIELDS: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu_shares", "cpu_quota_us", "cpu_period_us", "cpu_burst_us"),
    "cpuset": ("cpuset_cpus", "cpuset_mems"),
    "memory": ("memory_limit_bytes", "memory_high_bytes", "memory_low_bytes", "memory_swap_limit_bytes"),
    "pids": ("pids_limit",),
    "blkio": ("io_weight", "io_limits"),
    "hugetlb": ("hugepage_limits",),
    "devices": ("device_rules",),
}
"""v1's name of a controller → what it limits."""

V2_NAMES = {"blkio": "io"}


class HybridDriver:
    """Both drivers with the same paths."""

    mode = "hybrid"

    def __init__(self, v1: V1Driver, v2: V2Driver) -> None:
        self.v1 = v1
        self.v2 = v2
        self.controllers = v1.controllers | v2.controllers

    def split(self, resources: CgroupResources) -> tuple[CgroupResources, CgroupResources]:
        """(v1's part, v2's part). What neither has stays with v1, which refuses it by name."""
        left: dict[str, Any] = {"unified": ()}
        right: dict[str, Any] = {"unified": resources.unified}
        for name, fields in FIELDS.items():
            moved = name not in self.v1.controllers and V2_NAMES.get(name, name) in self.v2.controllers
            for field in fields:
                if moved:
                    right[field] = getattr(resources, field)
                    left[field] = getattr(NOTHING, field)
        return replace(resources, **left), replace(NOTHING, **right)

    def check(self, resources: CgroupResources) -> None:
        left, right = self.split(resources)
        self.v1.check(left)
        self.v2.check(right)

    def create(self, path: str, resources: CgroupResources) -> None:
        left, right = self.split(resources)
        self.v1.check(left)
        made = self.v2.make(path, right)
        try:
            self.v1.create(path, left)
        except BaseException:
            tree.unmake(made)
            raise

    def update(self, path: str, resources: CgroupResources) -> None:
        left, right = self.split(resources)
        self.v2.check(right)
        self.v1.update(path, left)
        self.v2.update(path, right)

    def entry(self, path: str, beside: int = 0) -> CgroupEntry:
        return CgroupEntry(self.v1.entry(path).join_paths, self.v2.entry(path, beside).directory)

    def processes(self, path: str) -> list[int]:
        return sorted({*self.v1.processes(path), *self.v2.processes(path)})

    def kill(self, path: str) -> None:
        # A process on its way in, or put in by hand, may be in the v1 hierarchies only.
        strays = set(self.v1.processes(path)) - set(self.v2.processes(path))
        self.v2.kill(path)
        if strays:
            self.v1.kill(path)

    async def remove(self, path: str, timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        await self.v2.remove(path, timeout)
        await self.v1.remove(path, max(0.0, deadline - time.monotonic()))

    def freeze(self, path: str) -> None:
        self.v2.freeze(path)

    def thaw(self, path: str) -> None:
        self.v2.thaw(path)

    def stats(self, path: str) -> CgroupStats:
        if not self.v1.exists(path):
            raise NotFound(f"no cgroup {path}", subject=path)
        fields = {**self.v2.measure(path), **self.v1.measure(path)} if self.v2.exists(path) else self.v1.measure(path)
        return CgroupStats(time_ns=time.time_ns(), **fields)

    def oom_kills(self, path: str) -> int:
        return self._memory.oom_kills(path)

    def watch_oom(self, path: str) -> OomWatch:
        return self._memory.watch_oom(path)

    @property
    def _memory(self) -> V1Driver | V2Driver:
        return self.v2 if "memory" not in self.v1.controllers and "memory" in self.v2.controllers else self.v1

    def exists(self, path: str) -> bool:
        return self.v1.exists(path) or self.v2.exists(path)

    def children(self, path: str) -> list[str]:
        return sorted({*self.v1.children(path), *self.v2.children(path)})
