"""blkio of cgroup v1 (cgroup-v1/blkio-controller.rst). Buffered writes are not throttled here: the kernel charges
them to the root when it writes them back."""

from __future__ import annotations

from typing import Any

from cgroupspy.contenttypes import DeviceThrottle
from cgroupspy.controllers import BlkIOController
from cgroupspy.interfaces import IntegerFile, TypedFile

from sandbox.cgroups.driver import IoStats
from sandbox.cgroups.files import ControllerFiles, TextFile
from sandbox.cgroups.resources import CgroupResources, IoLimit
from sandbox.cgroups.values import blkio_weight
from sandbox.errors import UnsupportedByHost


class BlkIO(ControllerFiles, BlkIOController):  # type: ignore[misc]
    """blkio: throttles a device, and weight where BFQ or CFQ is there."""

    name = "blkio"
    weight: Any
    # cgroupspy's names of the two write files end in a space.
    throttle_write_bps_device = TypedFile("blkio.throttle.write_bps_device", contenttype=DeviceThrottle, many=True)
    throttle_write_iops_device = TypedFile("blkio.throttle.write_iops_device", contenttype=DeviceThrottle, many=True)
    bfq_weight = IntegerFile("blkio.bfq.weight")
    service_bytes = TextFile("blkio.throttle.io_service_bytes_recursive")
    serviced = TextFile("blkio.throttle.io_serviced_recursive")

    @staticmethod
    def wanted(resources: CgroupResources) -> bool:
        return bool(resources.io_limits) or resources.io_weight is not None

    def apply(self, resources: CgroupResources) -> None:
        if resources.io_weight is not None:
            self._weigh(blkio_weight(resources.io_weight))
        for limit in resources.io_limits:
            self._throttle(limit)

    def _weigh(self, weight: int) -> None:
        if self.has("blkio.bfq.weight"):
            self.bfq_weight = weight
        elif self.has("blkio.weight"):
            self.weight = weight
        else:
            raise UnsupportedByHost(
                "io weight needs the BFQ scheduler, which this kernel has not",
                operation="apply limits",
                subject="blkio",
            )

    def _throttle(self, limit: IoLimit) -> None:
        # A value of 0 takes the rule away: -1, our unlimited.
        wanted = {
            "throttle_read_bps_device": limit.read_bytes_per_second,
            "throttle_write_bps_device": limit.write_bytes_per_second,
            "throttle_read_iops_device": limit.read_operations_per_second,
            "throttle_write_iops_device": limit.write_operations_per_second,
        }
        for attribute, value in wanted.items():
            if value is not None:
                setattr(self, attribute, [DeviceThrottle(max(0, value), limit.major, limit.minor)])

    def measure(self) -> dict[str, Any]:
        if not self.has("blkio.throttle.io_service_bytes_recursive"):
            return {}
        counts: dict[str, dict[str, int]] = {}
        for text, suffix in ((self.service_bytes, "bytes"), (self.serviced, "operations")):
            for line in text.splitlines():
                fields = line.split()
                if len(fields) == 3 and fields[1] in ("Read", "Write"):
                    counts.setdefault(fields[0], {})[f"{fields[1].lower()}_{suffix}"] = int(fields[2])
        stats = []
        for device, values in sorted(counts.items()):
            major, _, minor = device.partition(":")
            stats.append(IoStats(int(major), int(minor), **values))
        return {"io": tuple(stats)}
