"""Network namespaces for tests: a host of one's own, pods, and a world beyond the host.

`isolated_host()` moves the calling thread (and with it every child process) into a new network namespace, so that
bridges, rules and sysctls of a test never touch the machine. Nothing is pinned: what a test forgets dies with its
descriptors.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sandbox.linux.netns import in_netns, in_thread, setns_network, unshare_network

T = TypeVar("T")


class Namespace:
    """An empty network namespace with lo up. `path` works from any process as long as the object is open."""

    def __init__(self) -> None:
        self.fd, self.netlink_fd = in_thread(_make)
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Idempotent; afterwards `path` leads nowhere."""
        for fd in (self.fd, self.netlink_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.netlink_fd = -1

    def call(self, function: Callable[[], T]) -> T:
        """Runs `function` inside; a socket that it returns stays inside."""
        return in_netns(self.path, function)

    def run(self, *command: str) -> str:
        """Runs a command inside and returns what it printed; fails when it fails."""
        return run("nsenter", f"--net={self.path}", *command)

    def listen(self, port: int, host: str = "0.0.0.0") -> socket.socket:
        """A listening TCP socket inside."""
        return self.call(lambda: _listen(host, port))

    def connect(self, host: str, port: int, timeout: float = 3) -> socket.socket:
        """A TCP connection from inside."""
        return self.call(lambda: socket.create_connection((host, port), timeout))


def _make() -> tuple[int, int]:
    unshare_network()
    run("ip", "link", "set", "lo", "up")
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    return fd, netlink.detach()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    listener.settimeout(3)
    return listener


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


@contextmanager
def isolated_host() -> Iterator[None]:
    """The calling thread has a network namespace of its own until the end of the block."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare_network()
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        setns_network(before)
        os.close(before)


@contextmanager
def world(address: str = "198.51.100.2/24", host_address: str = "198.51.100.1/24") -> Iterator[Namespace]:
    """A machine beyond the host, joined by a cable; it has no route to any pod."""
    beyond = Namespace()
    try:
        run("ip", "link", "add", "uplink0", "type", "veth", "peer", "name", "eth0", "netns", beyond.path)
        run("ip", "addr", "add", host_address, "dev", "uplink0")
        run("ip", "link", "set", "uplink0", "up")
        beyond.run("ip", "addr", "add", address, "dev", "eth0")
        beyond.run("ip", "link", "set", "eth0", "up")
        yield beyond
    finally:
        beyond.close()


def host_objects() -> dict[str, list[str]]:
    """Links, addresses, routes and nftables tables of the caller's namespace, to be compared before and after."""
    return {
        "links": sorted(line.split()[0].split("@")[0] for line in run("ip", "-br", "link").splitlines()),
        "addresses": sorted(run("ip", "-br", "addr").split()),
        "routes": run("ip", "route").splitlines(),
        "rules": run("nft", "list", "ruleset").splitlines(),
    }
