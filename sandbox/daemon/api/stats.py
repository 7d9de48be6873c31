"""What pods and containers use now, as their cgroups count it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from sandbox.cgroups.driver import CgroupStats
from sandbox.daemon.api.app import SERVICES
from sandbox.daemon.wiring import Services
from sandbox.errors import SandboxError

routes = web.RouteTableDef()


@routes.get("/v1/stats")
async def stats(request: web.Request) -> web.Response:
    """Pods that run; those that end while they are read are left out. One reading a cgroup, no averages."""
    services = request.app[SERVICES]
    namespace = request.query.get("namespace", "")
    pods = []
    for sandbox in services.runtime.list_pod_sandboxes():
        metadata = sandbox.config.metadata
        if sandbox.state != "READY" or namespace not in ("", metadata.namespace):
            continue
        try:
            whole = services.runtime.pod_sandbox_stats(sandbox.id)
        except SandboxError:
            continue
        containers = _containers(services, sandbox.id)
        pods.append(
            {"namespace": metadata.namespace, "name": metadata.name, **stats_json(whole), "containers": containers}
        )
    return web.json_response({"pods": pods})


def _containers(services: Services, pod_sandbox_id: str) -> list[dict[str, Any]]:
    found = []
    for container in services.runtime.list_containers(pod_sandbox_id):
        if container.state != "RUNNING":
            continue
        try:
            found.append({"name": container.config.name, **stats_json(services.runtime.container_stats(container.id))})
        except SandboxError:
            continue  # it ended between the list and the reading
    return found


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
        values["pressure"] = {name: asdict(pressure) for name, pressure in stats.pressure.items()}
    return {key: value for key, value in values.items() if value is not None}
