"""What an administrator decides once for all pods of a daemon."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path


def default_host_ip() -> str:
    """The address the host would use towards the world; 127.0.0.1 without a route. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@dataclass(frozen=True)
class PodSettings:
    """`root` and `run_dir` are the daemon's; the back-off values are the kubelet's."""

    root: Path
    run_dir: Path
    backoff_base_s: float = 10.0
    backoff_max_s: float = 300.0
    backoff_reset_s: float = 600.0
    """A container that ran this long after its last restart starts over with the smallest delay."""
    teardown_retry_s: float = 1.0
    """First delay before a failed teardown is tried again; doubles up to `teardown_retry_max_s`."""
    teardown_retry_max_s: float = 60.0
    host_ip: str = field(default_factory=default_host_ip)
    node_name: str = field(default_factory=lambda: os.uname().nodename)
    resolv_conf: Path = Path("/etc/resolv.conf")
    pod_pids_limit: int | None = None
    """Processes a pod may have; None: as many as the host allows."""
    unified_cgroups: bool = False
    """The host has cgroup v2 alone: an out-of-memory kill ends the whole container."""

    @property
    def seccomp_directory(self) -> Path:
        """Where `localhostProfile` paths start."""
        return self.root / "seccomp"

    @property
    def logs_directory(self) -> Path:
        return self.root / "logs"

    def volumes_directory(self, uid: str) -> Path:
        """Volumes of a pod that live on disk. Not below the pod sandbox: they outlive a lost one."""
        return self.root / "volumes" / uid

    def memory_volumes_directory(self, uid: str) -> Path:
        """Volumes of a pod that live in memory: mount points of tmpfs, gone with a boot."""
        return self.run_dir / "volumes" / uid

    def log_directory(self, namespace: str, name: str, uid: str) -> Path:
        """As the kubelet names it."""
        return self.logs_directory / f"{namespace}_{name}_{uid}"
