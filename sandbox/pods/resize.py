"""What of a pod may change while it runs, and what that means for each container: Kubernetes' in-place resize.

As in the Pod API: CPU and memory of app containers and sidecars, within the pod's QoS class; what was set once cannot
be taken away; each container's `resizePolicy` says whether a change is written to its cgroup or needs a restart. The
limits that only annotations can express (docs/limits.md) change the same way.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.cgroups.annotations import PREFIX, SETTERS, resolve_device
from sandbox.errors import Conflict, InvalidInput, ManifestError
from sandbox.manifest import load_manifests
from sandbox.manifest.quantity import parse_quantity
from sandbox.pods import limits
from sandbox.pods.kube import Container, Pod, PodManifest

RESIZABLE = ("cpu", "memory")
KINDS = ("limits", "requests")
RESTART = "RestartContainer"

_POLICY_OF = {
    "cpu-burst": "cpu",
    "cpuset-cpus": "cpu",
    "cpuset-mems": "cpu",
    "memory-high": "memory",
    "memory-low": "memory",
    "swap": "memory",
}
"""Limits in annotations that follow the resizePolicy of a resource; the others never need a restart."""


@dataclass(frozen=True)
class ContainerResize:
    """`restart`: its resizePolicy wants the container started anew. `changes` are words such as cpu limit 1 → 2."""

    name: str
    restart: bool
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(self.changes)}"


@dataclass(frozen=True)
class Resize:
    """The pod as it shall be, and its containers whose limits differ."""

    pod: PodManifest
    containers: tuple[ContainerResize, ...]


def plan(old: PodManifest, new: PodManifest) -> Resize | None:
    """None when nothing differs. Raises Conflict for a difference that a running pod cannot follow."""
    before, after = old.to_json(), new.to_json()
    if before == after:
        return None
    where = next(_differences(_rigid(before), _rigid(after)), "")
    if where:
        raise _conflict(new, f"exists with another manifest: {where} differs", "only limits can be changed; ")
    known = {container.name: container for container in old.containers}
    changed = [_container(old, new, known[container.name], container) for container in new.containers]
    if limits.qos_class(old) != limits.qos_class(new):
        text = f"is {limits.qos_class(old)} and would become {limits.qos_class(new)}"
        raise _conflict(new, text, "the QoS class of a pod cannot change; ")
    return Resize(new, tuple(each for each in changed if each.changes))


def _conflict(pod: PodManifest, what: str, why: str) -> Conflict:
    return Conflict(
        f"pod {pod.namespace}/{pod.name} {what}",
        operation="resize",
        subject=f"{pod.namespace}/{pod.name}",
        hint=f"{why}remove it first with `sandbox rm {pod.name}`",
    )


def _rigid(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without what may change."""
    rest = copy.deepcopy(manifest)
    for container in (*rest["spec"].get("initContainers", ()), *rest["spec"]["containers"]):
        container.pop("resources", None)
    annotations = rest["metadata"].pop("annotations", {})
    rest["metadata"]["annotations"] = {k: v for k, v in annotations.items() if not _is_limit(k)}
    return rest


def _is_limit(key: str) -> bool:
    return key.startswith(PREFIX) and key.removeprefix(PREFIX).partition(".")[0] in SETTERS


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Paths at which two JSON values differ, as deep as they can be named."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from _differences(left, right, f"{path}[{index}]")
    elif old != new:
        yield path


def _container(old: PodManifest, new: PodManifest, was: Container, now: Container) -> ContainerResize:
    changes: list[str] = []
    resources: set[str] = set()
    for kind in KINDS:
        before, after = _amounts(was, kind), _amounts(now, kind)
        for name in dict.fromkeys((*before, *after)):
            if name in before and name in after and parse_quantity(before[name]) == parse_quantity(after[name]):
                continue
            what = f"{name} {kind[:-1]} of container {now.name}"
            if name not in RESIZABLE:
                raise _conflict(new, f"runs, and the {what} cannot change", "only cpu and memory can; ")
            if name not in after:
                raise _conflict(new, f"runs, and the {what} cannot be taken away", "give another value; ")
            changes.append(f"{name} {kind[:-1]} {before.get(name, 'none')} → {after[name]}")
            if (name, kind) != ("memory", "requests"):  # which no cgroup file holds
                resources.add(name)
    is_init = now.name in {container.name for container in new.spec.initContainers or ()}
    if changes and is_init and now.restartPolicy != "Always":
        raise _conflict(new, f"exists, and limits of init container {now.name} cannot change", "it runs once; ")
    for setting in SETTERS:
        left, right = (_setting(pod, setting, now.name) for pod in (old, new))
        if left != right:
            changes.append(f"{setting} {left or 'none'} → {right or 'none'}")
            resources.add(_POLICY_OF.get(setting, ""))
    policy = {each.resourceName: each.restartPolicy for each in now.resizePolicy or ()}
    return ContainerResize(now.name, any(policy.get(name) == RESTART for name in resources), tuple(changes))


def _amounts(container: Container, kind: str) -> Mapping[str, str]:
    return (getattr(container.resources, kind) if container.resources else None) or {}


def _setting(pod: PodManifest, setting: str, container: str) -> str:
    annotations = pod.annotations
    return annotations.get(f"{PREFIX}{setting}.{container}", annotations.get(f"{PREFIX}{setting}", ""))


@dataclass(frozen=True)
class Patch:
    """New values for one container: quantities of cpu and memory, and of the limits that annotations hold."""

    container: str
    limits: Mapping[str, str]
    requests: Mapping[str, str]
    settings: Mapping[str, str]


def patched(pod: PodManifest, patch: Patch) -> PodManifest:
    """The pod with new values, validated. A request that equals its limit goes with it. Raises InvalidInput."""
    manifest = copy.deepcopy(pod.to_json())
    container = container_of(manifest, patch.container)
    resources: dict[str, dict[str, str]] = container.setdefault("resources", {})
    before = {kind: dict(resources.get(kind, {})) for kind in KINDS}
    for kind, given in zip(KINDS, (patch.limits, patch.requests), strict=True):
        for name, text in given.items():
            if name not in RESIZABLE:
                raise InvalidInput(f"{kind} of {name!r} cannot change", subject=name, hint="cpu and memory can")
            resources.setdefault(kind, {})[name] = text
    for name, text in patch.limits.items():
        was = before["limits"].get(name)
        if name not in patch.requests and was is not None and before["requests"].get(name) == was:
            resources["requests"][name] = text
    annotations = manifest["metadata"].setdefault("annotations", {})
    for name, text in patch.settings.items():
        if name not in SETTERS:
            raise InvalidInput(f"there is no limit {name!r}", subject=name, hint=f"known are {', '.join(SETTERS)}")
        text = _merged_io(_setting(pod, name, patch.container), text) if name == "io" else text
        annotations[f"{PREFIX}{name}.{patch.container}"] = text
    return _validated(manifest)


def _validated(manifest: dict[str, Any]) -> PodManifest:
    try:
        (pod,) = load_manifests([("", json.dumps(manifest).encode())])
    except ManifestError as error:
        raise InvalidInput(
            "; ".join(each.message for each in error.errors), operation="resize", subject=manifest["metadata"]["name"]
        ) from error
    assert isinstance(pod, Pod)
    return PodManifest.of(pod)


def _merged_io(present: str, given: str) -> str:
    """Throttles as the annotation spells them: what is given replaces the same key of the same disk."""
    disks: dict[tuple[int, int], tuple[str, dict[str, str]]] = {}
    for entry in filter(None, (part.strip() for part in f"{present};{given}".split(";"))):
        name, *settings = entry.split()
        try:
            device = resolve_device(name)
        except ValueError as error:
            raise InvalidInput(f"io: {error}", operation="resize", subject=name) from error
        disks.setdefault(device, (name, {}))[1].update(setting.partition("=")[::2] for setting in settings)
    return "; ".join(f"{name} {' '.join(f'{k}={v}' for k, v in values.items())}" for name, values in disks.values())


def container_of(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """The container `name` in a manifest that has it."""
    spec = manifest["spec"]
    found: dict[str, Any] = next(c for c in (*spec.get("initContainers", ()), *spec["containers"]) if c["name"] == name)
    return found
