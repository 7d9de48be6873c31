"""What a cgroup may use, in the kernel's units; independent of cgroup v1 or v2 and of Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class IoLimit:
    """Throttle of one block device, `major`:`minor`. None: no limit. Bytes and operations a second."""

    major: int
    minor: int
    read_bytes_per_second: int | None = None
    write_bytes_per_second: int | None = None
    read_operations_per_second: int | None = None
    write_operations_per_second: int | None = None


@dataclass(frozen=True)
class HugepageLimit:
    """`page_size` as the kernel's file names spell it (2MB, 1GB); bytes."""

    page_size: str
    limit_bytes: int


@dataclass(frozen=True)
class DeviceRule:
    """One line of the device access list. `kind` is a, b or c; None as a number means every number."""

    allow: bool
    kind: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


@dataclass(frozen=True)
class CgroupResources:
    """Limits of one cgroup. None: leave the controller alone (not: unlimited; for that, -1)."""

    cpu_shares: int | None = None
    """Relative weight in v1's range 2..262144, as the OCI and CRI specs carry it; the v2 driver converts."""
    cpu_quota_us: int | None = None
    """CPU time per period; -1 unlimited."""
    cpu_period_us: int | None = None
    cpu_burst_us: int | None = None
    cpuset_cpus: str | None = None
    """List format, such as 0-3,7."""
    cpuset_mems: str | None = None
    memory_limit_bytes: int | None = None
    """Hard limit; -1 unlimited."""
    memory_high_bytes: int | None = None
    """v2 memory.high: throttles. Refused where only v1 is."""
    memory_low_bytes: int | None = None
    """Protection or soft limit: v2 memory.low, v1 memory.soft_limit_in_bytes."""
    memory_swap_limit_bytes: int | None = None
    """Memory plus swap, as the OCI and CRI specs carry it (v1 memsw); the v2 driver subtracts memory. -1 unlimited."""
    pids_limit: int | None = None
    io_weight: int | None = None
    """1..10000 as v2 io.weight; v1 converts to 10..1000."""
    io_limits: tuple[IoLimit, ...] = ()
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    device_rules: tuple[DeviceRule, ...] | None = None
    """In order; None leaves device access as the parent has it."""
    unified: tuple[tuple[str, str], ...] = field(default=())
    """Raw v2 files, name and value, from annotations or CRI."""
