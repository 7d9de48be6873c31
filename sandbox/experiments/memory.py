"""Memory: how much a process gets that wants twice its limit, before the kernel kills it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sandbox.errors import NotFound, SandboxError, UnsupportedByHost
from sandbox.experiments.experiment import MIB, Bench, Experiment, Settings
from sandbox.experiments.pods import LivePod, PodFactory, shell_container, until
from sandbox.experiments.sweep import Point, Sample

KILL_TIMEOUT_S = 60.0


class MemoryBench:
    """On cgroup v1 the kernel kills dd alone: the container, whose shell goes on, still has its peak.

    On v2 the whole container is killed with it. Then the peak is the pod's, which a second container keeps alive; what
    that one uses is taken off.
    """

    def __init__(self, pods: PodFactory) -> None:
        self._pods = pods
        self.facts: dict[str, Any] = {"wanted": "twice the limit"}

    def measure(self, point: Point) -> Sample:
        limit = round(point.limit)
        # One buffer of twice the limit, filled from its beginning: dd touches page after page until it is killed.
        script = f"dd if=/dev/zero of=/dev/null bs={2 * limit} count=1 && exit; sleep 3600"
        eater = shell_container("eater", script, resources={"limits": {"memory": str(limit)}})
        keeper = shell_container("keeper", "exec sleep 3600", resources={"limits": {"memory": "8Mi"}})
        with self._pods.pod(keeper, eater, wait="none") as pod:
            peak, details = until(lambda: _killed(pod), KILL_TIMEOUT_S, f"the kill of {2 * limit} bytes")
        if details.get("exitCode") == 0:
            raise SandboxError(
                f"a process took {2 * limit} bytes of memory under a limit of {limit}", operation="measure memory"
            )
        if peak is None:
            raise UnsupportedByHost(
                "this kernel does not tell the peak of a cgroup's memory", hint="Linux 5.19 or newer, or cgroup v1"
            )
        return Sample(point, peak, details)


def _killed(pod: LivePod) -> tuple[int | None, dict[str, Any]] | None:
    """(peak in bytes, how it was found), None while nothing was killed."""
    with suppress(NotFound):
        usage = pod.container_usage("eater")
        if usage.get("oomKills"):
            details = {"source": "container", "oomKills": usage["oomKills"]}
            return usage.get("memoryPeakBytes"), details
    end = pod.ended("eater")
    if end is None:
        return None
    whole, kept = pod.usage().get("memoryPeakBytes"), pod.container_usage("keeper").get("memoryUsageBytes", 0)
    details = {"source": "pod", "exitCode": end.get("exitCode"), "reason": end.get("reason")}
    details |= {"podPeakBytes": whole, "keeperBytes": kept}
    return None if whole is None else whole - kept, details


@contextmanager
def _open(pods: PodFactory, settings: Settings) -> Iterator[Bench]:
    del settings
    yield MemoryBench(pods)


MEMORY = Experiment(
    name="memory",
    title="Memory limit: where a process that wants twice as much is killed",
    method="dd fills one buffer of twice the limit; the cgroup's peak when the kernel has killed it",
    limit_label="limits.memory (MiB)",
    measured_label="peak when killed (MiB)",
    scale=MIB,
    precision=2,
    limits=tuple(float(size * MIB) for size in (8, 16, 32, 64, 128)),
    lowest=4 * MIB,
    highest=float(1 << 40),
    logarithmic=True,
    open=_open,
    whole=True,
)
