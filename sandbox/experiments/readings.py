"""What can be measured of pods that run: a rate, a share, a level, a peak, the last number, the beat of a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sandbox.cli.style import epoch
from sandbox.errors import NotFound, SandboxError, UnsupportedByHost
from sandbox.experiments.experiment import Measure
from sandbox.experiments.pods import READING_S, LivePod, PodSet, slope, until
from sandbox.experiments.sweep import percentile

PERIOD_S = 0.1
"""The CFS period of a Kubernetes quota. A window of whole periods holds whole quotas wherever it begins."""
END_TIMEOUT_S = 120.0

Reading = tuple[float, dict[str, Any]]
"""The value in the kernel's unit, and how it came about."""

COUNTERS = {
    "cpu": "cpuNanoseconds",
    "read-bytes": "ioReadBytes",
    "write-bytes": "ioWriteBytes",
    "read-operations": "ioReadOperations",
    "write-operations": "ioWriteOperations",
}
GAUGES = {"memory": "memoryUsageBytes", "pids": "pids"}
THROTTLED = {"throttledPeriods": "cpuThrottledPeriods", "throttledNanoseconds": "cpuThrottledNanoseconds"}


def rate(pods: PodSet, measure: Measure) -> Reading:
    """How fast a counter of `of` grows, a second; CPU in CPUs."""
    return _cpu(pods, measure) if measure.counter == "cpu" else _throughput(pods, measure)


def _cpu(pods: PodSet, measure: Measure) -> Reading:
    before, after = _window(pods, measure)
    first, last = before[measure.of], after[measure.of]
    seconds = (last["timeNanoseconds"] - first["timeNanoseconds"]) / 1e9
    used = last["cpuNanoseconds"] - first["cpuNanoseconds"]
    details = {"seconds": seconds, "cpuNanoseconds": used}
    details |= {name: last.get(key, 0) - first.get(key, 0) for name, key in THROTTLED.items()}
    return used / 1e9 / seconds, details


def _throughput(pods: PodSet, measure: Measure) -> Reading:
    """The kernel lets I/O pass in slices: a line through many readings, and not its two ends."""
    time.sleep(measure.warm_up_s)
    readings = _watch(pods, measure, COUNTERS[measure.counter])
    (began, first), (ended, last) = readings[0], readings[-1]
    if last <= first:
        raise UnsupportedByHost(
            f"the kernel counts no {measure.counter} of this cgroup: its throughput cannot be measured here",
            operation="measure I/O",
            hint="try --loop",
        )
    details = {"moved": last - first, "seconds": ended - began, "readings": len(readings)}
    return slope(readings), details


def share(pods: PodSet, measure: Measure) -> Reading:
    """The part of the CPU time of `of` and `against` together that `of` got."""
    before, after = _window(pods, measure)
    used = {
        name: after[name]["cpuNanoseconds"] - before[name]["cpuNanoseconds"]
        for name in (measure.of, *measure.against)
        if name in before
    }
    seconds = (after[measure.of]["timeNanoseconds"] - before[measure.of]["timeNanoseconds"]) / 1e9
    total = sum(used.values())
    if not total:
        raise SandboxError(f"no container of {', '.join(used)} used any CPU time", operation="measure a share")
    return used[measure.of] / total, {"seconds": seconds, "cpuNanosecondsOf": used, "cpus": total / 1e9 / seconds}


def level(pods: PodSet, measure: Measure) -> Reading:
    """The highest value of a gauge in the window."""
    time.sleep(measure.warm_up_s)
    readings = _watch(pods, measure, GAUGES[measure.counter])
    usage = pods.usage()[measure.of]
    details = {"readings": len(readings), "first": readings[0][1], "last": readings[-1][1]}
    details |= {"oomKills": usage.get("oomKills", 0)}
    return max(value for _, value in readings), details


def beat(pods: PodSet, measure: Measure) -> Reading:
    """Lines a second that `of` writes, one for each piece of work; and how long a piece took."""
    time.sleep(measure.warm_up_s)
    began = time.time()
    time.sleep(_window_s(measure))
    ended = time.time()
    stamps = [epoch(line.split(" ", 1)[0]) for line in pods.of(measure.of).log(measure.of, timestamps=True).split("\n")]
    inside = [stamp for stamp in stamps if began <= stamp <= ended]
    if len(inside) < 3:
        raise SandboxError(
            f"container {measure.of!r} wrote {len(inside)} lines in {ended - began:.1f} s, too few to tell a rate",
            operation="measure a beat",
        )
    pieces = [1000 * (after - before) for before, after in pairwise(inside)]
    details = {"pieces": len(pieces), "seconds": inside[-1] - inside[0]}
    details |= {f"p{percent}Milliseconds": round(percentile(pieces, percent), 3) for percent in (50, 99)}
    return len(pieces) / (inside[-1] - inside[0]), details


def peak(pods: PodSet, measure: Measure) -> Reading:
    """The most memory that `of` had when the kernel killed in it.

    On cgroup v1 the kernel kills one process alone: the container, whose shell goes on, still has its peak. On v2 the
    whole container is killed with it. Then the peak is the pod's, which `keeper` keeps alive; what that one uses is
    taken off.
    """
    pod = pods.of(measure.of)
    most, details = until(lambda: _killed(pod, measure), END_TIMEOUT_S, f"an out-of-memory kill in {measure.of!r}")
    if details.get("exitCode") == 0:
        raise SandboxError(f"container {measure.of!r} got all the memory that it wanted", operation="measure memory")
    if most is None:
        raise UnsupportedByHost(
            "this kernel does not tell the peak of a cgroup's memory", hint="Linux 5.19 or newer, or cgroup v1"
        )
    return most, details


def _killed(pod: LivePod, measure: Measure) -> tuple[int | None, dict[str, Any]] | None:
    """(peak in bytes, how it was found), None while nothing was killed."""
    with suppress(NotFound):
        usage = pod.container_usage(measure.of)
        if usage.get("oomKills"):
            return usage.get("memoryPeakBytes"), {"source": "container", "oomKills": usage["oomKills"]}
    end = pod.ended(measure.of)
    if end is None:
        return None
    whole, kept = pod.usage().get("memoryPeakBytes"), 0
    if measure.keeper:
        kept = pod.container_usage(measure.keeper).get("memoryUsageBytes", 0)
    details = {"source": "pod", "exitCode": end.get("exitCode"), "reason": end.get("reason")}
    details |= {"podPeakBytes": whole, "keeperBytes": kept}
    return None if whole is None else whole - kept, details


def last_number(pods: PodSet, measure: Measure) -> Reading:
    """The last number that `of` printed before it failed, and `plus`."""
    pod = pods.of(measure.of)
    end = pod.termination(measure.of, END_TIMEOUT_S)
    lines = pod.log(measure.of).split("\n")
    numbers = [int(line) for line in lines if line.isdigit()]
    if end.get("exitCode") == 0 or not numbers:
        raise SandboxError(
            f"no limit ended container {measure.of!r}: exit code {end.get('exitCode')} after {len(numbers)} numbers",
            operation="measure a count",
        )
    said = next((line for line in reversed(lines) if line and not line.isdigit()), "")
    return numbers[-1] + measure.plus, {"exitCode": end.get("exitCode"), "message": said[:200]}


def _window_s(measure: Measure) -> float:
    assert measure.window_s is not None, "the declaration was checked"
    return max(1, round(measure.window_s / PERIOD_S)) * PERIOD_S


def _window(pods: PodSet, measure: Measure) -> tuple[dict[str, Any], dict[str, Any]]:
    """The counters of every container at both ends of a window of whole periods."""
    time.sleep(measure.warm_up_s)
    before = pods.usage()
    if measure.of not in before:
        raise NotFound(f"container {measure.of!r} does not run", operation="read its use", subject=measure.of)
    time.sleep(max(0.0, before[measure.of]["timeNanoseconds"] / 1e9 + _window_s(measure) - time.time()))
    return before, pods.usage()


def _watch(pods: PodSet, measure: Measure, key: str) -> list[tuple[float, float]]:
    """(seconds, value), read again and again."""
    pod = pods.of(measure.of)
    deadline = time.monotonic() + _window_s(measure)
    readings: list[tuple[float, float]] = []
    while len(readings) < 2 or time.monotonic() < deadline:
        usage = pod.container_usage(measure.of)
        readings.append((usage["timeNanoseconds"] / 1e9, usage.get(key, 0)))
        time.sleep(READING_S)
    return readings


@dataclass(frozen=True)
class ReadingKind:
    """`wait`: what the pods must have come to before it begins. `has_window`: it takes the declared seconds."""

    read: Callable[[PodSet, Measure], Reading]
    wait: str = "ready"
    has_window: bool = True


KINDS = {
    "rate": ReadingKind(rate),
    "share": ReadingKind(share),
    "level": ReadingKind(level),
    "beat": ReadingKind(beat),
    "peak": ReadingKind(peak, wait="none", has_window=False),
    "last-number": ReadingKind(last_number, wait="none", has_window=False),
}
