"""The network room's door: joins pod sandboxes to the configured network and takes them out again."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

from sandbox.errors import InvalidInput, NetworkError
from sandbox.network.client import CniClient, Invocation
from sandbox.network.conf import NetworkList, choose_network, embedded_network, load_directory
from sandbox.network.embedded.network import BridgeNetwork
from sandbox.network.exec import find_plugin
from sandbox.network.types import Attachment, HostPort, NetworkConfig, NetworkResult

__all__ = ["Attachment", "HostPort", "NetworkConfig", "NetworkManager", "NetworkResult"]

logger = logging.getLogger(__name__)

_RECONCILE_AT_ONCE = 8
_BANDWIDTH = {"kubernetes.io/ingress-bandwidth": "ingress", "kubernetes.io/egress-bandwidth": "egress"}
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class NetworkManager:
    """Used from one event loop. Sockets are made in the network namespace of the daemon at first use."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._client = CniClient(config)

    def close(self) -> None:
        """Leaves every pod as it is. Idempotent."""
        self._client.close()

    async def setup(self, attachment: Attachment) -> NetworkResult:
        """CNI ADD. A failed ADD is followed by DEL. Raises NetworkError."""
        network = choose_network(self._config)
        raw = await self._client.add(network, _invocation(attachment))
        return summarise(raw, attachment.interface)

    async def teardown(self, attachment: Attachment | str) -> None:
        """CNI DEL of an attachment, or of all that the cache knows of a pod sandbox id. Idempotent.

        Deleting a veth pair takes the kernel some 20 ms, in a thread: await it beside other work. Raises NetworkError;
        what could not be undone is kept in the cache for the next call.
        """
        if isinstance(attachment, Attachment):
            calls = [_invocation(attachment)]
        else:
            calls = [
                Invocation(container, ifname, "")
                for container, ifname in self._client.cache.entries()
                if container == attachment
            ]
        failure: NetworkError | None = None
        for call in calls:
            try:
                await self._client.delete(self._fallback(isinstance(attachment, Attachment)), call)
            except NetworkError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _fallback(self, attached: bool) -> NetworkList | None:
        """For a cache file that is missing or cannot be read: today's configuration, else the embedded network."""
        try:
            return choose_network(self._config)
        except NetworkError:
            return embedded_network(self._config) if attached else None

    async def check(self, attachment: Attachment) -> None:
        """CNI CHECK. Raises NetworkError with the first difference."""
        await self._client.check(_invocation(attachment))

    async def reconcile(self, live_ids: set[str]) -> list[str]:
        """After a restart: DEL for every cached attachment of nobody, then GC. Returns what was taken down.

        One that fails does not hold up the others; it stays in the cache for the next time.
        """
        networks: dict[str, NetworkList] = {}
        valid: list[tuple[str, str]] = []
        stale: list[tuple[str, str]] = []
        for container, ifname in self._client.cache.entries():
            entry = self._client.cache.load(container, ifname)
            if entry is not None and entry.network is not None:
                networks.setdefault(entry.network.name, entry.network)
            (valid if container in live_ids else stale).append((container, ifname))
        turns = asyncio.Semaphore(_RECONCILE_AT_ONCE)

        async def delete(container: str, ifname: str) -> bool:
            async with turns:
                try:
                    await self._client.delete(self._fallback(True), Invocation(container, ifname, ""))
                except NetworkError as error:
                    logger.warning("network of pod sandbox %s was not taken down: %s", container, error)
                    return False
                return True

        done = await asyncio.gather(*(delete(*key) for key in stale))
        valid += [key for key, gone in zip(stale, done, strict=True) if not gone]
        for network in (self._fallback(True), embedded_network(self._config)):
            if network is not None:
                networks.setdefault(network.name, network)
        for network in networks.values():
            if any(self._is_ours_alone(plugin) for plugin in network.plugins):
                try:
                    await self._client.collect(network, valid)
                except NetworkError as error:
                    logger.warning("network %s was not cleaned: %s", network.name, error)
        return [container for (container, _), gone in zip(stale, done, strict=True) if gone]

    def _is_ours_alone(self, plugin: dict[str, Any]) -> bool:
        """GC takes from everyone it does not know: nobody else has leases in a directory of ours."""
        data_dir = Path(str(plugin.get("dataDir", "/")))
        return self._client.is_embedded(plugin) and data_dir.is_relative_to(self._config.cache_dir)

    def status(self) -> None:
        """Raises NetworkError when no network can be used: a broken file, a plugin that is not installed."""
        network = choose_network(self._config)
        for plugin in network.plugins:
            if not self._client.is_embedded(plugin):
                find_plugin(plugin["type"], self._config.bin_dirs)

    async def plugin_status(self) -> None:
        """CNI STATUS: `status`, and what the plugins say of themselves. Raises NetworkError (codes 50, 51)."""
        self.status()
        await self._client.status(choose_network(self._config))

    def network_name(self) -> str:
        """The network that pods join now. Raises NetworkError."""
        return choose_network(self._config).name

    async def remove_unused(self) -> list[str]:
        """Takes embedded networks without pods off the host: bridge, rules, forwarding, leases. Returns the bridges."""
        networks, _ = load_directory(self._config.conf_dir)
        removed = []
        for network in [*networks, embedded_network(self._config)]:
            for plugin in network.plugins:
                if self._client.is_embedded(plugin):
                    config = {**plugin, "name": network.name}
                    bridge = await self._client.run(_remove, self._client.embedded.network(config))
                    if bridge:
                        removed.append(bridge)
        return removed


def _remove(network: BridgeNetwork) -> str:
    return network.settings.bridge if network.remove() else ""


def _invocation(attachment: Attachment) -> Invocation:
    capabilities: dict[str, Any] = {}
    if attachment.port_mappings:
        capabilities["portMappings"] = [
            {
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.lower(),
                **({"hostIP": port.host_ip} if port.host_ip else {}),
            }
            for port in attachment.port_mappings
        ]
    if bandwidth := _bandwidth(dict(attachment.annotations)):
        capabilities["bandwidth"] = bandwidth
    if attachment.annotations:
        capabilities["io.kubernetes.cri.pod-annotations"] = dict(attachment.annotations)
    return Invocation(
        attachment.pod_sandbox_id,
        attachment.interface,
        attachment.netns_path,
        {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": attachment.pod_namespace,
            "K8S_POD_NAME": attachment.pod_name,
            "K8S_POD_INFRA_CONTAINER_ID": attachment.pod_sandbox_id,
            "K8S_POD_UID": attachment.pod_uid,
        },
        capabilities,
        attachment.netns_fd,
        attachment.netlink_fd,
    )


def _bandwidth(annotations: dict[str, str]) -> dict[str, int]:
    """The capability bandwidth (bits a second) of the annotations that the kubelet's users know."""
    found: dict[str, int] = {}
    for key, direction in _BANDWIDTH.items():
        if key not in annotations:
            continue
        match = re.fullmatch(r"(\d{1,15})(|k|M|G|T|Ki|Mi|Gi|Ti)", annotations[key])
        if not match:
            raise InvalidInput(f"annotation {key} is {annotations[key]!r}, not a rate such as 10M", subject=key)
        rate = int(match[1]) * _SUFFIXES[match[2]]
        found[f"{direction}Rate"] = rate
        # A burst of zero lets nothing through; the largest that the plugin takes does not bound.
        found[f"{direction}Burst"] = 2**31 - 1
    return found


def summarise(raw: dict[str, Any], ifname: str) -> NetworkResult:
    """A CNI 1.1.0 result as the runtime wants it: only the addresses of the pod's own interface."""
    interfaces = raw.get("interfaces") or []
    own = {i for i, entry in enumerate(interfaces) if entry.get("sandbox") and entry.get("name") == ifname}
    ips = [ip for ip in raw.get("ips") or [] if "interface" not in ip or ip["interface"] in own]
    return NetworkResult(
        interface=ifname,
        addresses=tuple(ip["address"] for ip in ips),
        gateway=next((ip["gateway"] for ip in ips if ip.get("gateway")), ""),
        routes=tuple((route["dst"], route.get("gw") or "") for route in raw.get("routes") or []),
        dns=raw.get("dns") or {},
        raw=raw,
    )
