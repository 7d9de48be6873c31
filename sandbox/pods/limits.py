"""Requests, limits and annotations of a pod, in the terms of `sandbox.cgroups`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from sandbox.cgroups import annotations as limit_annotations
from sandbox.cgroups import quantities
from sandbox.cgroups.quantities import ContainerAmounts
from sandbox.cgroups.resources import CgroupResources
from sandbox.manifest.quantity import parse_bytes, parse_milli
from sandbox.pods.kube import Container, PodManifest
from sandbox.pods.settings import PodSettings


def _amounts(table: Mapping[str, str] | None) -> dict[str, int]:
    return {name: parse_milli(text) if name == "cpu" else parse_bytes(text) for name, text in (table or {}).items()}


def _container(container: Container, *, init: bool) -> ContainerAmounts:
    resources = container.resources
    return ContainerAmounts(
        requests=_amounts(resources.requests if resources else None),
        limits=_amounts(resources.limits if resources else None),
        init=init,
        sidecar=init and container.restartPolicy == "Always",
    )


def _all(pod: PodManifest) -> list[ContainerAmounts]:
    inits = [_container(container, init=True) for container in pod.spec.initContainers or ()]
    return inits + [_container(container, init=False) for container in pod.spec.containers]


def qos_class(pod: PodManifest) -> str:
    return quantities.qos_class(_all(pod))


def pod_resources(pod: PodManifest, settings: PodSettings) -> CgroupResources:
    """Limits of the pod's cgroup. Raises InvalidInput for an annotation that names no limit, or no container."""
    limit_annotations.check_keys(pod.annotations, [container.name for container in pod.containers])
    return quantities.pod_resources(_all(pod), pids_limit=settings.pod_pids_limit)


def container_resources(pod: PodManifest, container: Container, settings: PodSettings) -> CgroupResources:
    """Limits of the container's cgroup. Raises InvalidInput for an annotation that cannot be read."""
    amounts = _container(container, init=False)
    resources = quantities.container_resources(amounts.requests, amounts.limits, unified=settings.unified_cgroups)
    return limit_annotations.annotated(resources, pod.annotations, container.name)


def oom_score_adj(pod: PodManifest, container: Container) -> int:
    request = _container(container, init=False).defaulted.get("memory", 0)
    return quantities.oom_score_adj(qos_class(pod), request, memory_capacity_bytes())


@cache
def memory_capacity_bytes() -> int:
    """The host's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
