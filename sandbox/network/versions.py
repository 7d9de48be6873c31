"""CNI versions and what differs between them (CNI SPEC.md, "Version considerations")."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from sandbox.errors import NetworkError

SUPPORTED = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = SUPPORTED[-1]
INCOMPATIBLE_VERSION = 1
DECODING_FAILURE = 6

_NEW_IN_1_1 = {
    "interfaces": ("mtu", "socketPath", "pciID"),
    "routes": ("mtu", "advmss", "priority", "table", "scope"),
}


def version_key(version: str) -> tuple[int, ...]:
    """Sort key; a version that is none sorts first."""
    try:
        return tuple(int(part) for part in version.split("."))
    except ValueError:
        return ()


def highest_common(*sides: Iterable[str]) -> str | None:
    """The highest version every side knows, this program being one of them; None when there is none."""
    common = set(SUPPORTED)
    for side in sides:
        common &= set(side)
    return max(common, key=version_key, default=None)


def has_check(version: str) -> bool:
    """CHECK came with 0.4.0."""
    return version_key(version) >= (0, 4, 0)


def has_gc(version: str) -> bool:
    """GC and STATUS came with 1.1.0."""
    return version_key(version) >= (1, 1, 0)


def parse_result(document: Any, subject: str) -> dict[str, Any]:
    """A result of any supported version, its shape checked. Raises NetworkError (code 6) with what is wrong."""

    def refuse(text: str) -> NetworkError:
        return NetworkError(
            f"{subject} gave a result that is none: {text}", code=DECODING_FAILURE, operation="ADD", subject=subject
        )

    if not isinstance(document, dict):
        raise refuse("not a JSON object")
    version = document.get("cniVersion", "")
    if version not in SUPPORTED:
        raise refuse(f"cniVersion is {version!r}, known are {', '.join(SUPPORTED)}")
    for key in ("interfaces", "ips", "routes"):
        entries = document.get(key)
        if entries is None:
            continue
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise refuse(f"{key} is not a list of objects")
    for ip in document.get("ips") or []:
        if not isinstance(ip.get("address"), str):
            raise refuse("an element of ips has no address")
        index = ip.get("interface")
        if index is not None and not (isinstance(index, int) and 0 <= index < len(document.get("interfaces") or [])):
            raise refuse(f"an element of ips names interface {index!r}, which is not in interfaces")
    for route in document.get("routes") or []:
        if not isinstance(route.get("dst"), str):
            raise refuse("an element of routes has no dst")
    if not isinstance(document.get("dns", {}), dict):
        raise refuse("dns is not an object")
    return document


def convert_result(result: dict[str, Any], version: str) -> dict[str, Any]:
    """The same result in another version. Going down, fields that the version lacks are left out."""
    if result.get("cniVersion") == version:
        return result
    if version not in SUPPORTED:
        raise NetworkError(
            f"CNI version {version} is not known, known are {', '.join(SUPPORTED)}",
            code=INCOMPATIBLE_VERSION,
            operation="convert a result",
        )
    converted = copy.deepcopy(result)
    converted["cniVersion"] = version
    for ip in converted.get("ips") or []:
        if version_key(version) < (1, 0, 0):
            ip["version"] = "6" if ":" in ip["address"] else "4"
        else:
            ip.pop("version", None)
    if version_key(version) < (1, 1, 0):
        for section, names in _NEW_IN_1_1.items():
            for entry in converted.get(section) or []:
                for name in names:
                    entry.pop(name, None)
    return converted
