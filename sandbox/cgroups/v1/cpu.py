"""cpu, cpuacct and cpuset of cgroup v1 (scheduler/sched-bwc.rst, cgroup-v1/cpuacct.rst, cgroup-v1/cpusets.rst)."""

from __future__ import annotations

import errno
from typing import Any

from cgroupspy.controllers import CpuAcctController, CpuController, CpuSetController
from cgroupspy.interfaces import DictFile, IntegerFile

from sandbox.cgroups.files import ControllerFiles, TextFile
from sandbox.cgroups.resources import CgroupResources
from sandbox.errors import KernelError

# USER_HZ of every architecture we run on: what cpuacct.stat counts in.
TICKS_PER_SECOND = 100


class Cpu(ControllerFiles, CpuController):  # type: ignore[misc]
    """cpu: weight and bandwidth."""

    name = "cpu"
    shares: Any
    cfs_quota_us: Any
    cfs_period_us: Any
    cfs_burst_us = IntegerFile("cpu.cfs_burst_us")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        r = resources
        return any(v is not None for v in (r.cpu_shares, r.cpu_quota_us, r.cpu_period_us, r.cpu_burst_us))

    def apply(self, resources: CgroupResources) -> None:
        if resources.cpu_shares is not None:
            self.shares = resources.cpu_shares
        if resources.cpu_burst_us is not None and resources.cpu_quota_us is not None and self.has("cpu.cfs_burst_us"):
            self.cfs_burst_us = 0  # the old burst must not forbid the new quota
        self._bandwidth(resources.cpu_quota_us, resources.cpu_period_us)
        if resources.cpu_burst_us is not None:
            self.cfs_burst_us = resources.cpu_burst_us

    def _bandwidth(self, quota_us: int | None, period_us: int | None) -> None:
        if period_us is not None:
            try:
                self.cfs_period_us = period_us
            except KernelError as e:
                # The ratio of the old quota and the new period may exceed the parent's: then the quota goes first.
                if e.errno != errno.EINVAL or quota_us is None:
                    raise
                self.cfs_quota_us = quota_us
                self.cfs_period_us = period_us
                return
        if quota_us is not None:
            self.cfs_quota_us = quota_us

    def measure(self) -> dict[str, Any]:
        stat: dict[str, int] = self.stat
        return {
            "cpu_periods": stat.get("nr_periods"),
            "cpu_throttled_periods": stat.get("nr_throttled"),
            "cpu_throttled_ns": stat.get("throttled_time"),
        }


class CpuAcct(ControllerFiles, CpuAcctController):  # type: ignore[misc]
    """cpuacct: use, nothing to limit."""

    name = "cpuacct"
    usage_user = IntegerFile("cpuacct.usage_user")
    usage_sys = IntegerFile("cpuacct.usage_sys")
    acct_stat = DictFile("cpuacct.stat", readonly=True)

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return False

    def apply(self, resources: CgroupResources) -> None:
        """Nothing to do."""

    def measure(self) -> dict[str, Any]:
        # cpuacct.usage_user and _sys attribute whole ticks of usage; cpuacct.stat is scaled by the scheduler.
        stat: dict[str, int] = self.acct_stat
        tick_ns = 1_000_000_000 // TICKS_PER_SECOND
        return {
            "cpu_usage_ns": self.usage,
            "cpu_user_ns": stat.get("user", 0) * tick_ns,
            "cpu_system_ns": stat.get("system", 0) * tick_ns,
        }


class CpuSet(ControllerFiles, CpuSetController):  # type: ignore[misc]
    """cpuset: which CPUs and memory nodes. A new one is empty, and no process can join it until both are set."""

    name = "cpuset"
    cpus_text = TextFile("cpuset.cpus")
    mems_text = TextFile("cpuset.mems")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return resources.cpuset_cpus is not None or resources.cpuset_mems is not None

    def inherit(self) -> None:
        """Copies the parent's sets where this one has none; ancestors first. Idempotent."""
        for attribute in ("cpus_text", "mems_text"):
            if getattr(self, attribute):
                continue
            parent = CpuSet(self.directory.rpartition("/")[0])
            if not getattr(parent, attribute):
                parent.inherit()
            setattr(self, attribute, getattr(parent, attribute))

    def apply(self, resources: CgroupResources) -> None:
        if resources.cpuset_cpus is not None:
            self.cpus_text = resources.cpuset_cpus
        if resources.cpuset_mems is not None:
            self.mems_text = resources.cpuset_mems

    def measure(self) -> dict[str, Any]:
        return {}
