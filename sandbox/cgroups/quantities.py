"""Kubernetes requests and limits → CgroupResources, as the kubelet computes them (pkg/kubelet/cm/helpers_linux.go,
pkg/kubelet/kuberuntime/kuberuntime_container_linux.go, pkg/apis/core/v1/helper/qos/qos.go, pkg/kubelet/qos/policy.go).

Inputs are plain: resource name → integer, `cpu` in thousandths of a core, everything else in its base unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sandbox.cgroups.resources import CgroupResources, HugepageLimit
from sandbox.cgroups.values import MAX_SHARES, MIN_QUOTA_US, MIN_SHARES, size_name
from sandbox.errors import InvalidInput

PERIOD_US = 100_000
HUGEPAGES = "hugepages-"

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"

Amounts = Mapping[str, int]


@dataclass(frozen=True)
class ContainerAmounts:
    """What one container asks for. `init`: runs before the others; `sidecar`: an init container that stays."""

    requests: Amounts = field(default_factory=dict)
    limits: Amounts = field(default_factory=dict)
    init: bool = False
    sidecar: bool = False

    @property
    def defaulted(self) -> Amounts:
        """Requests; a resource with a limit alone is requested to its limit, as the API server defaults it."""
        return {**self.limits, **self.requests}


def cpu_shares(milli: int) -> int:
    """MilliCPUToShares: 1000 is 1024, never below 2 nor above 262144."""
    return max(MIN_SHARES, min(MAX_SHARES, milli * 1024 // 1000)) if milli else MIN_SHARES


def cpu_quota_us(milli: int) -> int | None:
    """MilliCPUToQuota for a period of 100 ms, at least 1 ms; None for no limit."""
    return max(MIN_QUOTA_US, milli * PERIOD_US // 1000) if milli else None


def qos_class(containers: Sequence[ContainerAmounts], pod: ContainerAmounts | None = None) -> str:
    """Guaranteed, Burstable or BestEffort. `pod`: spec.resources, which decides alone where it is set."""
    counted = [pod] if pod is not None and (pod.requests or pod.limits) else list(containers)
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    guaranteed = True
    for each in counted:
        for name in ("cpu", "memory"):
            if each.defaulted.get(name, 0) > 0:
                requests[name] = requests.get(name, 0) + each.defaulted[name]
            if each.limits.get(name, 0) > 0:
                limits[name] = limits.get(name, 0) + each.limits[name]
            else:
                guaranteed = False
    if not requests and not limits:
        return BEST_EFFORT
    return GUARANTEED if guaranteed and requests == limits else BURSTABLE


def _sum(amounts: Iterable[Amounts]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in amounts:
        for name, value in each.items():
            total[name] = total.get(name, 0) + value
    return total


def _most(amounts: Iterable[Amounts]) -> dict[str, int]:
    most: dict[str, int] = {}
    for each in amounts:
        for name, value in each.items():
            most[name] = max(most.get(name, 0), value)
    return most


def _together(amounts: Sequence[tuple[ContainerAmounts, Amounts]]) -> dict[str, int]:
    """What is used at once at most: all that run together, or one init container beside the sidecars before it."""
    running = _sum(a for c, a in amounts if not c.init or c.sidecar)
    stages: list[dict[str, int]] = []
    started: list[Amounts] = []
    for container, amount in amounts:
        if container.sidecar:
            started.append(amount)
            stages.append(_sum(started))
        elif container.init:
            stages.append(_sum([*started, amount]))
    return _most([running, *stages])


def pod_requests(
    containers: Sequence[ContainerAmounts], pod: ContainerAmounts | None = None, overhead: Amounts | None = None
) -> dict[str, int]:
    """PodRequests of k8s.io/component-helpers/resource."""
    total = _together([(c, c.defaulted) for c in containers])
    if pod is not None:
        total.update(pod.defaulted)
    return _sum([total, overhead or {}])


def pod_limits(
    containers: Sequence[ContainerAmounts], pod: ContainerAmounts | None = None, overhead: Amounts | None = None
) -> dict[str, int]:
    """PodLimits: overhead is added only where there is a limit."""
    total = _together([(c, c.limits) for c in containers])
    if pod is not None:
        total.update(pod.limits)
    return _sum([total, {name: value for name, value in (overhead or {}).items() if total.get(name)}])


def hugepage_size(resource: str) -> str:
    """ "hugepages-2Mi" → "2MB", as the kernel's files spell it. Raises InvalidInput."""
    text = resource.removeprefix(HUGEPAGES)
    for suffix, shift in (("Ki", 10), ("Mi", 20), ("Gi", 30)):
        number = text.removesuffix(suffix)
        if number != text and number.isdecimal() and 0 < int(number) < 1 << 20:
            return size_name(int(number) << shift)
    raise InvalidInput(f"resource {resource!r} is not a size of huge pages such as hugepages-2Mi", subject=resource)


def _hugepages(limits: Amounts, sizes: Iterable[str]) -> tuple[HugepageLimit, ...]:
    wanted = dict.fromkeys(sizes, 0)
    for name, value in limits.items():
        if name.startswith(HUGEPAGES):
            wanted[hugepage_size(name)] = value
    return tuple(HugepageLimit(size, value) for size, value in sorted(wanted.items()))


def container_resources(
    requests: Amounts, limits: Amounts, *, unified: bool = False, hugepage_sizes: Iterable[str] = ()
) -> CgroupResources:
    """Limits of one container. No swap beyond the memory limit, as the kubelet's NoSwap.

    `unified` (the host is cgroup v2 only): the kernel kills the whole container when it kills one of its processes.
    `hugepage_sizes`: sizes (2MB) of which a container that asks for none may use none; empty leaves them alone.
    """
    request = requests.get("cpu", limits.get("cpu", 0))
    quota = cpu_quota_us(limits.get("cpu", 0))
    memory = limits.get("memory", 0) or None
    return CgroupResources(
        cpu_shares=cpu_shares(request),
        cpu_quota_us=quota,
        cpu_period_us=PERIOD_US if quota is not None else None,
        memory_limit_bytes=memory,
        memory_swap_limit_bytes=memory,
        hugepage_limits=_hugepages(limits, hugepage_sizes),
        unified=(("memory.oom.group", "1"),) if unified else (),
    )


def pod_resources(
    containers: Sequence[ContainerAmounts],
    *,
    pod: ContainerAmounts | None = None,
    overhead: Amounts | None = None,
    pids_limit: int | None = None,
) -> CgroupResources:
    """ResourceConfigForPod: limits of the pod's cgroup. One that not every container declares does not apply to all."""
    quality = qos_class(containers, pod)
    if quality == BEST_EFFORT:
        return CgroupResources(cpu_shares=MIN_SHARES, pids_limit=pids_limit)
    requests, limits = pod_requests(containers, pod, overhead), pod_limits(containers, pod, overhead)

    def declared(name: str) -> bool:
        if pod is not None and pod.limits.get(name):
            return True
        return all(c.limits.get(name) for c in containers)

    quota = cpu_quota_us(limits.get("cpu", 0)) if declared("cpu") else None
    memory = (limits.get("memory") or None) if declared("memory") else None
    return CgroupResources(
        cpu_shares=cpu_shares(requests.get("cpu", 0)),
        cpu_quota_us=quota,
        cpu_period_us=PERIOD_US if quota is not None else None,
        memory_limit_bytes=memory,
        hugepage_limits=_hugepages(limits, ()),
        pids_limit=pids_limit,
    )


def oom_score_adj(quality: str, memory_request_bytes: int, capacity_bytes: int) -> int:
    """GetContainerOOMScoreAdjust: the more of its node's memory a burstable container asked for, the safer."""
    if quality == GUARANTEED:
        return -997
    if quality == BEST_EFFORT:
        return 1000
    adjustment = 1000 - 1000 * memory_request_bytes // capacity_bytes
    return max(3, min(999, adjustment))


def pod_cgroup(parent: str, quality: str, uid: str) -> str:
    """`<parent>/<qos>/pod<uid>` as the kubelet's cgroupfs driver; Guaranteed pods are directly below the parent."""
    level = "" if quality == GUARANTEED else quality.lower() + "/"
    return f"{parent.strip('/')}/{level}pod{uid}"
