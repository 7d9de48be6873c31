"""The downward API: `fieldRef` and `resourceFieldRef` of a pod on this host."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from sandbox.errors import InvalidInput
from sandbox.manifest.quantity import parse_quantity
from sandbox.pods.kube import Container, PodManifest
from sandbox.pods.limits import memory_capacity_bytes

_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['([^']+)'\]$")


@dataclass(frozen=True)
class PodFacts:
    """What the pod's own manifest does not say. `addresses` is empty until the pod has a network."""

    uid: str
    node_name: str
    host_ip: str
    addresses: tuple[str, ...] = ()


def field_value(pod: PodManifest, path: str, facts: PodFacts) -> str:
    """The value of a `fieldRef`. An address is empty when the pod has none. Raises InvalidInput for an unknown path."""
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return str(getattr(pod, subscript[1]).get(subscript[2], ""))
    values = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": facts.uid,
        "spec.nodeName": facts.node_name,
        "spec.serviceAccountName": pod.spec.serviceAccountName or "default",
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.addresses[0] if facts.addresses else "",
        "status.podIPs": ",".join(facts.addresses),
    }
    if path not in values:
        raise InvalidInput(
            f"fieldPath {path!r} is not known",
            operation="resolve references",
            subject=path,
            hint=f"known are {', '.join(values)}, metadata.labels['KEY'] and metadata.annotations['KEY']",
        )
    return str(values[path])


def resource_value(pod: PodManifest, container: Container, reference: Any, facts: PodFacts) -> str:
    """The value of a `resourceFieldRef`, divided by its divisor and rounded up; the host's own where no limit is."""
    name = reference.containerName or container.name
    target = next((c for c in pod.containers if c.name == name), None)
    if target is None:
        raise InvalidInput(f"resourceFieldRef names container {name!r}, which the pod does not have", subject=name)
    kind, _, resource = reference.resource.partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise InvalidInput(
            f"resource {reference.resource!r} is not known", subject=reference.resource, hint="such as limits.cpu"
        )
    table = (getattr(target.resources, kind) if target.resources else None) or {}
    if resource in table:
        value = parse_quantity(table[resource])
    else:
        value = _allocatable(resource) if kind == "limits" else Decimal(0)
    divisor = parse_quantity(reference.divisor or "1") or Decimal(1)
    return str(int((value / divisor).to_integral_value(ROUND_CEILING)))


def _allocatable(resource: str) -> Decimal:
    if resource == "cpu":
        return Decimal(os.cpu_count() or 1)
    if resource == "memory":
        return Decimal(memory_capacity_bytes())
    return Decimal(0)
