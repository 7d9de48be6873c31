"""Which config maps and secrets a pod needs, and whether they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sandbox.manifest.kinds import nearest
from sandbox.manifest.models import ConfigMap, KubeObject, Pod, Secret, core_v1
from sandbox.manifest.nodes import Path, quote
from sandbox.manifest.problems import Problems

Lookup = Callable[[str, str, str], frozenset[str] | None]
"""(kind, namespace, name) → the keys of that ConfigMap or Secret, None when there is none."""


@dataclass(frozen=True)
class Reference:
    """A pod's use of the ConfigMap or Secret `namespace`/`name`. `key` is None when all of its keys are used."""

    kind: str
    namespace: str
    name: str
    key: str | None
    optional: bool
    path: Path
    """Where it is written, from the pod's root: the name, or the key where there is one."""


def references(pod: Pod) -> list[Reference]:
    """Every reference of a defaulted pod, in the order in which it is written."""
    if pod.spec is None or pod.metadata is None:
        return []
    namespace = pod.metadata.namespace or "default"
    found = list(_volume_references(pod.spec, namespace))
    for field in ("initContainers", "containers"):
        for index, container in enumerate(getattr(pod.spec, field) or []):
            found.extend(_env_references(container, namespace, ("spec", field, index)))
    return found


def _volume_references(spec: core_v1.PodSpec, namespace: str) -> Iterator[Reference]:
    for index, volume in enumerate(spec.volumes or []):
        path: Path = ("spec", "volumes", index)
        for field, name_field, kind in (("configMap", "name", "ConfigMap"), ("secret", "secretName", "Secret")):
            source = getattr(volume, field)
            if source is None:
                continue
            name, optional = getattr(source, name_field) or "", bool(source.optional)
            where = (*path, field)
            yield Reference(kind, namespace, name, None, optional, (*where, name_field))
            for position, item in enumerate(source.items or []):
                yield Reference(kind, namespace, name, item.key, optional, (*where, "items", position, "key"))


def _env_references(container: core_v1.Container, namespace: str, path: Path) -> Iterator[Reference]:
    for index, source in enumerate(container.envFrom or []):
        for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            reference = getattr(source, field)
            if reference is not None:
                where = (*path, "envFrom", index, field, "name")
                yield Reference(kind, namespace, reference.name or "", None, bool(reference.optional), where)
    for index, variable in enumerate(container.env or []):
        for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            selector = getattr(variable.valueFrom, field) if variable.valueFrom else None
            if selector is not None:
                where = (*path, "env", index, "valueFrom", field, "key")
                yield Reference(kind, namespace, selector.name or "", selector.key, bool(selector.optional), where)


def keys_of(obj: KubeObject) -> frozenset[str]:
    """The keys of a ConfigMap or Secret."""
    if isinstance(obj, ConfigMap):
        return frozenset(obj.data or {}) | frozenset(obj.binaryData or {})
    assert isinstance(obj, Secret)
    return frozenset(obj.data or {}) | frozenset(obj.stringData or {})


def check_references(
    pod: Pod, given: dict[tuple[str, str, str], frozenset[str]], known: Lookup | None, problems: Problems
) -> None:
    """Report references to what is neither `given` (identity → keys) nor `known`, and keys that an object lacks.

    Without `known`, somebody else may know objects that are not given: only the keys of given objects are checked.
    """
    names: set[Path] = set()  # one report an object, not one a key
    for reference in references(pod):
        if reference.optional or not reference.name:
            continue
        identity = (reference.kind, reference.namespace, reference.name)
        if identity in given:
            keys: frozenset[str] | None = given[identity]
        elif known is not None:
            keys = known(*identity)
        else:
            continue
        what = f"{reference.kind} {quote(reference.name)}"
        if keys is None:
            where = _name_path(reference)
            if where not in names:
                names.add(where)
                problems.add(
                    where, f"there is no {what} in namespace {quote(reference.namespace)}{_guess(reference, given)}"
                )
        elif reference.key is not None and reference.key not in keys:
            guess = nearest(reference.key, sorted(keys))
            suffix = f', did you mean "{guess}"?' if guess else f", it has {_some(keys)}"
            problems.add(reference.path, f"{what} has no key {quote(reference.key)}{suffix}")


def _some(keys: frozenset[str]) -> str:
    shown = [key[:63] for key in sorted(keys)[:12]]
    return ", ".join(shown) + (f" and {len(keys) - 12} more" if len(keys) > 12 else "") or "no keys"


def _name_path(reference: Reference) -> Path:
    """The path of the name that belongs to a key."""
    if reference.key is None:
        return reference.path
    if "items" in reference.path:
        parent = reference.path[: reference.path.index("items")]
        return (*parent, "secretName" if reference.kind == "Secret" else "name")
    return (*reference.path[:-1], "name")


def _guess(reference: Reference, given: dict[tuple[str, str, str], frozenset[str]]) -> str:
    names = [name for kind, namespace, name in given if (kind, namespace) == (reference.kind, reference.namespace)]
    guess = nearest(reference.name, names)
    return f', did you mean "{guess}"?' if guess else ""
