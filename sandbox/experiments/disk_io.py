"""I/O: bytes a second that direct reads and writes get from a block device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.errors import UnsupportedByHost
from sandbox.experiments.disk import Disk, disk_below, file_on_disk, loop_device
from sandbox.experiments.experiment import MIB, Bench, Experiment, Settings
from sandbox.experiments.pods import PodFactory, shell_container
from sandbox.experiments.sweep import Point, Sample

READ, WRITE = "read", "write"
WARM_UP_S = 0.5
"""The kernel grants a slice of its own time (100 ms) ahead when a throttle is new."""
FILE_BYTES = 64 * MIB
BLOCK_RANGE = (4 << 10, 1 << 20)
KEYS = {READ: ("rbps", "ioReadBytes"), WRITE: ("wbps", "ioWriteBytes")}


def block_size(bytes_per_second: float) -> int:
    """A hundred blocks a second where that is possible: a power of two, so that direct I/O is aligned."""
    low, high = BLOCK_RANGE
    size = low
    while size * 2 <= min(bytes_per_second / 64, high):
        size *= 2
    return size


def script(series: str, disk: Disk, block: int) -> str:
    """Passes over the whole file or device again and again, past the page cache."""
    count = disk.size_bytes // block
    if series == READ:
        command = f"dd if={disk.target} of=/dev/null iflag=direct bs={block} count={count}"
    else:
        command = f"dd if=/dev/zero of={disk.target} oflag=direct conv=notrunc bs={block} count={count}"
    return f"while {command} 2>/tmp/said; do :; done; cat /tmp/said >&2; exit 1"


class IoBench:
    def __init__(self, pods: PodFactory, settings: Settings, disk: Disk) -> None:
        self._pods, self._disk, self._window_s = pods, disk, settings.window_s
        self.facts: dict[str, Any] = {
            "windowSeconds": settings.window_s,
            "device": disk.device,
            "disk": disk.description,
        }

    def measure(self, point: Point) -> Sample:
        limit, block = round(point.limit), block_size(point.limit)
        key, counter = KEYS[point.series]
        container = shell_container(
            "disk",
            script(point.series, self._disk, block),
            volumeMounts=[self._disk.mount],
            securityContext=self._disk.security,
        )
        annotations = {"sandbox/io": f"{self._disk.device} {key}={limit}"}
        with self._pods.pod(container, annotations=annotations, volumes=[self._disk.volume]) as pod:
            time.sleep(WARM_UP_S)
            rate, readings = pod.rate("disk", counter, self._window_s)
        (began, first), (ended, last) = readings[0], readings[-1]
        if last <= first:
            raise UnsupportedByHost(
                f"the kernel counts no I/O of a cgroup on {self._disk.description}: its throughput cannot be measured",
                operation="measure I/O",
                subject=self._disk.device,
                hint="" if self._disk.security else "try --loop",
            )
        details = {
            "bytes": last - first,
            "seconds": ended - began,
            "readings": len(readings),
            "blockBytes": block,
            "annotation": annotations["sandbox/io"],
        }
        return Sample(point, rate, details)


@contextmanager
def _open(pods: PodFactory, settings: Settings) -> Iterator[Bench]:
    root = Path(pods.daemon()["root"])
    device = "" if settings.loop else disk_below(root)
    place = file_on_disk(root, device, FILE_BYTES) if device else loop_device(root, FILE_BYTES)
    with place as disk:
        yield IoBench(pods, settings, disk)


IO = Experiment(
    name="io",
    title="I/O limit: bytes a second of direct reads and writes",
    method="dd reads or writes with O_DIRECT; slope of the bytes that its cgroup has moved, read every 20 ms",
    limit_label="sandbox/io rbps, wbps (MiB/s)",
    measured_label="moved (MiB/s)",
    scale=MIB,
    precision=2,
    limits=tuple(float(rate * MIB) for rate in (1, 2, 4, 8, 16)),
    lowest=64 << 10,
    highest=float(1 << 40),
    logarithmic=True,
    open=_open,
    series=(READ, WRITE),
    whole=True,
)
