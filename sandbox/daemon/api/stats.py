"""What pods and containers use now, as their cgroups count it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from aiohttp import web

from sandbox.cgroups.driver import CgroupStats, Pressure
from sandbox.daemon.api.app import SERVICES, flag, number
from sandbox.daemon.wiring import Services

routes = web.RouteTableDef()

DEFAULT_INTERVAL_S = 1.0


@routes.get("/v1/stats")
async def stats(request: web.Request) -> web.StreamResponse:
    """Pods that run; those that end while they are read are left out. One reading a file, no averages."""
    services = request.app[SERVICES]
    interval_s = number(request.query.get("interval"), "interval", 0.05, 3600) or DEFAULT_INTERVAL_S
    namespace, names = request.query.get("namespace", ""), request.query.getall("pod", [])
    if not flag(request, "watch"):
        return web.json_response({"pods": sample(services, namespace, names)})
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    due = time.monotonic()
    with services.runtime.usage.watched():
        while not services.stopping:
            line = json.dumps({"pods": sample(services, namespace, names)}, separators=(",", ":"))
            await response.write(line.encode() + b"\n")
            # Like a clock, so that a slow reader or a long sample shifts nothing; what was missed is left out.
            due = max(due + interval_s, time.monotonic())
            if await _stopped(services, due - time.monotonic()):
                break
    await response.write_eof()
    return response


async def _stopped(services: Services, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await services.stop_requested()
    except TimeoutError:
        return False
    return True


def sample(services: Services, namespace: str, names: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "namespace": pod.namespace,
            "name": pod.name,
            **stats_json(pod.stats),
            "containers": [{"name": name, **stats_json(use)} for name, use in pod.containers],
        }
        for pod in services.runtime.usage.read(namespace, names)
    ]


def stats_json(stats: CgroupStats) -> dict[str, Any]:
    """Absent keys: not measured on this host, or no limit."""
    values: dict[str, Any] = {
        "timeNanoseconds": stats.time_ns,
        "cpuNanoseconds": stats.cpu_usage_ns,
        "cpuUserNanoseconds": stats.cpu_user_ns,
        "cpuSystemNanoseconds": stats.cpu_system_ns,
        "cpuPeriods": stats.cpu_periods,
        "cpuThrottledPeriods": stats.cpu_throttled_periods,
        "cpuThrottledNanoseconds": stats.cpu_throttled_ns,
        "memoryUsageBytes": stats.memory_usage_bytes,
        "memoryWorkingSetBytes": stats.memory_working_set_bytes,
        "memoryPeakBytes": stats.memory_peak_bytes,
        "memoryRssBytes": stats.memory_rss_bytes,
        "memoryCacheBytes": stats.memory_cache_bytes,
        "memoryLimitBytes": stats.memory_limit_bytes,
        "swapUsageBytes": stats.swap_usage_bytes,
        "oomKills": stats.oom_kills,
        "pids": stats.pids_current,
        "pidsLimit": stats.pids_limit,
        "ioReadBytes": sum(device.read_bytes for device in stats.io),
        "ioWriteBytes": sum(device.write_bytes for device in stats.io),
        "ioReadOperations": sum(device.read_operations for device in stats.io),
        "ioWriteOperations": sum(device.write_operations for device in stats.io),
    }
    if stats.pressure:
        values["pressure"] = {name: pressure_json(pressure) for name, pressure in stats.pressure.items()}
    return {key: value for key, value in values.items() if value is not None}


def pressure_json(pressure: Pressure) -> dict[str, float]:
    """Percent of the last ten seconds in which some, or all, tasks waited; and microseconds in all."""
    return {
        "someAverage10Seconds": pressure.some_average_10s,
        "someMicroseconds": pressure.some_total_us,
        "fullAverage10Seconds": pressure.full_average_10s,
        "fullMicroseconds": pressure.full_total_us,
    }
