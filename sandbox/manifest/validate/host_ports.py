"""Which ports of the host are asked for twice."""

from __future__ import annotations

from typing import Generic, TypeVar

from sandbox.manifest.models import core_v1

Owner = TypeVar("Owner")

_EVERY_ADDRESS = ("", "0.0.0.0", "::")


class HostPorts(Generic[Owner]):
    """The host ports taken so far. An empty hostIP is every address of the host."""

    def __init__(self) -> None:
        self._taken: dict[tuple[int, str], dict[str, Owner]] = {}

    def take(self, port: core_v1.ContainerPort, owner: Owner) -> Owner | None:
        """Take the host port of `port`, if it has one; whose it is already, if it cannot be published twice."""
        if not port.hostPort:
            return None
        addresses = self._taken.setdefault((port.hostPort, port.protocol or "TCP"), {})
        address = "" if port.hostIP in _EVERY_ADDRESS else port.hostIP or ""
        other = addresses.get(address) or addresses.get("")
        if other is None and not address:
            other = next(iter(addresses.values()), None)
        addresses.setdefault(address, owner)
        return other
