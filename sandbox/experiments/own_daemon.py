"""A daemon of one's own for a demonstration: its directories, bridge, subnet and cgroups are nobody else's."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from pathlib import Path

from sandbox.cli.client import Client, target
from sandbox.daemon.config import Config
from sandbox.daemon.launch import start_daemon
from sandbox.daemon.process import read_pid
from sandbox.errors import DeadlineExceeded, NetworkError, SandboxError

STOP_TIMEOUT_S = 30.0
SUBNETS = IPv4Network("10.64.0.0/10")
SUBNET_PREFIX = 24


def own_config(base: Config, back_off_s: float) -> Config:
    """`base` moved out of everyone's way: next to its directories, so on the same file systems. Makes nothing."""
    tag = secrets.token_hex(3)
    root = base.root.with_name(f"{base.root.name}-demo-{tag}")
    return replace(
        base,
        root=root,
        run_dir=base.run_dir.with_name(f"{base.run_dir.name}-demo-{tag}"),
        cgroup_parent=f"{base.cgroup_parent}-demo-{tag}",
        network="sandbox",
        cni_conf_dir=root / "cni-conf",  # empty: the embedded network, whatever the host has configured
        bridge=f"sbdemo-{tag}",
        subnet=str(free_subnet(Path("/proc/net/route").read_text(encoding="ascii"), int(tag, 16))),
        subnet6="",
        back_off_initial_s=back_off_s,
        back_off_max_s=max(base.back_off_max_s, back_off_s),
    )


def free_subnet(routes: str, start: int) -> IPv4Network:
    """A subnet that no route of `routes` (/proc/net/route) leads to, looked for from the `start`-th on.

    Raises NetworkError when there is none.
    """
    taken = [network for network in map(_route, routes.splitlines()[1:]) if network is not None]
    step = 1 << (32 - SUBNET_PREFIX)
    count = SUBNETS.num_addresses // step
    first = int(SUBNETS.network_address)
    for n in range(start, start + count):
        candidate = IPv4Network((first + n % count * step, SUBNET_PREFIX))
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise NetworkError(f"routes of this host lead everywhere in {SUBNETS}", operation="find a subnet")


def _route(line: str) -> IPv4Network | None:
    """The destination of one line; None for the default route and for what is no route."""
    fields = line.split()
    if len(fields) < 8:
        return None
    address, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
    network = ip_network((address, mask.bit_count()), strict=False)
    assert isinstance(network, IPv4Network)
    return network if network.prefixlen else None


class OwnDaemon:
    """Started, killed and started again at will; `remove` takes it and everything it made off the host."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.client = Client(str(config.socket_path))

    @property
    def pid(self) -> int:
        """As its lock file tells; 0 when none runs."""
        return read_pid(self.config.pid_path) or 0

    def start(self) -> int:
        """Returns its pid once it serves. Raises DaemonUnavailable."""
        return start_daemon(self.config)

    def ensure(self) -> None:
        """Returns when it answers; starts it when it was killed. One that is just starting is waited for."""
        if not self.client.answers():
            self.start()

    def kill(self) -> int:
        """SIGKILL; returns the pid when the process is gone. Raises SandboxError when none runs."""
        pid = self.pid
        if not pid:
            raise SandboxError("the daemon does not run", operation="kill the daemon", subject=str(self.config.run_dir))
        pidfd = os.pidfd_open(pid)
        try:
            if self.pid != pid:
                raise SandboxError(f"the daemon with pid {pid} has gone by itself", operation="kill the daemon")
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _await_end(pidfd, pid)
        finally:
            os.close(pidfd)
        return pid

    def remove(self) -> None:
        """Stops it and removes bridge, cgroups and directories; its pods must be gone. Idempotent.

        Starts it again when it was killed: only a daemon can tidy up. What fails leaves the directories, and says so.
        """
        if not self.config.root.exists():
            return
        self.ensure()
        pid = self.pid
        pidfd = os.pidfd_open(pid)
        try:
            self.client.call("POST", target("v1", "shutdown"), {"clean": True})
            _await_end(pidfd, pid)
        finally:
            os.close(pidfd)
        for directory in (self.config.root, self.config.run_dir):
            with suppress(FileNotFoundError):
                shutil.rmtree(directory)


def _await_end(pidfd: int, pid: int) -> None:
    ended, _, _ = select.select([pidfd], [], [], STOP_TIMEOUT_S)
    if not ended:
        raise DeadlineExceeded(f"the daemon with pid {pid} has not ended within {STOP_TIMEOUT_S:g} s")
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # ours when we started it: no zombie
