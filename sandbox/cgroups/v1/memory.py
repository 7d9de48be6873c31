"""memory of cgroup v1 (cgroup-v1/memory.rst)."""

from __future__ import annotations

import errno
import os
from typing import Any

from cgroupspy.controllers import MemoryController

from sandbox.cgroups.files import ControllerFiles, FlatKeyedFile, write_file
from sandbox.cgroups.resources import CgroupResources
from sandbox.errors import KernelError, NotFound, UnsupportedByHost

UNLIMITED = 2**62
"""The kernel shows "no limit" as 2^63 less a page: everything from here on is that."""


def _amount(limit: int) -> int:
    return 2**63 if limit < 0 else limit


class Memory(ControllerFiles, MemoryController):  # type: ignore[misc]
    """memory: hard limit, memory and swap, soft limit."""

    name = "memory"
    limit_in_bytes: Any
    memsw_limit_in_bytes: Any
    soft_limit_in_bytes: Any
    oom_control = FlatKeyedFile("memory.oom_control")
    stat = FlatKeyedFile("memory.stat")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        r = resources
        return any(v is not None for v in (r.memory_limit_bytes, r.memory_low_bytes, r.memory_swap_limit_bytes))

    def apply(self, resources: CgroupResources) -> None:
        limit, swap = resources.memory_limit_bytes, resources.memory_swap_limit_bytes
        if resources.memory_low_bytes is not None:
            # Nothing protected is v1's unset soft limit; its 0 would mean: take everything from here first.
            self.soft_limit_in_bytes = resources.memory_low_bytes or -1
        if limit is None and swap is None:
            return
        if not self.has("memory.memsw.limit_in_bytes"):
            if swap is not None and swap not in (-1, limit):
                raise UnsupportedByHost(
                    f"memory and swap limit {swap} needs swap accounting, which this kernel has not",
                    operation="apply limits",
                    subject="memory",
                    hint="boot with swapaccount=1",
                )
            if limit is not None:
                self.limit_in_bytes = limit
            return
        self._both(limit, swap)

    def _both(self, limit: int | None, swap: int | None) -> None:
        """The kernel keeps limit ≤ memsw at every step: raise memsw before the limit, lower it after."""
        present = self.memsw_limit_in_bytes
        if limit is not None and swap is None and _amount(limit) > present:
            swap = limit  # memsw below the limit cannot be; no swap was allowed before, none is now
        if swap is None:
            self.limit_in_bytes = limit
        elif _amount(swap) > present:
            self.memsw_limit_in_bytes = swap
            if limit is not None:
                self.limit_in_bytes = limit
        else:
            if limit is not None:
                self.limit_in_bytes = limit
            self.memsw_limit_in_bytes = swap

    def measure(self) -> dict[str, Any]:
        stat: dict[str, int] = self.stat
        usage = self.usage_in_bytes
        limit = stat.get("hierarchical_memory_limit", UNLIMITED)
        return {
            "memory_usage_bytes": usage,
            "memory_working_set_bytes": max(0, usage - stat.get("total_inactive_file", 0)),
            "memory_peak_bytes": self.max_usage_in_bytes,
            "memory_rss_bytes": stat.get("total_rss"),
            "memory_cache_bytes": stat.get("total_cache"),
            "memory_limit_bytes": None if limit >= UNLIMITED else limit,
            "memory_page_faults": stat.get("total_pgfault"),
            "memory_major_page_faults": stat.get("total_pgmajfault"),
            "swap_usage_bytes": stat.get("total_swap"),
            "oom_kills": self.oom_kills(),
        }

    def oom_kills(self) -> int:
        """Since Linux 4.13; 0 before."""
        counters: dict[str, int] = self.oom_control
        return counters.get("oom_kill", 0)


class MemoryOomWatch:
    """An eventfd that memory.oom_control signals (cgroup-v1/memory.rst, "OOM Control")."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                write_file(f"{directory}/cgroup.event_control", f"{self._event} {control}")
            finally:
                os.close(control)
        except OSError as e:
            self.close()
            if e.errno in (errno.ENOENT, errno.ENODEV):
                raise NotFound(f"no cgroup {directory}", operation="watch memory", subject=directory) from e
            raise KernelError(
                f"cannot watch memory of {directory}", operation="watch memory", subject=directory, errno=e.errno or 0
            ) from e

    def fileno(self) -> int:
        return self._event

    def read(self) -> int:
        """Events since the last read: the kernel signals before it chooses whom to kill."""
        try:
            count = os.eventfd_read(self._event)
        except BlockingIOError:
            return 0
        # The removal of the cgroup signals too.
        return count if os.access(self._directory, os.F_OK) else 0

    def close(self) -> None:
        if self._event >= 0:
            os.close(self._event)
            self._event = -1
