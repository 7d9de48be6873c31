"""ADD, DEL, CHECK, GC and STATUS of one embedded network.

ADD: reserve addresses and host ports (SQLite) → make the veth pair, its peer already in the pod → configure the peer
through a socket inside the pod → open host ports. Undone in reverse when a step fails. A crash in between leaves a
reservation and maybe a link, both named after the attachment: DEL finds them without memory.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sandbox.errors import NetworkError
from sandbox.linux.netns import in_netns
from sandbox.network.embedded import links
from sandbox.network.embedded.bridge import Bridge
from sandbox.network.embedded.firewall import Firewall
from sandbox.network.embedded.leases import Leases, Owner, Port
from sandbox.network.embedded.ranges import Interface, Range
from sandbox.network.embedded.reaper import LinkReaper
from sandbox.network.embedded.settings import BridgeSettings, Request, refuse
from sandbox.network.netlink import Netlink, NetlinkError
from sandbox.network.versions import LATEST

Reserved = list[tuple[Interface, Range]]
NOT_AVAILABLE = 50
_CHECK_FAILED = 101


class BridgeNetwork:
    """Safe to share between threads: a lock guards all but the slow deletion of links."""

    def __init__(self, settings: BridgeSettings) -> None:
        """Opens sockets in the network namespace of the calling thread."""
        self.settings = settings
        self._lock = threading.RLock()
        self._netlink = Netlink()
        self._firewall = Firewall(settings.bridge, settings.sets, settings.masquerade)
        self._reaper = LinkReaper()
        self._leases_path = settings.data_dir / f"{settings.name}.db"
        self._opened: tuple[Leases, Bridge] | None = None

    def close(self) -> None:
        with self._lock:
            if self._opened:
                self._opened[0].close()
                self._opened = None
            self._netlink.close()
            self._firewall.close()
            self._reaper.close()

    def _open(self) -> tuple[Leases, Bridge]:
        if self._opened is None:
            leases = Leases(self._leases_path)
            self._opened = leases, Bridge(self.settings, self._netlink, self._firewall, leases)
        return self._opened

    def _veth(self, owner: Owner) -> str:
        return links.veth_name(self.settings.bridge, owner.container, owner.ifname)

    def add(self, request: Request) -> dict[str, Any]:
        """The result, version 1.1.0. Raises NetworkError; then nothing is left."""
        owner = Owner(request.container, request.ifname)
        mappings, wanted, mac = request.port_mappings(), request.wanted_addresses(), request.wanted_mac()
        veth = self._veth(owner)
        with self._lock, _readable("ADD", self.settings.name):
            leases, bridge = self._open()
            master = bridge.ready()
            with leases.transaction():
                reserved = leases.reserve(owner, self.settings.sets, wanted)
                ports = [
                    Port(f, m.host_address, m.protocol, m.host_port, str(interface.ip), m.port, owner.container)
                    for m in mappings
                    for f in m.families
                    for interface, _ in reserved
                    if interface.version == f
                ]
                for port in ports:
                    leases.add_port(owner, port)
            try:
                peer_mac = mac or links.mac_of_address(reserved[0][0].ip)
                self._connect(request, veth, master, reserved, peer_mac)
                if ports:
                    self._firewall.add(ports)
            except BaseException:
                self._undo(owner, veth)
                raise
            return self._result(request, veth, bridge.mac, peer_mac, reserved)

    def _connect(self, request: Request, veth: str, master: int, reserved: Reserved, mac: str) -> None:
        with _netns_fd(request) as netns_fd:
            pair = links.new_veth(
                veth, master, request.ifname, mac, netns_fd, self.settings.mtu, links.mac_of_name(veth)
            )
            extra = [links.set_hairpin(veth)] if self.settings.hairpin else []
            try:
                self._netlink.request(pair, *extra)
            except NetlinkError as error:
                if error.errno != errno.EEXIST or error.index != 0 or not self._has_link(veth):
                    raise
                # Nobody holds a lease under this name: it is what a crash left.
                self._reaper.remove(veth)
                self._netlink.request(pair, *extra)
        pod = _pod_netlink(request)
        try:
            index = links.link_index(pod, request.ifname)
            pod.request(
                links.set_up(index, f"set {request.ifname} up in the pod"),
                *(links.new_address(index, interface) for interface, _ in reserved),
                *(links.new_route(index, dst, gateway) for dst, gateway in self._routes(reserved)),
            )
        finally:
            pod.close()
        for name in (veth, self.settings.bridge):
            links.wait_until_up(self._netlink, name)

    def _has_link(self, name: str) -> bool:
        try:
            return links.link_index(self._netlink, name) > 0
        except NetlinkError:
            return False

    def _routes(self, reserved: Reserved) -> list[tuple[str, str]]:
        gateways: dict[int, str] = {interface.version: str(span.gateway) for interface, span in reserved}
        found = []
        if self.settings.default_route:
            found = [("0.0.0.0/0" if version == 4 else "::/0", gateway) for version, gateway in gateways.items()]
        for destination, gateway in self.settings.routes:
            family = 6 if ":" in destination else 4
            if (gateway or family in gateways) and (destination, gateway or gateways[family]) not in found:
                found.append((destination, gateway or gateways[family]))
        return found

    def _undo(self, owner: Owner, veth: str) -> None:
        try:
            self._reaper.remove(veth)
        finally:
            leases, _ = self._open()
            if ports := leases.ports(owner):
                self._close_ports(owner, ports)
            leases.release(owner)

    def _close_ports(self, owner: Owner, ports: list[Port]) -> None:
        leases, _ = self._open()
        try:
            self._firewall.remove(ports)
        except NetworkError:
            # The table or an element is not there (a flushed rule set, an ADD cut short): write what must be.
            others = set(leases.ports()) - set(ports)
            with leases.transaction():
                self._firewall.write(sorted(others, key=str))

    def _result(self, request: Request, veth: str, bridge_mac: str, pod_mac: str, reserved: Reserved) -> dict[str, Any]:
        sandbox: dict[str, Any] = {"name": request.ifname, "mac": pod_mac, "sandbox": request.netns_path}
        if self.settings.mtu:
            sandbox["mtu"] = self.settings.mtu
        return {
            "cniVersion": LATEST,
            "interfaces": [
                {"name": self.settings.bridge, "mac": bridge_mac},
                {"name": veth, "mac": links.mac_of_name(veth)},
                sandbox,
            ],
            "ips": [{"address": str(i), "gateway": str(span.gateway), "interface": 2} for i, span in reserved],
            "routes": [{"dst": dst, "gw": gateway} for dst, gateway in self._routes(reserved)],
            "dns": request.config.get("dns") or {},
        }

    def delete(self, request: Request) -> None:
        """Host ports, then the link, then the addresses: none is given away before the link is gone. Idempotent."""
        self._delete(Owner(request.container, request.ifname))

    def _delete(self, owner: Owner) -> None:
        with _readable("DEL", self.settings.name):
            with self._lock:
                known = self._opened is not None or self._leases_path.exists()
                if known:
                    leases, _ = self._open()
                    if ports := leases.ports(owner):
                        self._close_ports(owner, ports)
            self._reaper.remove(self._veth(owner))
            if known:
                with self._lock:
                    self._open()[0].release(owner)

    def check(self, request: Request) -> None:
        """Compares prevResult with the kernel. Raises NetworkError naming the first difference."""
        previous = request.config.get("prevResult")
        if not isinstance(previous, dict):
            raise refuse("CHECK needs prevResult")
        owner = Owner(request.container, request.ifname)
        with self._lock, _readable("CHECK", self.settings.name):
            leases, _ = self._open()
            held = set(leases.held(owner))
            expected = [ip["address"] for ip in previous.get("ips") or [] if ip["address"].split("/")[0] in held]
            if not expected:
                raise _failed(f"container {owner.container} holds no address on {owner.ifname}")
            veth = self._veth(owner)
            link = links.describe_link(self._netlink, veth)
            if link["master"] != links.link_index(self._netlink, self.settings.bridge) or not link["up"]:
                raise _failed(f"link {veth} is not an active port of bridge {self.settings.bridge}")
            if not self._firewall.exists():
                raise _failed(f"the nftables table of bridge {self.settings.bridge} is gone")
            pod = _pod_netlink(request)
            try:
                self._check_pod(pod, request.ifname, expected)
            finally:
                pod.close()

    def _check_pod(self, pod: Netlink, ifname: str, expected: list[str]) -> None:
        link = links.describe_link(pod, ifname)
        if not link["up"]:
            raise _failed(f"interface {ifname} of the pod is down")
        present = links.addresses(pod, link["index"])
        for address in expected:
            if address not in present:
                raise _failed(f"address {address} is missing on {ifname} of the pod")
        if self.settings.default_route:
            routes = {destination for destination, _, oif in links.routes(pod) if oif == link["index"]}
            for address in expected:
                anywhere = "::/0" if ":" in address else "0.0.0.0/0"
                if anywhere not in routes:
                    raise _failed(f"the pod has no default route {anywhere} over {ifname}")

    def collect(self, valid: set[Owner]) -> list[str]:
        """GC: leases, rules and links of whoever is not in `valid`. Returns the container ids (or link names)."""
        with self._lock:
            if self._opened is None and not self._leases_path.exists():
                return []
            leases, _ = self._open()
            stale = sorted(leases.owners() - valid, key=str)
        for owner in stale:
            self._delete(owner)
        keep = {self._veth(owner) for owner in valid}
        with self._lock, _readable("GC", self.settings.name):
            try:
                bridge = links.link_index(self._netlink, self.settings.bridge)
            except NetlinkError:
                return [owner.container for owner in stale]
            lost = [
                link["name"]
                for link in links.links(self._netlink)
                if link["master"] == bridge and links.is_veth_name(link["name"]) and link["name"] not in keep
            ]
            for name in lost:
                self._reaper.remove(name)
        return [owner.container for owner in stale] + lost

    def status(self) -> None:
        """Raises NetworkError (code 50) when an ADD would fail."""
        with self._lock, _readable("STATUS", self.settings.name):
            if self._has_link(self.settings.bridge):
                return
            try:
                Bridge(self.settings, self._netlink, self._firewall, self._open()[0]).refuse_overlap()
            except NetworkError as error:
                error.code = NOT_AVAILABLE
                raise

    def remove(self) -> bool:
        """Takes the network off the host; False when somebody is attached. Idempotent."""
        with self._lock, _readable("remove", self.settings.name):
            leases, bridge = self._open()
            # Nobody, not even another process, may get an address until all is gone.
            with leases.transaction():
                if leases.owners():
                    return False
                bridge.remove()
                leases.unlink()
            leases.close()
            self._opened = None
            return True


def _failed(text: str) -> NetworkError:
    return NetworkError(text, code=_CHECK_FAILED, operation="CHECK", subject="sandbox-network")


@contextmanager
def _readable(operation: str, name: str) -> Iterator[None]:
    """The kernel's refusals become sentences."""
    try:
        yield
    except NetlinkError as error:
        raise NetworkError(
            f"network {name} could not {error}", code=100, operation=operation, subject=error.what
        ) from error
    except (OSError, sqlite3.Error) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise NetworkError(
            f"network {name} could not do {operation}: {reason}", code=5, operation=operation, subject=name
        ) from error


@contextmanager
def _netns_fd(request: Request) -> Iterator[int]:
    if request.netns_fd is not None:
        yield request.netns_fd
        return
    try:
        fd = os.open(request.netns_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _no_netns(request, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _pod_netlink(request: Request) -> Netlink:
    if request.netlink_fd is not None:
        return Netlink(request.netlink_fd)
    try:
        return in_netns(request.netns_path, Netlink)
    except OSError as error:
        raise _no_netns(request, error) from error


def _no_netns(request: Request, error: OSError) -> NetworkError:
    return NetworkError(
        f"network namespace {request.netns_path} cannot be entered: {(error.strerror or str(error)).lower()}",
        code=100,
        operation="enter the pod's network namespace",
        subject=request.netns_path,
    )
