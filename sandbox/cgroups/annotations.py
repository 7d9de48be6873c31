"""Limits the Pod API has no field for, from annotations `sandbox/<limit>` and `sandbox/<limit>.<container>`.

docs/limits.md describes each. The one that names a container goes before the one that does not. Amounts are
Kubernetes quantities.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path

from sandbox.cgroups.quantities import PERIOD_US
from sandbox.cgroups.resources import CgroupResources, IoLimit
from sandbox.cgroups.values import check_values
from sandbox.errors import InvalidInput
from sandbox.manifest.quantity import parse_quantity

PREFIX = "sandbox/"
MAX_IO_DEVICES = 64

_DEVICE_NUMBER = re.compile(r"([0-9]{1,4}):([0-9]{1,7})")

_IO_KEYS = {
    "rbps": "read_bytes_per_second",
    "wbps": "write_bytes_per_second",
    "riops": "read_operations_per_second",
    "wiops": "write_operations_per_second",
}


def whole_disk(major: int, minor: int) -> tuple[int, int]:
    """The disk a partition is on, because the kernel throttles disks; a disk is its own. Raises ValueError."""
    place = Path(f"/sys/dev/block/{major}:{minor}")
    if not place.exists():
        raise ValueError(f"{major}:{minor} is no block device of this host")
    if (place / "partition").exists():
        first, _, second = (place.resolve().parent / "dev").read_text().strip().partition(":")
        return int(first), int(second)
    return major, minor


def resolve_device(text: str) -> tuple[int, int]:
    """ "8:16" or "/dev/sdb" (or a link to it) → major and minor of the whole disk. Raises ValueError."""
    match = _DEVICE_NUMBER.fullmatch(text)
    if match:
        return whole_disk(int(match[1]), int(match[2]))
    if not text.startswith("/dev/"):
        raise ValueError(f"{text!r} is neither major:minor nor a path in /dev")
    try:
        status = Path(text).stat()
    except OSError as e:
        raise ValueError(f"{text}: {(e.strerror or 'error').lower()}") from e
    if not stat.S_ISBLK(status.st_mode):
        raise ValueError(f"{text} is no block device")
    return whole_disk(os.major(status.st_rdev), os.minor(status.st_rdev))


def _whole(text: str) -> int:
    value = parse_quantity(text)
    if value < 0 or value != value.to_integral_value():
        raise ValueError(f"{text!r} is not a whole number that is not negative")
    return int(value)


def _whole_or_max(text: str) -> int:
    return -1 if text == "max" else _whole(text)


def parse_io(text: str) -> tuple[IoLimit, ...]:
    """ "DEVICE key=quantity …; DEVICE …" with keys rbps, wbps, riops, wiops. Raises ValueError or InvalidInput."""
    limits: dict[tuple[int, int], IoLimit] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, *settings = entry.split()
        major, minor = resolve_device(name)
        if (major, minor) in limits:
            raise ValueError(f"{name} is the same disk as an earlier one ({major}:{minor})")
        if not settings:
            raise ValueError(f"{name} has no limit; write {', '.join(_IO_KEYS)} such as rbps=1Mi")
        values: dict[str, int] = {}
        for setting in settings:
            key, equals, amount = setting.partition("=")
            if key not in _IO_KEYS or not equals or _IO_KEYS[key] in values:
                raise ValueError(f"{setting!r} is not one of {', '.join(k + '=' for k in _IO_KEYS)}, each once")
            value = _whole_or_max(amount)
            if value == 0:
                raise ValueError(f"{setting!r} would stop the device; the least is 1")
            values[_IO_KEYS[key]] = value
        limits[major, minor] = IoLimit(major, minor, **values)
        if len(limits) > MAX_IO_DEVICES:
            raise ValueError(f"more than {MAX_IO_DEVICES} devices")
    if not limits:
        raise ValueError("no device is named")
    return tuple(limits.values())


Setter = Callable[[CgroupResources, str], CgroupResources]


def _burst(resources: CgroupResources, text: str) -> CgroupResources:
    if resources.cpu_quota_us is None or resources.cpu_quota_us < 0:
        raise ValueError("it needs a cpu limit")
    cores = parse_quantity(text)
    if cores < 0:
        raise ValueError(f"{text!r} is negative")
    burst_us = int(cores * Decimal(resources.cpu_period_us or PERIOD_US))
    if burst_us > resources.cpu_quota_us:
        raise ValueError(f"{text!r} is more than the cpu limit")
    return replace(resources, cpu_burst_us=burst_us)


def _swap(resources: CgroupResources, text: str) -> CgroupResources:
    extra = _whole_or_max(text)
    if resources.memory_limit_bytes is None or resources.memory_limit_bytes < 0:
        raise ValueError("it needs a memory limit")
    return replace(resources, memory_swap_limit_bytes=-1 if extra < 0 else resources.memory_limit_bytes + extra)


SETTERS: dict[str, Setter] = {
    "cpu-burst": _burst,
    "cpuset-cpus": lambda r, text: replace(r, cpuset_cpus=text.strip()),
    "cpuset-mems": lambda r, text: replace(r, cpuset_mems=text.strip()),
    "io": lambda r, text: replace(r, io_limits=parse_io(text)),
    "io-weight": lambda r, text: replace(r, io_weight=_whole(text)),
    "memory-high": lambda r, text: replace(r, memory_high_bytes=_whole_or_max(text)),
    "memory-low": lambda r, text: replace(r, memory_low_bytes=_whole(text)),
    "pids": lambda r, text: replace(r, pids_limit=_whole_or_max(text)),
    "swap": _swap,
}
"""What follows `sandbox/` in an annotation's key → how its value changes the limits."""


def annotated(resources: CgroupResources, annotations: Mapping[str, str], container: str) -> CgroupResources:
    """The limits of `container` with what annotations say. Raises InvalidInput that names the annotation."""
    for key in keys_for(annotations, container):
        try:
            resources = SETTERS[key.removeprefix(PREFIX).partition(".")[0]](resources, annotations[key])
            check_values(resources)
        except (ValueError, InvalidInput) as e:
            raise _refused(key, str(e)) from e
    return resources


def check_keys(annotations: Mapping[str, str], containers: Iterable[str]) -> None:
    """Refuses a limit that there is not, or for a container that the pod has not. Raises InvalidInput."""
    names = set(containers)
    for key in annotations:
        if not key.startswith(PREFIX):
            continue
        limit, dot, container = key.removeprefix(PREFIX).partition(".")
        if limit not in SETTERS:
            raise _refused(key, f"there is no limit {limit!r}, {_expected(limit, SETTERS)}")
        if dot and container not in names:
            raise _refused(key, f"the pod has no container {container!r}, {_expected(container, sorted(names))}")


def _expected(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word[:100], known := list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def keys_for(annotations: Mapping[str, str], container: str) -> list[str]:
    """The annotations that set limits of `container`: of two that set the same, the one that names it."""
    pairs = [(f"{PREFIX}{name}.{container}", f"{PREFIX}{name}") for name in SETTERS]
    return [next(key for key in pair if key in annotations) for pair in pairs if set(pair) & set(annotations)]


def _refused(key: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"annotation {key}: {what}",
        operation="read annotations",
        subject=key,
        hint="docs/limits.md describes the limits that annotations set",
    )
