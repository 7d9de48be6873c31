"""resources of a container: names, precision, request not above limit."""

from __future__ import annotations

from decimal import Decimal

from sandbox.errors import InvalidInput
from sandbox.manifest.kinds import nearest
from sandbox.manifest.models import core_v1
from sandbox.manifest.nodes import Path, quote
from sandbox.manifest.problems import Problems
from sandbox.manifest.quantity import parse_bytes, parse_quantity
from sandbox.manifest.validate.check import check_choice, check_required, check_unique

_STANDARD = ("cpu", "memory", "ephemeral-storage")
_HUGEPAGES = "hugepages-"
_MILLI = Decimal("1e-3")


def validate_resources(resources: core_v1.ResourceRequirements | None, path: Path, problems: Problems) -> None:
    if resources is None:
        return
    limits = _validate_list(resources.limits, (*path, "limits"), problems)
    requests = _validate_list(resources.requests, (*path, "requests"), problems, resources.limits or {})
    for name, request in requests.items():
        limit = limits.get(name)
        where = (*path, "requests", name)
        if limit is None:
            if name.startswith(_HUGEPAGES):
                problems.add(where, "expected a limit of the same size, huge pages cannot be overcommitted")
        elif request > limit:
            texts = (resources.requests or {})[name], (resources.limits or {})[name]
            problems.add(where, f"expected at most the limit, got a request of {texts[0]} and a limit of {texts[1]}")
        elif request != limit and name.startswith(_HUGEPAGES):
            problems.add(where, "expected the same as the limit, huge pages cannot be overcommitted")
    if any(name.startswith(_HUGEPAGES) for name in limits) and not {"cpu", "memory"} & (
        limits.keys() | requests.keys()
    ):
        problems.add((*path, "limits"), "huge pages require a limit or request of cpu or memory as well")


def validate_resize_policy(
    policies: list[core_v1.ContainerResizePolicy], path: Path, problems: Problems, *, restarts: bool, runs_on: bool
) -> None:
    """`restarts`: the pod's containers may; `runs_on`: it is no init container that ends."""
    if policies and not runs_on:
        problems.add(path, "an init container runs once, its limits do not change while it does", key=True)
        return
    for index, policy in enumerate(policies):
        where = (*path, index)
        if check_required(problems, (*where, "resourceName"), policy.resourceName):
            check_choice(problems, (*where, "resourceName"), policy.resourceName, ("cpu", "memory"))
        if check_required(problems, (*where, "restartPolicy"), policy.restartPolicy):
            check_choice(problems, (*where, "restartPolicy"), policy.restartPolicy, ("NotRequired", "RestartContainer"))
        if policy.restartPolicy == "RestartContainer" and not restarts:
            problems.add((*where, "restartPolicy"), "expected NotRequired in a pod whose restartPolicy is Never")
    check_unique(problems, (((*path, i, "resourceName"), p.resourceName) for i, p in enumerate(policies)), "resource")


def _validate_list(
    amounts: dict[str, str] | None, path: Path, problems: Problems, validated: dict[str, str] | None = None
) -> dict[str, Decimal]:
    """The valid amounts. What is the same in `validated` (a request that was taken from its limit) is not repeated."""
    values = {}
    for name, text in (amounts or {}).items():
        if validated is not None and validated.get(name) == text:
            continue
        where = (*path, name)
        if wrong := _resource_name(name):
            problems.add(where, wrong, key=True)
            continue
        try:
            value = parse_quantity(text)
        except InvalidInput as error:
            problems.add(where, error.message)
            continue
        values[name] = value
        if value < 0:
            problems.add(where, f"expected at least 0, got {text}")
        elif name == "cpu":
            if value % _MILLI:
                problems.add(where, f"expected a multiple of 1m (a thousandth of a CPU), got {text}")
        elif value != value.to_integral_value():
            problems.add(where, f"expected a whole number of bytes, got {quote(text)} (m is milli, Mi is mebi)")
    return values


def _resource_name(name: str) -> str:
    if name in _STANDARD:
        return ""
    if name.startswith(_HUGEPAGES):
        size = name.removeprefix(_HUGEPAGES)
        try:
            good = parse_bytes(size) > 0
        except InvalidInput:
            good = False
        return "" if good else f"expected a page size as in hugepages-2Mi, got {quote(name)}"
    if "/" in name:
        return f"the extended resource {quote(name)} is not supported by this release, there are no device plugins"
    guess = nearest(name, list(_STANDARD))
    suffix = f', did you mean "{guess}"?' if guess else f", expected {', '.join(_STANDARD)} or hugepages-SIZE"
    return f"unknown resource {quote(name)}{suffix}"
