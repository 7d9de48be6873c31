"""What every cgroup driver offers. Paths are relative to the cgroup mounts, such as sandbox/burstable/pod<uid>/<id>."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from sandbox.cgroups.resources import CgroupResources


@dataclass(frozen=True)
class CgroupEntry:
    """How a new process gets in: by writing 0 to every `join_paths` (v1), by CLONE_INTO_CGROUP of `directory` (v2).

    The v1 paths are `tasks` files: a process of one thread that moves itself through `tasks` does not wait for the
    kernel's threadgroup lock, through `cgroup.procs` it does, often for ten milliseconds (cgroup_procs_write_start).
    A hybrid host has both. The directory is absolute; whoever opens it owns the descriptor.
    """

    join_paths: tuple[str, ...]
    directory: str | None


@dataclass(frozen=True)
class IoStats:
    """What one block device did for the cgroup and its descendants."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    read_operations: int = 0
    write_operations: int = 0


@dataclass(frozen=True)
class Pressure:
    """Pressure stall information (accounting/psi.rst): percent over ten seconds, and total microseconds."""

    some_average_10s: float
    some_total_us: int
    full_average_10s: float = 0.0
    full_total_us: int = 0


@dataclass(frozen=True)
class CgroupStats:
    """Use of a cgroup and its descendants. None: this host does not measure it, or there is no limit.

    The working set is what the kubelet calls so: usage without inactive file pages.
    """

    time_ns: int
    """CLOCK_REALTIME of the reading."""
    cpu_usage_ns: int | None = None
    cpu_user_ns: int | None = None
    cpu_system_ns: int | None = None
    cpu_periods: int | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled_ns: int | None = None
    memory_usage_bytes: int | None = None
    memory_working_set_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_rss_bytes: int | None = None
    memory_cache_bytes: int | None = None
    memory_limit_bytes: int | None = None
    memory_page_faults: int | None = None
    memory_major_page_faults: int | None = None
    swap_usage_bytes: int | None = None
    oom_kills: int | None = None
    pids_current: int | None = None
    pids_limit: int | None = None
    io: tuple[IoStats, ...] = ()
    pressure: dict[str, Pressure] = field(default_factory=dict)
    """By resource: cpu, memory, io."""


class OomWatch(Protocol):
    """Becomes readable when the cgroup runs out of memory. Owns its descriptor until `close`."""

    def fileno(self) -> int: ...

    def read(self) -> int:
        """Out-of-memory events since the last read; never blocks; 0 for a wakeup that was none."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class CgroupDriver(Protocol):
    """Nothing here is cached across calls: a restarted daemon needs only the paths."""

    mode: str
    """v1, v2 or hybrid."""
    controllers: frozenset[str]
    """Controllers that containers can be limited with here."""

    def check(self, resources: CgroupResources) -> None:
        """Raises UnsupportedByHost that names the controller, or InvalidInput that names the value."""
        ...

    def create(self, path: str, resources: CgroupResources) -> None:
        """Makes the cgroup and its missing ancestors and applies the limits. Idempotent; undone on failure."""
        ...

    def update(self, path: str, resources: CgroupResources) -> None:
        """Changes the limits that are not None. Raises NotFound, or KernelError with the file."""
        ...

    def entry(self, path: str, beside: int = 0) -> CgroupEntry:
        """`beside`: a process of the cgroup, which may have moved below it; the new one gets in where that one is."""
        ...

    def kill(self, path: str) -> None:
        """SIGKILL to every process of the subtree, also frozen ones. Idempotent."""
        ...

    async def remove(self, path: str, timeout: float = 10.0) -> None:
        """Waits until the processes are gone, then removes the subtree. Idempotent. Raises DeadlineExceeded."""
        ...

    def freeze(self, path: str) -> None:
        """Stops every process of the subtree; returns when the kernel says so. Raises DeadlineExceeded."""
        ...

    def thaw(self, path: str) -> None: ...

    def processes(self, path: str) -> list[int]:
        """Process ids of the subtree, sorted. Empty when there is no such cgroup."""
        ...

    def stats(self, path: str) -> CgroupStats:
        """Raises NotFound."""
        ...

    def oom_kills(self, path: str) -> int:
        """Processes of this cgroup killed for want of memory, at whichever level the limit was. Raises NotFound."""
        ...

    def watch_oom(self, path: str) -> OomWatch:
        """The caller closes it. Raises NotFound, UnsupportedByHost."""
        ...

    def exists(self, path: str) -> bool: ...

    def children(self, path: str) -> list[str]:
        """Names of the cgroups directly below, sorted. Empty when there is no such cgroup."""
        ...
