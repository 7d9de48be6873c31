"""The runtime's side of the CNI: ADD, DEL, CHECK, GC and STATUS of a whole network (CNI SPEC.md sections 2 to 5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sandbox.errors import NetworkError, SandboxError
from sandbox.network.cache import AttachmentCache, CachedAttachment
from sandbox.network.conf import NetworkList
from sandbox.network.embedded.settings import Request
from sandbox.network.exec import find_plugin, run_plugin
from sandbox.network.plugin import PLUGIN_TYPE, EmbeddedPlugin
from sandbox.network.types import NetworkConfig
from sandbox.network.versions import (
    INCOMPATIBLE_VERSION,
    LATEST,
    convert_result,
    has_check,
    has_gc,
    highest_common,
    parse_result,
)

P = ParamSpec("P")
T = TypeVar("T")
_DEL_WORKERS = 16


@dataclass(frozen=True)
class Invocation:
    """One attachment as the plugins see it. The descriptors are the caller's and only for the embedded plugin."""

    container: str
    ifname: str
    netns_path: str
    arguments: dict[str, str] = field(default_factory=dict)
    """CNI_ARGS."""
    capabilities: dict[str, Any] = field(default_factory=dict)
    """What runtimeConfig may hold; a plugin gets of it what it declares."""
    netns_fd: int | None = None
    netlink_fd: int | None = None


class CniClient:
    """Serialises the commands of one container; GC excludes ADD and DEL."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self.cache = AttachmentCache(config.cache_dir / "results")
        self.embedded = EmbeddedPlugin()
        # ADDs take turns: they end within a few milliseconds. DELs wait for the kernel, many at once.
        self._add_worker = ThreadPoolExecutor(1, "network-add")
        self._del_workers = ThreadPoolExecutor(_DEL_WORKERS, "network-del")
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._gate = _Gate()
        self._known_versions: dict[tuple[str, int], list[str]] = {}

    def close(self) -> None:
        """Idempotent. Nothing may be under way."""
        self._add_worker.shutdown()
        self._del_workers.shutdown()
        self.embedded.close()

    async def add(self, network: NetworkList, call: Invocation) -> dict[str, Any]:
        """ADD in order. Returns the result in version 1.1.0. A failed ADD is followed by DEL. Raises NetworkError."""
        async with self._gate.shared(), self._exclusive(call.container):
            before = self.cache.load(call.container, call.ifname)
            if before is not None and before.result is not None:
                raise NetworkError(
                    f"pod sandbox {call.container} has interface {call.ifname} in a network already",
                    code=100,
                    operation="ADD",
                    subject=network.name,
                    hint="DEL comes before a second ADD",
                )
            network = network.at(await self._agree_version(network))
            entry = CachedAttachment(
                call.container, call.ifname, network, call.netns_path, call.arguments, call.capabilities
            )
            # Written first: whatever dies from here on, DEL knows what may have been made.
            self.cache.save(entry)
            try:
                result: dict[str, Any] | None = None
                for plugin in network.plugins:
                    config = self._config_for(network, plugin, call, result)
                    answer = await self._invoke("ADD", plugin, config, call)
                    subject = f"CNI plugin {plugin['type']}"
                    result = convert_result(parse_result(answer, subject), network.version)
                assert result is not None
                self.cache.save(replace(entry, result=result))
            except BaseException as error:
                await self._clean_up(network, call, error)
                raise
            return convert_result(result, LATEST)

    async def _clean_up(self, network: NetworkList, call: Invocation, cause: BaseException) -> None:
        """DEL after a failed ADD, also when the caller was cancelled. Its own failure is kept for the next DEL."""
        try:
            await asyncio.shield(self._delete_all(network, call, None))
        except SandboxError as error:
            if isinstance(cause, NetworkError):
                cause.hint = "; ".join(part for part in (cause.hint, f"cleaning up failed too: {error}") if part)
        else:
            self.cache.remove(call.container, call.ifname)

    async def delete(self, network: NetworkList | None, call: Invocation) -> None:
        """DEL in reverse with the configuration and the result of ADD, from the cache. Idempotent.

        `network` is used where the cache holds nothing readable; None: then there is nothing to do. Every plugin is
        run, also after one failed; the first NetworkError is raised and the cache kept, so that DEL can be repeated.
        """
        async with self._gate.shared(), self._exclusive(call.container):
            entry = self.cache.load(call.container, call.ifname)
            result = None
            if entry is not None and entry.network is not None:
                network, result = entry.network, entry.result
                call = replace(
                    call,
                    netns_path=call.netns_path or entry.netns_path,
                    arguments=entry.arguments,
                    capabilities=entry.capabilities,
                )
            if network is not None:
                await self._delete_all(network, call, result)
            self.cache.remove(call.container, call.ifname)

    async def _delete_all(self, network: NetworkList, call: Invocation, result: dict[str, Any] | None) -> None:
        # A plugin that is handed a path that is gone may fail; the specification lets the runtime leave it out.
        if not Path(call.netns_path).exists():
            call = replace(call, netns_path="")
        failure: NetworkError | None = None
        for plugin in reversed(network.plugins):
            try:
                await self._invoke("DEL", plugin, self._config_for(network, plugin, call, result), call)
            except NetworkError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def check(self, call: Invocation) -> None:
        """CHECK in order with the final result. Raises NetworkError; also when there was no ADD."""
        async with self._gate.shared(), self._exclusive(call.container):
            entry = self.cache.load(call.container, call.ifname)
            if entry is None or entry.network is None or entry.result is None:
                raise NetworkError(
                    f"pod sandbox {call.container} has no interface {call.ifname} in a network",
                    code=3,
                    operation="CHECK",
                    subject=call.container,
                )
            if entry.network.disable_check or not has_check(entry.network.version):
                return
            call = replace(
                call,
                netns_path=call.netns_path or entry.netns_path,
                arguments=entry.arguments,
                capabilities=entry.capabilities,
            )
            for plugin in entry.network.plugins:
                config = self._config_for(entry.network, plugin, call, entry.result)
                await self._invoke("CHECK", plugin, config, call)

    async def collect(self, network: NetworkList, valid: Iterable[tuple[str, str]]) -> None:
        """GC of a network whose valid attachments are (container, ifname). Nothing below version 1.1.0."""
        async with self._gate.exclusive():
            version = await self._agree_version(network)
            if network.disable_gc or not has_gc(version):
                return
            attachments = [{"containerID": container, "ifname": ifname} for container, ifname in valid]
            await self._for_all("GC", network.at(version), {"cni.dev/valid-attachments": attachments})

    async def status(self, network: NetworkList) -> None:
        """STATUS of every plugin. Raises NetworkError (codes 50, 51) when an ADD would fail."""
        version = await self._agree_version(network)
        if has_gc(version):
            await self._for_all("STATUS", network.at(version), {})

    async def _for_all(self, command: str, network: NetworkList, extra: dict[str, Any]) -> None:
        call = Invocation("", "", "")
        failure: NetworkError | None = None
        for plugin in network.plugins:
            config = {**self._config_for(network, plugin, call, None), **extra}
            try:
                await self._invoke(command, plugin, config, call)
            except NetworkError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def is_embedded(self, plugin: dict[str, Any]) -> bool:
        return self._config.in_process and plugin["type"] == PLUGIN_TYPE

    def _config_for(
        self, network: NetworkList, plugin: dict[str, Any], call: Invocation, previous: dict[str, Any] | None
    ) -> dict[str, Any]:
        """What the plugin reads: its part of the list, name, version, prevResult and runtimeConfig."""
        config = {key: value for key, value in plugin.items() if key not in ("capabilities", "cniVersions")}
        config["name"] = network.name
        config["cniVersion"] = network.version
        declared = plugin.get("capabilities") or {}
        supplied = {key: value for key, value in call.capabilities.items() if declared.get(key) is True}
        if supplied:
            config["runtimeConfig"] = supplied
        if previous is not None:
            config["prevResult"] = convert_result(previous, network.version)
        return config

    async def _invoke(self, command: str, plugin: dict[str, Any], config: dict[str, Any], call: Invocation) -> Any:
        if self.is_embedded(plugin):
            request = Request(
                call.container,
                call.ifname,
                call.netns_path,
                config,
                call.arguments,
                call.netns_fd,
                call.netlink_fd,
            )
            pool = self._del_workers if command in ("DEL", "GC") else self._add_worker
            return await self._in_thread(pool, self.embedded.call, command, request)
        environment = {
            "CNI_COMMAND": command,
            "CNI_PATH": ":".join(str(directory) for directory in self._config.bin_dirs),
        }
        if command in ("ADD", "DEL", "CHECK"):
            environment["CNI_CONTAINERID"] = call.container
            environment["CNI_NETNS"] = call.netns_path
            environment["CNI_IFNAME"] = call.ifname
            environment["CNI_ARGS"] = ";".join(f"{key}={value}" for key, value in call.arguments.items())
        path = find_plugin(plugin["type"], self._config.bin_dirs)
        return await run_plugin(path, environment, json.dumps(config).encode(), self._config.plugin_timeout_s)

    async def run(self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Calls `function` in one of the threads for slow work."""
        return await self._in_thread(self._del_workers, function, *arguments, **keywords)

    async def _in_thread(
        self, pool: ThreadPoolExecutor, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """A thread cannot be cancelled: a cancelled caller waits for its end, so that no undo overtakes it."""
        work = asyncio.get_running_loop().run_in_executor(pool, partial(function, *arguments, **keywords))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()
            raise

    async def _agree_version(self, network: NetworkList) -> str:
        """The highest version that the configuration, this program and, where there is a choice, every plugin know."""
        if len(network.versions) == 1:
            return network.version
        sides = [await self._versions_of(plugin) for plugin in network.plugins if not self.is_embedded(plugin)]
        version = highest_common(network.versions, *sides)
        if version is None:
            raise NetworkError(
                f"the plugins of network {network.name} know none of its CNI versions {', '.join(network.versions)}",
                code=INCOMPATIBLE_VERSION,
                operation="VERSION",
                subject=network.name,
            )
        return version

    async def _versions_of(self, plugin: dict[str, Any]) -> list[str]:
        path = find_plugin(plugin["type"], self._config.bin_dirs)
        key = str(path), path.stat().st_mtime_ns
        if key not in self._known_versions:
            environment = {"CNI_COMMAND": "VERSION"}
            config = json.dumps({"cniVersion": LATEST}).encode()
            answer = await run_plugin(path, environment, config, self._config.plugin_timeout_s)
            found = answer.get("supportedVersions") if isinstance(answer, dict) else None
            self._known_versions[key] = [v for v in found or [] if isinstance(v, str)]
        return self._known_versions[key]

    @asynccontextmanager
    async def _exclusive(self, container: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(container) or (asyncio.Lock(), 0)
        self._locks[container] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[container]
            if users == 1:
                del self._locks[container]
            else:
                self._locks[container] = lock, users - 1


class _Gate:
    """Many shared holders or one exclusive; who waits for the exclusive hold keeps new shared holders out."""

    def __init__(self) -> None:
        self._condition = asyncio.Condition()
        self._shared = 0
        self._exclusive = False

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._condition:
            await self._condition.wait_for(lambda: not self._exclusive)
            self._shared += 1
        try:
            yield
        finally:
            async with self._condition:
                self._shared -= 1
                self._condition.notify_all()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        async with self._condition:
            await self._condition.wait_for(lambda: not self._exclusive)
            self._exclusive = True
        try:
            async with self._condition:
                await self._condition.wait_for(lambda: self._shared == 0)
            yield
        finally:
            async with self._condition:
                self._exclusive = False
                self._condition.notify_all()
