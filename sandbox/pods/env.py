"""The environment of a container, and `$(VAR)` in its command, arguments and values, exactly as Kubernetes does it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.errors import InvalidInput
from sandbox.pods import fields
from sandbox.pods.kube import Container, PodManifest
from sandbox.pods.objects import CONFIG_MAP, SECRET, ObjectStore, missing_key

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\)|.)", re.DOTALL)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, `$$` becomes `$`; an unknown name and everything else stay as they are.

    Source: k8s.io/kubernetes/third_party/forked/golang/expansion.
    """
    if "$" not in text:
        return text

    def replacement(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        name = match.group(1)
        return match.group() if name is None else variables.get(name, match.group())

    return _REFERENCE.sub(replacement, text)


@dataclass(frozen=True)
class EnvContext:
    """What values may come from. `facts` are those known only once the pod runs (its address)."""

    namespace: str
    objects: ObjectStore
    facts: fields.PodFacts


def build_environment(pod: PodManifest, container: Container, context: EnvContext) -> dict[str, str]:
    """`envFrom` in order, then `env` in order, later ones win. Raises InvalidInput for a reference to nothing."""
    result: dict[str, str] = {}
    for source in container.envFrom or []:
        result.update(_from_object(source, container, context))
    for variable in container.env or []:
        if variable.valueFrom is None:
            result[variable.name] = expand(variable.value or "", result)
            continue
        value = _from_source(variable, pod, container, context)
        if value is not None:
            result[variable.name] = value
    return result


def _from_object(source: Any, container: Container, context: EnvContext) -> dict[str, str]:
    kind, reference = (CONFIG_MAP, source.configMapRef) if source.configMapRef else (SECRET, source.secretRef)
    data = context.objects.read(kind, context.namespace, reference.name)
    if data is None:
        if reference.optional:
            return {}
        raise context.objects.missing(
            kind, context.namespace, reference.name, f"envFrom of container {container.name!r}"
        )
    prefix = source.prefix or ""
    # A key that cannot be a variable's name is left out, as the kubelet does.
    return {prefix + key: _text(value) for key, value in data.items() if key and "=" not in key}


def _from_source(variable: Any, pod: PodManifest, container: Container, context: EnvContext) -> str | None:
    source = variable.valueFrom
    if source.fieldRef is not None:
        return fields.field_value(pod, source.fieldRef.fieldPath, context.facts)
    if source.resourceFieldRef is not None:
        return fields.resource_value(pod, container, source.resourceFieldRef, context.facts)
    if source.configMapKeyRef is not None:
        kind, reference = CONFIG_MAP, source.configMapKeyRef
    elif source.secretKeyRef is not None:
        kind, reference = SECRET, source.secretKeyRef
    else:
        raise InvalidInput(
            f"variable {variable.name!r} of container {container.name!r} has a valueFrom without a known source",
            subject=variable.name,
        )
    needed_by = f"variable {variable.name!r} of container {container.name!r}"
    data = context.objects.read(kind, context.namespace, reference.name)
    if data is None:
        if reference.optional:
            return None
        raise context.objects.missing(kind, context.namespace, reference.name, needed_by)
    if reference.key not in data:
        if reference.optional:
            return None
        raise missing_key(kind, reference.name, reference.key, data, needed_by)
    return _text(data[reference.key])


def _text(value: bytes) -> str:
    # The kernel takes bytes; surrogateescape carries those that are no UTF-8 through unchanged.
    return value.decode("utf-8", "surrogateescape")
