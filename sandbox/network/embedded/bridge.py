"""The bridge of an embedded network and what of the host it needs: address, forwarding, the table of rules."""

from __future__ import annotations

import errno
import ipaddress
import socket
from pathlib import Path

from sandbox.errors import NetworkError
from sandbox.network.embedded import links
from sandbox.network.embedded.firewall import Firewall
from sandbox.network.embedded.leases import Leases
from sandbox.network.embedded.ranges import Range
from sandbox.network.embedded.settings import BridgeSettings
from sandbox.network.netlink import Netlink, NetlinkError

_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


class Bridge:
    """Makes sure of the bridge, and removes it. One thread at a time."""

    def __init__(self, settings: BridgeSettings, netlink: Netlink, firewall: Firewall, leases: Leases) -> None:
        self._settings, self._netlink, self._firewall, self._leases = settings, netlink, firewall, leases
        self._index = 0
        self.mac = links.mac_of_name(settings.bridge)

    def ready(self) -> int:
        """Index of the bridge, after making what is missing. Some tens of microseconds when all is there."""
        name = self._settings.bridge
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            index = 0
        if index == 0 or index != self._index:
            self._index = self._ensure()
        if not self._firewall.exists():
            with self._leases.transaction():
                self._firewall.write(self._leases.ports())
        return self._index

    def _ensure(self) -> int:
        settings = self._settings
        try:
            link = links.describe_link(self._netlink, settings.bridge)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            self.refuse_overlap()
            self._netlink.request(links.new_bridge(settings.bridge, self.mac, settings.mtu, settings.owner))
            index = links.link_index(self._netlink, settings.bridge)
            self._netlink.request(links.set_alias(index, settings.owner))
        else:
            self._refuse_foreign(link["kind"], link["alias"])
            index, self.mac = link["index"], link["mac"]
        self._netlink.request(
            *(links.new_address(index, s.interface(s.gateway), True) for s in self._spans()),
            links.set_up(index, f"set bridge {settings.bridge} up"),
        )
        # The guard comes before route_localnet: at no time can a pod reach the host's loopback.
        with self._leases.transaction():
            self._firewall.write(self._leases.ports())
        self._set_sysctls()
        return index

    def _spans(self) -> list[Range]:
        """One range a subnet: its gateway is the bridge's address."""
        return list({span.subnet: span for group in self._settings.sets for span in group}.values())

    def _refuse_foreign(self, kind: str, alias: str) -> None:
        settings = self._settings
        if kind != "bridge":
            raise self._error(f"link {settings.bridge} is a {kind or 'physical device'}, not a bridge")
        if alias and alias != settings.owner:
            raise self._error(
                f"bridge {settings.bridge} belongs to another network ({alias})",
                "give this network another bridge and another subnet",
            )

    def refuse_overlap(self) -> None:
        """Raises NetworkError when a route of the host leads into one of the subnets."""
        for destination, _, oif in links.routes(self._netlink):
            network = ipaddress.ip_network(destination, strict=False)
            if network.prefixlen == 0:
                continue
            for span in self._spans():
                if span.subnet.overlaps(network):
                    device = _link_name(oif)
                    if device == self._settings.bridge:
                        continue
                    raise self._error(
                        f"subnet {span.subnet} of network {self._settings.name} overlaps the host's route to"
                        f" {network} over {device}",
                        "choose another subnet for the network",
                    )

    def _error(self, text: str, hint: str = "") -> NetworkError:
        return NetworkError(text, code=100, operation="make the bridge", subject=self._settings.bridge, hint=hint)

    def _set_sysctls(self) -> None:
        for family in {s.subnet.version for s in self._spans()}:
            before = read_sysctl(_FORWARDING[family])
            if before == "0":
                self._leases.set_note(_FORWARDING[family], before)
                write_sysctl(_FORWARDING[family], "1")
            if family == 4:
                write_sysctl(f"net/ipv4/conf/{self._settings.bridge}/route_localnet", "1")

    def remove(self) -> None:
        """Bridge, table, and the forwarding that was turned on for it. Idempotent. Nobody may be attached."""
        settings = self._settings
        self._index = 0
        self._firewall.delete()
        try:
            link = links.describe_link(self._netlink, settings.bridge)
            # A bridge that an administrator made stays.
            if link["kind"] == "bridge" and link["alias"] == settings.owner:
                self._netlink.request(links.delete_link(settings.bridge))
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
        # Whoever else brought a virtual link up since may count on forwarding by now.
        if not any(link["up"] and link["kind"] for link in links.links(self._netlink)):
            for name in _FORWARDING.values():
                if self._leases.note(name) == "0":
                    write_sysctl(name, "0")


def _link_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return "another link"


def read_sysctl(name: str) -> str:
    """Empty when the kernel has none of that name. Of the calling thread's network namespace."""
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except FileNotFoundError:
        return ""


def write_sysctl(name: str, value: str) -> None:
    """Raises NetworkError."""
    try:
        (Path("/proc/sys") / name).write_text(value)
    except OSError as error:
        raise NetworkError(
            f"sysctl {name.replace('/', '.')} cannot be set to {value}: {(error.strerror or str(error)).lower()}",
            code=100,
            operation="set a sysctl",
            subject=name,
        ) from error
