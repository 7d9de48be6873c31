"""The configuration of one embedded network, and one request to it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.errors import NetworkError
from sandbox.network.embedded.ranges import INVALID_CONFIG, IPAddress, Range, parse_ranges

DEFAULT_DATA_DIR = Path("/var/lib/cni/sandbox-network")
INVALID_ENVIRONMENT = 4
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PROTOCOLS = ("tcp", "udp", "sctp")


def refuse(text: str, code: int = INVALID_CONFIG) -> NetworkError:
    return NetworkError(text, code=code, operation="read the network's configuration", subject="sandbox-network")


@dataclass(frozen=True)
class BridgeSettings:
    """What the configuration says, checked."""

    name: str
    bridge: str
    sets: tuple[tuple[Range, ...], ...]
    mtu: int = 0
    default_route: bool = True
    routes: tuple[tuple[str, str], ...] = ()
    """Further routes of the pod: (destination, gateway; empty: the network's)."""
    masquerade: bool = True
    hairpin: bool = True
    data_dir: Path = DEFAULT_DATA_DIR

    @property
    def owner(self) -> str:
        """Alias of the bridge: whose it is."""
        return f"sandbox-network {self.name} {self.data_dir}"[:255]


def parse_settings(config: dict[str, Any]) -> BridgeSettings:
    """Raises NetworkError (code 7) with the key and the value that are wrong."""
    name, bridge = config.get("name", ""), config.get("bridge", "sandbox0")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 200:
        raise refuse(f"network name {name!r} is none")
    if not isinstance(bridge, str) or not _NAME.fullmatch(bridge) or len(bridge) > 15:
        raise refuse(f"bridge {bridge!r} is no interface name of up to 15 characters")
    mtu = config.get("mtu", 0)
    if not isinstance(mtu, int) or isinstance(mtu, bool) or not (mtu == 0 or 68 <= mtu <= 65535):
        raise refuse(f"mtu {mtu!r} is not between 68 and 65535")
    flags = {}
    for key, default in (("isDefaultGateway", True), ("ipMasq", True), ("hairpinMode", True)):
        flags[key] = config.get(key, default)
        if not isinstance(flags[key], bool):
            raise refuse(f"{key} {flags[key]!r} is neither true nor false")
    data_dir = config.get("dataDir", str(DEFAULT_DATA_DIR))
    if not isinstance(data_dir, str) or not data_dir.startswith("/"):
        raise refuse(f"dataDir {data_dir!r} is no absolute path")
    return BridgeSettings(
        name=name,
        bridge=bridge,
        sets=parse_ranges(config),
        mtu=mtu,
        default_route=flags["isDefaultGateway"],
        routes=_routes(config.get("routes") or []),
        masquerade=flags["ipMasq"],
        hairpin=flags["hairpinMode"],
        data_dir=Path(data_dir),
    )


def _routes(entries: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(entries, list):
        raise refuse("routes is no list")
    found = []
    for entry in entries:
        try:
            destination = ipaddress.ip_network(entry["dst"])
            gateway = str(ipaddress.ip_address(entry["gw"])) if entry.get("gw") else ""
        except (KeyError, TypeError, ValueError, AttributeError):
            raise refuse(f"route {entry!r} is none: it needs dst in CIDR notation") from None
        found.append((str(destination), gateway))
    return tuple(found)


@dataclass(frozen=True)
class PortMapping:
    """One element of the capability portMappings. protocol in lower case; `host_address` empty: every address."""

    host_port: int
    port: int
    protocol: str
    host_address: str

    @property
    def families(self) -> tuple[int, ...]:
        return (ipaddress.ip_address(self.host_address).version,) if self.host_address else (4, 6)


@dataclass(frozen=True)
class Request:
    """One command for one attachment. The descriptors are the caller's."""

    container: str
    ifname: str
    netns_path: str
    config: dict[str, Any]
    arguments: dict[str, str] = field(default_factory=dict)
    netns_fd: int | None = None
    netlink_fd: int | None = None

    @property
    def runtime_config(self) -> dict[str, Any]:
        found = self.config.get("runtimeConfig") or {}
        if not isinstance(found, dict):
            raise refuse("runtimeConfig is no object")
        return found

    def port_mappings(self) -> list[PortMapping]:
        """Those with a host port. Raises NetworkError (code 7)."""
        found = []
        for entry in self.runtime_config.get("portMappings") or []:
            try:
                host_port, port = entry.get("hostPort", 0), entry.get("containerPort", 0)
                protocol, address = str(entry.get("protocol") or "tcp").lower(), entry.get("hostIP") or ""
                ip = ipaddress.ip_address(address) if address else None
            except (AttributeError, ValueError):
                raise refuse(f"port mapping {entry!r} is none") from None
            if host_port == 0:
                continue
            if not all(isinstance(n, int) and 0 < n < 65536 for n in (host_port, port)) or protocol not in _PROTOCOLS:
                raise refuse(f"port mapping {entry!r} is none: ports are 1 to 65535, protocols {', '.join(_PROTOCOLS)}")
            found.append(PortMapping(host_port, port, protocol, "" if ip is None or ip.is_unspecified else str(ip)))
        return found

    def wanted_addresses(self) -> list[IPAddress]:
        """Of the capability ips, or CNI_ARGS IP=. Raises NetworkError (code 7)."""
        texts = self.runtime_config.get("ips") or [t for t in self.arguments.get("IP", "").split(",") if t]
        try:
            return [ipaddress.ip_interface(text).ip for text in texts]
        except (TypeError, ValueError):
            raise refuse(f"requested addresses {texts!r} are none") from None

    def wanted_mac(self) -> str:
        """Of the capability mac; empty: none. Raises NetworkError (code 7)."""
        mac = self.runtime_config.get("mac") or ""
        if mac and not re.fullmatch(r"(?i)[0-9a-f]{2}(:[0-9a-f]{2}){5}", str(mac)):
            raise refuse(f"hardware address {mac!r} is none")
        return str(mac).lower()
