"""Address ranges of a network, as the reference plugin host-local spells them.

`ranges` is a list of sets; a pod gets one address of each set (one of IPv4 and one of IPv6 for dual stack). A set is a
list of ranges that are used one after the other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sandbox.errors import NetworkError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

INVALID_CONFIG = 7


@dataclass(frozen=True)
class Range:
    """Addresses `start` to `end` (inclusive) of `subnet`, `gateway` excepted."""

    subnet: IPNetwork
    start: IPAddress
    end: IPAddress
    gateway: IPAddress

    @property
    def size(self) -> int:
        """How many pods fit."""
        return int(self.end) - int(self.start) + (0 if int(self.start) <= int(self.gateway) <= int(self.end) else 1)

    def __contains__(self, address: object) -> bool:
        return (
            isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
            and address.version == self.subnet.version
            and int(self.start) <= int(address) <= int(self.end)
            and address != self.gateway
        )

    def interface(self, address: IPAddress) -> Interface:
        return ipaddress.ip_interface(f"{address}/{self.subnet.prefixlen}")

    def after(self, last: IPAddress | None) -> Iterator[IPAddress]:
        """Every address once, from the one after `last`, around the end."""
        begin = int(last) + 1 if last is not None and last in self and last != self.end else int(self.start)
        kind = type(self.start)
        for number in _around(self, begin):
            address = kind(number)
            if address != self.gateway:
                yield address


def _around(span: Range, begin: int) -> Iterator[int]:
    yield from range(begin, int(span.end) + 1)
    yield from range(int(span.start), begin)


def _refuse(text: str) -> NetworkError:
    return NetworkError(text, code=INVALID_CONFIG, operation="read the network's configuration")


def _range(entry: Any) -> Range:
    if not isinstance(entry, dict):
        raise _refuse(f"a range must be an object with subnet, not {entry!r}")
    try:
        subnet = ipaddress.ip_network(entry["subnet"])
    except KeyError:
        raise _refuse("a range has no subnet") from None
    except ValueError as error:
        raise _refuse(f"subnet {entry['subnet']!r} is none: {error}") from None
    if subnet.num_addresses < 4:
        raise _refuse(f"subnet {subnet} is too small: a gateway and a pod need four addresses")
    try:
        first, last = subnet[1], subnet[-2] if subnet.version == 4 else subnet[-1]
        gateway = ipaddress.ip_address(entry.get("gateway") or first)
        start = ipaddress.ip_address(entry.get("rangeStart") or first)
        end = ipaddress.ip_address(entry.get("rangeEnd") or last)
    except ValueError as error:
        raise _refuse(f"a range of {subnet} has a bad address: {error}") from None
    for name, address in (("gateway", gateway), ("rangeStart", start), ("rangeEnd", end)):
        if address.version != subnet.version or not first <= address <= last:  # type: ignore[operator]
            raise _refuse(f"{name} {address} is not a usable address of {subnet}")
    if start > end:  # type: ignore[operator]
        raise _refuse(f"rangeStart {start} comes after rangeEnd {end}")
    return Range(subnet, start, end, gateway)


def parse_ranges(config: dict[str, Any]) -> tuple[tuple[Range, ...], ...]:
    """The sets of `ranges`, or the one range of `subnet`. Raises NetworkError (code 7)."""
    sets = config.get("ranges")
    if sets is None:
        if "subnet" not in config:
            raise _refuse("the network has neither subnet nor ranges")
        sets = [[{key: config[key] for key in ("subnet", "rangeStart", "rangeEnd", "gateway") if key in config}]]
    if not isinstance(sets, list) or not sets or not all(isinstance(entries, list) and entries for entries in sets):
        raise _refuse("ranges must be a list of non-empty lists")
    parsed = tuple(tuple(_range(entry) for entry in entries) for entries in sets)
    for group in parsed:
        if len({entry.subnet.version for entry in group}) > 1:
            raise _refuse("a set of ranges mixes IPv4 and IPv6")
    spans = [entry for group in parsed for entry in group]
    for position, one in enumerate(spans):
        for other in spans[position + 1 :]:
            if one.subnet.overlaps(other.subnet) and one.start <= other.end and other.start <= one.end:  # type: ignore[operator]
                raise _refuse(f"ranges of {one.subnet} and {other.subnet} overlap")
    return parsed
