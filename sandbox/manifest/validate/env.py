"""env and envFrom of a container."""

from __future__ import annotations

import re

from sandbox.errors import InvalidInput
from sandbox.manifest.kinds import nearest
from sandbox.manifest.models import core_v1
from sandbox.manifest.nodes import Path, quote
from sandbox.manifest.problems import Problems
from sandbox.manifest.quantity import parse_quantity
from sandbox.manifest.validate.check import check_required, check_text, given
from sandbox.manifest.validate.names import config_key, dns_subdomain, env_name

FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
"""What a fieldRef may name in an environment variable, besides `metadata.labels['key']` and annotations."""

SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")

_SOURCES = ("configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef", "fileKeyRef")
_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_RESOURCE_REF = re.compile(r"(?:limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-.+)")
_DIVISORS = frozenset(
    ["1", *("1" + letter for letter in "kMGTPE"), *(f"1{letter}i" for letter in "KMGTPE")]
)  # `resourceFieldRef.divisor` of memory


def validate_env(container: core_v1.Container, path: Path, problems: Problems) -> None:
    for index, variable in enumerate(container.env or []):
        where = (*path, "env", index)
        check_text(problems, (*where, "name"), variable.name, env_name)
        if variable.valueFrom is not None:
            if variable.value:
                problems.add((*where, "valueFrom"), "expected either value or valueFrom, got both", key=True)
            _validate_source(variable.valueFrom, (*where, "valueFrom"), problems)
    for index, source in enumerate(container.envFrom or []):
        _validate_env_from(source, (*path, "envFrom", index), problems)


def _validate_source(source: core_v1.EnvVarSource, path: Path, problems: Problems) -> None:
    names = given(source, _SOURCES)
    if len(names) != 1:
        got = " and ".join(names) if names else "none"
        problems.add(path, f"expected exactly one of {', '.join(_SOURCES[:4])}, got {got}")
    for name in ("configMapKeyRef", "secretKeyRef"):
        selector = getattr(source, name)
        if selector is not None:
            where = (*path, name)
            if check_required(problems, (*where, "name"), selector.name):
                check_text(problems, (*where, "name"), selector.name, dns_subdomain)
            check_text(problems, (*where, "key"), selector.key, config_key)
    if source.fieldRef is not None:
        _validate_field_ref(source.fieldRef, (*path, "fieldRef"), problems)
    if source.resourceFieldRef is not None:
        _validate_resource_ref(source.resourceFieldRef, (*path, "resourceFieldRef"), problems)


def _validate_field_ref(selector: core_v1.ObjectFieldSelector, path: Path, problems: Problems) -> None:
    if selector.apiVersion != "v1":
        problems.add((*path, "apiVersion"), f'expected "v1", got {quote(selector.apiVersion or "")}')
    text = selector.fieldPath or ""
    if text in FIELD_PATHS or SUBSCRIPT.fullmatch(text):
        return
    guess = nearest(text, list(FIELD_PATHS))
    suffix = f', did you mean "{guess}"?' if guess else f", expected {', '.join(FIELD_PATHS)} or metadata.labels['KEY']"
    problems.add((*path, "fieldPath"), f"unknown field {quote(text)}{suffix}")


def _validate_resource_ref(selector: core_v1.ResourceFieldSelector, path: Path, problems: Problems) -> None:
    text = selector.resource or ""
    match = _RESOURCE_REF.fullmatch(text)
    if not match:
        known = [f"{kind}.{name}" for kind in ("limits", "requests") for name in _RESOURCES]
        guess = nearest(text, known)
        suffix = f', did you mean "{guess}"?' if guess else f", expected {', '.join(known)}"
        problems.add((*path, "resource"), f"unknown resource {quote(text)}{suffix}")
        return
    divisor = selector.divisor
    if divisor is None:
        return
    allowed = {"1", "1m"} if match[1] == "cpu" else _DIVISORS
    try:
        good = divisor in allowed or parse_quantity(divisor) == 0
    except InvalidInput:
        good = False
    if not good:
        shown = "1m or 1" if match[1] == "cpu" else "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi or 1Ei"
        problems.add((*path, "divisor"), f"expected {shown}, got {quote(divisor)}")


def _validate_env_from(source: core_v1.EnvFromSource, path: Path, problems: Problems) -> None:
    if source.prefix:
        check_text(problems, (*path, "prefix"), source.prefix, env_name)
    names = given(source, ("configMapRef", "secretRef"))
    if len(names) != 1:
        got = " and ".join(names) if names else "none"
        problems.add(path, f"expected exactly one of configMapRef, secretRef, got {got}")
    for name in names:
        reference = getattr(source, name)
        if check_required(problems, (*path, name, "name"), reference.name):
            check_text(problems, (*path, name, "name"), reference.name, dns_subdomain)
