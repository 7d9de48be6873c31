"""CPU: the share of a CPU that a loop gets that would take a whole one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sandbox.experiments.experiment import Bench, Experiment, Settings, cpu_quantity
from sandbox.experiments.pods import PodFactory, shell_container
from sandbox.experiments.sweep import Point, Sample

WARM_UP_S = 0.25
"""The first period begins with a full quota, whenever it began."""
PERIOD_S = 0.1
"""The CFS period of a Kubernetes quota. A window of whole periods holds whole quotas wherever it begins."""


class CpuBench:
    def __init__(self, pods: PodFactory, settings: Settings) -> None:
        self._pods = pods
        self._window_s = max(1, round(settings.window_s / PERIOD_S)) * PERIOD_S
        self.facts: dict[str, Any] = {"windowSeconds": self._window_s, "periodSeconds": PERIOD_S}

    def measure(self, point: Point) -> Sample:
        quantity = cpu_quantity(point.limit)
        loop = shell_container("loop", "while :; do :; done", resources={"limits": {"cpu": quantity}})
        with self._pods.pod(loop) as pod:
            time.sleep(WARM_UP_S)
            before, after, seconds = pod.window("loop", self._window_s)
        used = after["cpuNanoseconds"] - before["cpuNanoseconds"]
        details = {
            "limit": quantity,
            "seconds": seconds,
            "cpuNanoseconds": used,
            "throttledNanoseconds": after.get("cpuThrottledNanoseconds", 0) - before.get("cpuThrottledNanoseconds", 0),
            "throttledPeriods": after.get("cpuThrottledPeriods", 0) - before.get("cpuThrottledPeriods", 0),
        }
        return Sample(point, used / 1e9 / seconds, details)


@contextmanager
def _open(pods: PodFactory, settings: Settings) -> Iterator[Bench]:
    yield CpuBench(pods, settings)


CPU = Experiment(
    name="cpu",
    title="CPU limit: what a busy loop gets",
    method="a shell loops for ever; CPU time of its cgroup over wall-clock time, in a window of whole 100 ms periods",
    limit_label="limits.cpu (thousandths of a CPU)",
    measured_label="CPU time used (thousandths of a CPU)",
    scale=0.001,
    precision=0,
    limits=tuple(round(step * 0.1, 1) for step in range(1, 11)),
    lowest=0.01,
    highest=1.0,  # one loop takes one CPU at most
    logarithmic=False,
    open=_open,
)
