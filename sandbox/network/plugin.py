"""`sandbox-network`: the embedded network as a CNI plugin, executed or called (CNI SPEC.md 1.1 and older)."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from typing import Any

from sandbox.errors import NetworkError, SandboxError
from sandbox.network.embedded.leases import Owner
from sandbox.network.embedded.network import BridgeNetwork
from sandbox.network.embedded.settings import INVALID_ENVIRONMENT, BridgeSettings, Request, parse_settings, refuse
from sandbox.network.versions import (
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    LATEST,
    SUPPORTED,
    convert_result,
    has_check,
    has_gc,
)

PLUGIN_TYPE = "sandbox-network"
_MAX_INPUT_BYTES = 1 << 20
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class EmbeddedPlugin:
    """The plugin without its process: networks stay open between calls. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._networks: dict[BridgeSettings, BridgeNetwork] = {}

    def network(self, config: dict[str, Any]) -> BridgeNetwork:
        """The open network of a configuration. Raises NetworkError (code 7)."""
        settings = parse_settings(config)
        with self._lock:
            found = self._networks.get(settings)
            if found is None:
                found = self._networks[settings] = BridgeNetwork(settings)
            return found

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            for network in self._networks.values():
                network.close()
            self._networks.clear()

    def call(self, command: str, request: Request) -> dict[str, Any] | None:
        """Does one command. Returns what the plugin would print, in the version configured. Raises NetworkError."""
        config = request.config
        version = config.get("cniVersion", "")
        if version not in SUPPORTED:
            raise NetworkError(
                f"the configuration has CNI version {version!r}, known are {', '.join(SUPPORTED)}",
                code=INCOMPATIBLE_VERSION,
                operation=command,
                subject=PLUGIN_TYPE,
            )
        if (command == "CHECK" and not has_check(version)) or (command in ("GC", "STATUS") and not has_gc(version)):
            raise refuse(f"{command} is not part of CNI {version}", INCOMPATIBLE_VERSION)
        if command in ("ADD", "DEL", "CHECK"):
            _check_names(request, command)
        network = self.network(config)
        if command == "ADD":
            return convert_result(network.add(request), version)
        if command == "DEL":
            network.delete(request)
        elif command == "CHECK":
            network.check(request)
        elif command == "STATUS":
            network.status()
        elif command == "GC":
            network.collect(_valid_attachments(config))
        else:
            raise refuse(f"CNI_COMMAND {command!r} is none", INVALID_ENVIRONMENT)
        return None


def _valid_attachments(config: dict[str, Any]) -> set[Owner]:
    entries = config.get("cni.dev/valid-attachments")
    try:
        return {Owner(entry["containerID"], entry["ifname"]) for entry in entries or []}
    except (TypeError, KeyError):
        raise refuse(f"cni.dev/valid-attachments is {entries!r}, not a list of containerID and ifname") from None


def _check_names(request: Request, command: str) -> None:
    if not _CONTAINER_ID.fullmatch(request.container):
        raise refuse(f"CNI_CONTAINERID {request.container!r} is none", INVALID_ENVIRONMENT)
    name = request.ifname
    if not 0 < len(name) < 16 or name in (".", "..") or re.search(r"[/:\s]", name):
        raise refuse(f"CNI_IFNAME {name!r} is none", INVALID_ENVIRONMENT)
    if command != "DEL" and not request.netns_path and request.netns_fd is None:
        raise refuse("CNI_NETNS is missing", INVALID_ENVIRONMENT)


def parse_arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: `KEY=value;KEY=value`."""
    return dict(pair.split("=", 1) for pair in text.split(";") if "=" in pair)


def _read_config() -> dict[str, Any]:
    data = sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
    if len(data) > _MAX_INPUT_BYTES:
        raise refuse(f"the configuration is larger than {_MAX_INPUT_BYTES} bytes", DECODING_FAILURE)
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise refuse(f"the configuration is not JSON: {error}", DECODING_FAILURE) from None
    if not isinstance(config, dict):
        raise refuse("the configuration is not a JSON object", DECODING_FAILURE)
    return config


def _run(environment: dict[str, str]) -> dict[str, Any] | None:
    command = environment.get("CNI_COMMAND", "")
    if command == "VERSION":
        return {"cniVersion": LATEST, "supportedVersions": list(SUPPORTED)}
    request = Request(
        container=environment.get("CNI_CONTAINERID", ""),
        ifname=environment.get("CNI_IFNAME", ""),
        netns_path=environment.get("CNI_NETNS", ""),
        config=_read_config(),
        arguments=parse_arguments(environment.get("CNI_ARGS", "")),
    )
    plugin = EmbeddedPlugin()
    try:
        return plugin.call(command, request)
    finally:
        plugin.close()


def main() -> int:
    """Entry point: environment and stdin in, result or error as JSON on stdout, exit code 0 or 1."""
    try:
        result = _run(dict(os.environ))
    except SandboxError as error:
        document: dict[str, Any] = {
            "cniVersion": LATEST,
            "code": getattr(error, "code", 0) or 999,
            "msg": str(error),
        }
        if error.hint:
            document["details"] = error.hint
        print(json.dumps(document))
        return 1
    if result is not None:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
