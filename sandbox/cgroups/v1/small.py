"""pids, hugetlb, devices and freezer of cgroup v1."""

from __future__ import annotations

import os
import time
from typing import Any

from cgroupspy.contenttypes import DeviceAccess
from cgroupspy.controllers import DevicesController

from sandbox.cgroups.files import ControllerFiles, LimitFile, TextFile
from sandbox.cgroups.resources import CgroupResources
from sandbox.errors import DeadlineExceeded


class Pids(ControllerFiles):
    """pids: how many tasks (cgroup-v1/pids.rst)."""

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


class HugeTlb(ControllerFiles):
    """hugetlb: use, and reservations where the kernel counts them (cgroup-v1/hugetlb.rst)."""

    name = "hugetlb"

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return bool(resources.hugepage_limits)

    def apply(self, resources: CgroupResources) -> None:
        for limit in resources.hugepage_limits:
            for kind in ("", "rsvd."):
                file = f"hugetlb.{limit.page_size}.{kind}limit_in_bytes"
                if not kind or self.has(file):
                    self.set_property(file, limit.limit_bytes)

    def measure(self) -> dict[str, Any]:
        return {}


class Devices(ControllerFiles, DevicesController):  # type: ignore[misc]
    """devices: which device nodes may be used (cgroup-v1/devices.rst)."""

    name = "devices"
    allow: Any
    deny: Any

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return resources.device_rules is not None

    def apply(self, resources: CgroupResources) -> None:
        for rule in resources.device_rules or ():
            kind = DeviceAccess.TYPE_ALL if rule.kind == "a" else rule.kind
            entry = DeviceAccess(kind, rule.major, rule.minor, rule.access)
            if rule.allow:
                self.allow = entry
            else:
                self.deny = entry

    def measure(self) -> dict[str, Any]:
        return {}


class Freezer(ControllerFiles):
    """freezer: stops every task of the subtree (cgroup-v1/freezer-subsystem.rst)."""

    name = "freezer"
    state = TextFile("freezer.state")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return False

    def apply(self, resources: CgroupResources) -> None:
        """Nothing to do."""

    def measure(self) -> dict[str, Any]:
        return {}

    def freeze(self, timeout_s: float = 2.0) -> None:
        """Returns when every task has stopped. Raises DeadlineExceeded and leaves it thawed."""
        self.state = "FROZEN"
        deadline = time.monotonic() + timeout_s
        # The kernel tells nobody when it is done: it looks when the file is read. Reading lets others run.
        while self.state != "FROZEN":
            if time.monotonic() > deadline:
                self.state = "THAWED"
                raise DeadlineExceeded(
                    f"cgroup {self.directory} did not freeze in {timeout_s:g} seconds",
                    operation="freeze",
                    subject=self.directory,
                )
            os.sched_yield()

    def thaw(self) -> None:
        self.state = "THAWED"
