"""Samples of `/v1/stats` as rows: what changed between two of them, and what is now."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.cli.client import target
from sandbox.cli.style import size

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from sandbox.cli.client import Response
    from sandbox.cli.context import CliContext

    Usage = Mapping[str, Any]

RATES = ("cpuNanoseconds", "cpuThrottledNanoseconds", "ioReadBytes", "ioWriteBytes")


@dataclass(frozen=True)
class Row:
    """A pod, or (`container` not empty) one of its containers. None: not measured here, or not yet."""

    namespace: str
    pod: str
    container: str
    usage: Usage
    cpu_milli: float | None = None
    """Thousandths of one CPU, since the sample before."""
    throttled_percent: float | None = None
    """Of the time since the sample before, summed over CPUs."""
    read_bytes_s: float | None = None
    write_bytes_s: float | None = None

    def name(self, *, namespaces: bool) -> str:
        pod = f"{self.namespace}/{self.pod}" if namespaces else self.pod
        return f"{pod}/{self.container}" if self.container else pod

    @property
    def memory_percent(self) -> float | None:
        used, limit = self.usage.get("memoryWorkingSetBytes"), self.usage.get("memoryLimitBytes")
        return None if used is None or not limit else 100 * used / limit

    @property
    def pressure(self) -> str:
        """Percent of ten seconds in which some task waited for CPU / memory / I/O."""
        found = self.usage.get("pressure") or {}
        waits = [found.get(name, {}).get("someAverage10Seconds") for name in ("cpu", "memory", "io")]
        return "/".join("-" if percent is None else f"{percent:.0f}" for percent in waits) if found else "-"


class Rows:
    """Remembers the last sample; the first one has no rates."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str, str], Usage] = {}

    def take(self, pods: list[Usage]) -> list[Row]:
        """Rows of a sample: each pod, followed by its containers."""
        now: dict[tuple[str, str, str], Usage] = {}
        for pod in pods:
            now[pod["namespace"], pod["name"], ""] = pod
            for container in pod.get("containers") or ():
                now[pod["namespace"], pod["name"], container["name"]] = container
        rows = [self._row(key, usage) for key, usage in now.items()]
        self._before = now
        return rows

    def _row(self, key: tuple[str, str, str], usage: Usage) -> Row:
        before = self._before.get(key, {})
        elapsed_ns = int(usage.get("timeNanoseconds") or 0) - int(before.get("timeNanoseconds") or 0)
        rates: list[float | None] = []
        for name in RATES:
            if before and elapsed_ns > 0 and usage.get(name) is not None and before.get(name) is not None:
                rates.append(max(0, usage[name] - before[name]) / elapsed_ns)
            else:
                rates.append(None)
        cpu, throttled, read, write = rates
        return Row(
            *key,
            usage,
            _times(cpu, 1e3),
            _times(throttled, 1e2),
            _times(read, 1e9),
            _times(write, 1e9),
        )


def _times(rate: float | None, factor: float) -> float | None:
    return None if rate is None else rate * factor


def stats_target(namespace: str | None, pods: tuple[str, ...], *, watch: bool, interval_s: float) -> str:
    query: list[tuple[str, str | int]] = [("namespace", namespace or ""), *(("pod", pod) for pod in pods)]
    if watch:
        query += [("watch", 1), ("interval", f"{interval_s:g}")]
    return target("v1", "stats", query=query)


def open_stream(context: CliContext, namespace: str | None, pods: tuple[str, ...], interval_s: float) -> Response:
    """Samples until the caller closes it."""
    return context.client.request("GET", stats_target(namespace, pods, watch=True, interval_s=interval_s), stream=True)


def samples(response: Response) -> Iterator[list[Usage]]:
    for line in response.events():
        yield line["pods"]


def amount(count: Any) -> str:
    return size(count) if count is not None else "-"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}%"


def whole(value: Any) -> str:
    return "-" if value is None else str(value)
