"""What a pod's resolver is told: `dnsPolicy` and `dnsConfig`, as the kubelet combines them.

There is no cluster DNS on a single host, so ClusterFirst means the host's own servers, which is what the kubelet falls
back to when it has none.
"""

from __future__ import annotations

from pathlib import Path

from sandbox.pods.kube import PodManifest
from sandbox.runtime.config import DNSConfig

MAX_SERVERS, MAX_SEARCHES = 3, 32
_MAX_FILE_BYTES = 64 << 10


def pod_dns(pod: PodManifest, resolv_conf: Path) -> DNSConfig:
    """Empty when the pod gets the host's file as it is."""
    extra = pod.spec.dnsConfig
    base = DNSConfig() if pod.spec.dnsPolicy == "None" or extra is None else read_resolv_conf(resolv_conf)
    if extra is None:
        return base
    servers = _unique([*base.servers, *(extra.nameservers or ())])
    searches = _unique([*base.searches, *(extra.searches or ())])
    options = {option.partition(":")[0]: option for option in base.options}
    for option in extra.options or ():
        if option.name:
            options[option.name] = option.name if option.value is None else f"{option.name}:{option.value}"
    return DNSConfig(tuple(servers[:MAX_SERVERS]), tuple(searches[:MAX_SEARCHES]), tuple(options.values()))


def read_resolv_conf(path: Path) -> DNSConfig:
    """The three lines that matter (resolv.conf(5)); a missing file says nothing."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return DNSConfig()
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = words[1:]  # the last one wins
        elif words[0] == "options":
            options += words[1:]
    return DNSConfig(tuple(servers), tuple(searches), tuple(options))


def _unique(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))
