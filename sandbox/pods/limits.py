"""Requests and limits of a pod in the kernel's units, as the kubelet converts them."""

from __future__ import annotations

import os
from decimal import Decimal

from sandbox.cgroups.resources import CgroupResources
from sandbox.manifest import parse_bytes, parse_milli
from sandbox.pods.kube import Container, PodManifest

PERIOD_US = 100_000
MIN_SHARES, MAX_SHARES, MIN_QUOTA_US = 2, 262_144, 1_000


def _table(container: Container, kind: str) -> dict[str, str]:
    return (getattr(container.resources, kind) if container.resources else None) or {}


def qos_class(pod: PodManifest) -> str:
    tables = [
        (
            {k: v for k, v in _table(c, "requests").items() if k in ("cpu", "memory")},
            {k: v for k, v in _table(c, "limits").items() if k in ("cpu", "memory")},
        )
        for c in pod.containers
    ]
    if not any(requests or limits for requests, limits in tables):
        return "BestEffort"
    guaranteed = all(
        set(limits) == {"cpu", "memory"}
        and all(parse_milli(requests.get(name, value)) == parse_milli(value) for name, value in limits.items())
        for requests, limits in tables
    )
    return "Guaranteed" if guaranteed else "Burstable"


def container_resources(pod: PodManifest, container: Container) -> CgroupResources:
    requests, limits = _table(container, "requests"), _table(container, "limits")
    cpu = requests.get("cpu", limits.get("cpu"))
    milli = parse_milli(limits["cpu"]) if "cpu" in limits else 0
    memory = parse_bytes(limits["memory"]) if "memory" in limits else 0
    return CgroupResources(
        cpu_shares=max(MIN_SHARES, min(MAX_SHARES, parse_milli(cpu) * 1024 // 1000)) if cpu else MIN_SHARES,
        cpu_quota_us=max(MIN_QUOTA_US, milli * PERIOD_US // 1000) if milli else None,
        cpu_period_us=PERIOD_US if milli else None,
        memory_limit_bytes=memory or None,
    )


def pod_resources(pod: PodManifest) -> CgroupResources:
    return CgroupResources()


def oom_score_adj(pod: PodManifest, container: Container) -> int:
    quality = qos_class(pod)
    if quality != "Burstable":
        return -997 if quality == "Guaranteed" else 1000
    capacity = Decimal(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    request = parse_bytes(_table(container, "requests").get("memory", "0"))
    return max(3, min(999, 1000 - int(1000 * request / capacity)))
