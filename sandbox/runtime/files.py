"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a pod: made once, bound into every container."""

from __future__ import annotations

from pathlib import Path

from sandbox.runtime.config import DNSConfig, Mount, NamespaceMode, PodSandboxConfig

_LOCAL = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)
MOUNTS = (("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf"))
_HOST_RESOLV_CONF = Path("/etc/resolv.conf")
_MAX_RESOLV_CONF_BYTES = 64 << 10


def hosts_text(config: PodSandboxConfig, addresses: tuple[str, ...]) -> str:
    """The hosts file: the local names, the pod's own, then its aliases."""
    name = config.hostname or config.metadata.name
    lines = list(_LOCAL)
    lines += [f"{address.split('/')[0]}\t{name}" for address in addresses]
    if config.host_aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += [f"{address}\t" + "\t".join(names) for address, names in config.host_aliases]
    return "\n".join(lines) + "\n"


def resolv_conf_text(dns: DNSConfig) -> str:
    """The resolver's configuration; the host's own file when the pod asks for nothing."""
    if dns == DNSConfig():
        try:
            with _HOST_RESOLV_CONF.open("rb") as file:
                return file.read(_MAX_RESOLV_CONF_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
    lines = [f"nameserver {server}" for server in dns.servers]
    if dns.searches:
        lines.append("search " + " ".join(dns.searches))
    if dns.options:
        lines.append("options " + " ".join(dns.options))
    return "\n".join(lines) + "\n"


def write_pod_files(directory: Path, config: PodSandboxConfig, addresses: tuple[str, ...], hostname: str) -> None:
    """Writes the three files (0644). With the host's network its own hosts file is copied. Idempotent."""
    if config.namespaces.network is NamespaceMode.NODE:
        hosts = _host_hosts() or hosts_text(config, ())
    else:
        hosts = hosts_text(config, addresses)
    contents = {"hosts": hosts, "hostname": hostname + "\n", "resolv.conf": resolv_conf_text(config.dns)}
    for name, text in contents.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)


def pod_file_mounts(directory: Path, taken: frozenset[str], readonly: bool) -> tuple[Mount, ...]:
    """Mounts of the three files, but for those the container mounts itself. Read-only where the root is."""
    return tuple(
        Mount(target, str(directory / name), readonly=readonly) for name, target in MOUNTS if target not in taken
    )


def _host_hosts() -> str:
    try:
        with Path("/etc/hosts").open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
