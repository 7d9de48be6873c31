"""The controllers of cgroup v2 on one directory, with cgroupspy's descriptors (it has no v2 files of its own)."""

from __future__ import annotations

from typing import Any

from sandbox.cgroups.driver import IoStats, Pressure
from sandbox.cgroups.files import ControllerFiles, FlatKeyedFile, LimitFile, TextFile, flat_keyed
from sandbox.cgroups.resources import CgroupResources
from sandbox.cgroups.values import blkio_weight, cpu_weight, io_values
from sandbox.errors import InvalidInput, KernelError, UnsupportedByHost
from sandbox.linux.bpf import DeviceMatch, replace_device_program


class Cpu(ControllerFiles):
    """cpu: weight, bandwidth, burst. cpu.stat is there without the controller, throttling with it."""

    name = "cpu"
    max = TextFile("cpu.max")
    burst = LimitFile("cpu.max.burst")
    weight = LimitFile("cpu.weight")
    stat = FlatKeyedFile("cpu.stat")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        r = resources
        return any(v is not None for v in (r.cpu_shares, r.cpu_quota_us, r.cpu_period_us, r.cpu_burst_us))

    def apply(self, resources: CgroupResources) -> None:
        quota, period = resources.cpu_quota_us, resources.cpu_period_us
        if resources.cpu_shares is not None:
            self.weight = cpu_weight(resources.cpu_shares)
        if resources.cpu_burst_us is not None:
            self.burst = 0  # the old burst must not forbid the new quota
        if quota is not None or period is not None:
            present_quota, _, present_period = self.max.partition(" ")
            amount = present_quota if quota is None else "max" if quota < 0 else str(quota)
            self.max = f"{amount} {period or present_period}"
        if resources.cpu_burst_us is not None:
            self.burst = resources.cpu_burst_us

    def measure(self) -> dict[str, Any]:
        stat = self.stat
        found: dict[str, Any] = {
            "cpu_usage_ns": stat.get("usage_usec", 0) * 1000,
            "cpu_user_ns": stat.get("user_usec", 0) * 1000,
            "cpu_system_ns": stat.get("system_usec", 0) * 1000,
        }
        if "nr_periods" in stat:
            found["cpu_periods"] = stat["nr_periods"]
            found["cpu_throttled_periods"] = stat.get("nr_throttled")
            found["cpu_throttled_ns"] = stat.get("throttled_usec", 0) * 1000
        return found


class CpuSet(ControllerFiles):
    """cpuset: empty means the parent's."""

    name = "cpuset"
    cpus = TextFile("cpuset.cpus")
    mems = TextFile("cpuset.mems")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return resources.cpuset_cpus is not None or resources.cpuset_mems is not None

    def apply(self, resources: CgroupResources) -> None:
        if resources.cpuset_cpus is not None:
            self.cpus = resources.cpuset_cpus
        if resources.cpuset_mems is not None:
            self.mems = resources.cpuset_mems

    def measure(self) -> dict[str, Any]:
        return {}


class Memory(ControllerFiles):
    """memory: max kills, high throttles, low protects; swap apart."""

    name = "memory"
    max = LimitFile("memory.max")
    high = LimitFile("memory.high")
    low = LimitFile("memory.low")
    swap_max = LimitFile("memory.swap.max")
    current = LimitFile("memory.current", readonly=True)
    peak = LimitFile("memory.peak", readonly=True)
    swap_current = LimitFile("memory.swap.current", readonly=True)
    stat = FlatKeyedFile("memory.stat")
    events = FlatKeyedFile("memory.events")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        r = resources
        return any(
            v is not None
            for v in (r.memory_limit_bytes, r.memory_high_bytes, r.memory_low_bytes, r.memory_swap_limit_bytes)
        )

    def apply(self, resources: CgroupResources) -> None:
        if resources.memory_low_bytes is not None:
            self.low = resources.memory_low_bytes
        if resources.memory_high_bytes is not None:
            self.high = resources.memory_high_bytes
        if resources.memory_swap_limit_bytes is not None:
            self._swap(resources.memory_swap_limit_bytes, resources.memory_limit_bytes)
        if resources.memory_limit_bytes is not None:
            self.max = resources.memory_limit_bytes

    def _swap(self, both: int, limit: int | None) -> None:
        """`both` is memory and swap together, as v1, the OCI and the CRI count."""
        if not self.has("memory.swap.max"):
            if both in (-1, limit):
                return
            raise UnsupportedByHost(
                f"memory and swap limit {both} needs swap accounting, which this kernel has not",
                operation="apply limits",
                subject="memory",
            )
        if both < 0:
            self.swap_max = -1
            return
        memory = self.max if limit is None else limit
        if memory is None or memory < 0:
            raise InvalidInput(f"memory and swap limit {both} needs a memory limit", subject="memory")
        self.swap_max = max(0, both - memory)

    def measure(self) -> dict[str, Any]:
        stat, usage = self.stat, self.current or 0
        return {
            "memory_usage_bytes": usage,
            "memory_working_set_bytes": max(0, usage - stat.get("inactive_file", 0)),
            "memory_peak_bytes": self.peak if self.has("memory.peak") else None,
            "memory_rss_bytes": stat.get("anon"),
            "memory_cache_bytes": stat.get("file"),
            "memory_limit_bytes": self.max,
            "memory_page_faults": stat.get("pgfault"),
            "memory_major_page_faults": stat.get("pgmajfault"),
            "swap_usage_bytes": self.swap_current if self.has("memory.swap.current") else None,
            "oom_kills": self.oom_kills(),
        }

    def oom_kills(self) -> int:
        return self.events.get("oom_kill", 0)


class Pids(ControllerFiles):
    """pids: how many tasks."""

    name = "pids"
    current = LimitFile("pids.current", readonly=True)
    max = LimitFile("pids.max")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return resources.pids_limit is not None

    def apply(self, resources: CgroupResources) -> None:
        if resources.pids_limit is not None:
            self.max = resources.pids_limit

    def measure(self) -> dict[str, Any]:
        return {"pids_current": self.current, "pids_limit": self.max}


class Io(ControllerFiles):
    """io: throttles devices (buffered writes too, with the memory controller), and weight."""

    name = "io"
    max = TextFile("io.max")
    weight = TextFile("io.weight")
    bfq_weight = TextFile("io.bfq.weight")
    stat = TextFile("io.stat")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return bool(resources.io_limits) or resources.io_weight is not None

    def apply(self, resources: CgroupResources) -> None:
        if resources.io_weight is not None:
            self._weigh(resources.io_weight)
        for limit in resources.io_limits:
            settings = [
                f"{name}={'max' if value < 0 else value}"
                for name, value in io_values(limit).items()
                if value is not None
            ]
            if settings:
                self.max = f"{limit.major}:{limit.minor} {' '.join(settings)}"

    def _weigh(self, weight: int) -> None:
        """io.weight (iocost) and io.bfq.weight are two mechanisms: which one acts is up to the disk's scheduler."""
        there = [name for name in ("io.weight", "io.bfq.weight") if self.has(name)]
        if not there:
            raise UnsupportedByHost(
                "io weight needs iocost or the BFQ scheduler, which this kernel has not",
                operation="apply limits",
                subject="io",
            )
        if "io.weight" in there:
            self.weight = f"default {weight}"
        if "io.bfq.weight" in there:
            self.bfq_weight = str(blkio_weight(weight))

    def measure(self) -> dict[str, Any]:
        stats = []
        for line in self.stat.splitlines():
            device, _, rest = line.partition(" ")
            major, colon, minor = device.partition(":")
            values = dict(pair.split("=", 1) for pair in rest.split() if "=" in pair)
            if colon and "rbytes" in values:
                stats.append(
                    IoStats(
                        int(major),
                        int(minor),
                        int(values["rbytes"]),
                        int(values["wbytes"]),
                        int(values["rios"]),
                        int(values["wios"]),
                    )
                )
        return {"io": tuple(stats)}


class HugeTlb(ControllerFiles):
    """hugetlb: use, and reservations where the kernel counts them."""

    name = "hugetlb"

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return bool(resources.hugepage_limits)

    def apply(self, resources: CgroupResources) -> None:
        for limit in resources.hugepage_limits:
            value = "max" if limit.limit_bytes < 0 else limit.limit_bytes
            self.set_property(f"hugetlb.{limit.page_size}.max", value)
            if self.has(f"hugetlb.{limit.page_size}.rsvd.max"):
                self.set_property(f"hugetlb.{limit.page_size}.rsvd.max", value)

    def measure(self) -> dict[str, Any]:
        return {}


class Devices(ControllerFiles):
    """No files: a BPF program on the cgroup decides."""

    name = "devices"

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return resources.device_rules is not None

    def apply(self, resources: CgroupResources) -> None:
        rules = [DeviceMatch(r.allow, r.kind, r.major, r.minor, r.access) for r in resources.device_rules or ()]
        try:
            replace_device_program(self.directory, rules)
        except OSError as e:
            raise KernelError(
                f"cannot attach the device program to {self.directory}",
                operation="bpf",
                subject=self.directory,
                errno=e.errno or 0,
                hint=e.strerror or "",
            ) from e

    def measure(self) -> dict[str, Any]:
        return {}


class Core(ControllerFiles):
    """The files every cgroup but the root has."""

    name = "core"
    controllers = TextFile("cgroup.controllers")
    subtree_control = TextFile("cgroup.subtree_control")
    freeze = TextFile("cgroup.freeze")
    kill = TextFile("cgroup.kill")
    events = FlatKeyedFile("cgroup.events")

    def pressure(self) -> dict[str, Pressure]:
        """accounting/psi.rst. Empty where the kernel has none, or was booted without."""
        found: dict[str, Pressure] = {}
        for resource in ("cpu", "memory", "io"):
            try:
                text = self.get_property(f"{resource}.pressure")
            except (UnsupportedByHost, KernelError):  # absent; EOPNOTSUPP with psi=0
                continue
            kinds = {}
            for line in text.splitlines():
                kind, _, rest = line.partition(" ")
                kinds[kind] = dict(pair.split("=", 1) for pair in rest.split())
            some, full = kinds.get("some", {}), kinds.get("full", {})
            found[resource] = Pressure(
                float(some.get("avg10", 0)),
                int(some.get("total", 0)),
                float(full.get("avg10", 0)),
                int(full.get("total", 0)),
            )
        return found


__all__ = ["Core", "Cpu", "CpuSet", "Devices", "HugeTlb", "Io", "Memory", "Pids", "flat_keyed"]
