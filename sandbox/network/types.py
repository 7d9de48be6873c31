"""What the runtime and the network tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_BIN_DIRS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
DEFAULT_NETWORK = "sandbox"
"""Name of the embedded network."""


@dataclass(frozen=True)
class HostPort:
    """A port of the host that leads to one of the pod. protocol: TCP, UDP or SCTP; empty `host_ip`: every address."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str = "TCP"


@dataclass(frozen=True)
class Attachment:
    """A pod sandbox to be joined to the network. The descriptors stay the caller's.

    `netns_fd` and `netlink_fd` (a NETLINK_ROUTE socket made inside the pod's network namespace) spare the embedded
    network the way through `netns_path`; each may be None.
    """

    pod_sandbox_id: str
    pod_name: str
    pod_namespace: str
    pod_uid: str
    netns_path: str
    netns_fd: int | None = None
    netlink_fd: int | None = None
    port_mappings: tuple[HostPort, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    interface: str = "eth0"


@dataclass(frozen=True)
class NetworkConfig:
    """Where networks are configured, and the embedded one that is used when nothing is.

    `network`: the name of the network to use; empty: the first in `conf_dir`, or the embedded one when there is none;
    "sandbox" is always the embedded one unless `conf_dir` defines a network of that name.
    """

    conf_dir: Path = Path("/etc/cni/net.d")
    bin_dirs: tuple[Path, ...] = DEFAULT_BIN_DIRS
    cache_dir: Path = Path("/var/lib/sandbox/cni")
    network: str = ""
    bridge: str = "sandbox0"
    subnet: str = "10.85.0.0/16"
    subnet6: str = ""
    mtu: int = 0
    plugin_timeout_s: float = 60.0
    in_process: bool = True
    """Run `sandbox-network` inside the daemon rather than as an executable."""


@dataclass(frozen=True)
class NetworkResult:
    """The outcome of ADD. addresses: "10.85.0.5/16"; gateway and routes may be empty; raw: the CNI 1.1.0 result."""

    interface: str
    addresses: tuple[str, ...]
    gateway: str = ""
    routes: tuple[tuple[str, str], ...] = ()
    """(destination, gateway or empty)."""
    dns: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)
