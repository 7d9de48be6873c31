"""Network configurations: `*.conflist`, `*.conf` and `*.json` of a directory (CNI SPEC.md section 1)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sandbox.errors import NetworkError
from sandbox.network.types import DEFAULT_NETWORK, NetworkConfig
from sandbox.network.versions import INCOMPATIBLE_VERSION, LATEST, SUPPORTED, highest_common

INVALID_CONFIG = 7
MAX_FILE_BYTES = 1 << 20
MAX_PLUGINS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SUFFIXES = (".conflist", ".conf", ".json")


@dataclass(frozen=True)
class NetworkList:
    """A network: its plugins in order. `versions`: those the configuration allows and this program knows."""

    name: str
    versions: tuple[str, ...]
    plugins: tuple[dict[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False
    source: str = ""

    @property
    def version(self) -> str:
        """The highest allowed version."""
        return highest_common(self.versions) or LATEST

    def at(self, version: str) -> NetworkList:
        """The same, fixed to one version."""
        return replace(self, versions=(version,))

    def to_json(self) -> dict[str, Any]:
        """For the cache; `parse_network` reads it back."""
        return {
            "cniVersion": self.version,
            "cniVersions": list(self.versions),
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "plugins": list(self.plugins),
        }


def _refuse(source: str, text: str, code: int = INVALID_CONFIG) -> NetworkError:
    return NetworkError(
        f"network configuration {source}: {text}", code=code, operation="read a network configuration", subject=source
    )


def _flag(document: dict[str, Any], key: str, source: str) -> bool:
    value = document.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):  # libcni takes the words too
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _refuse(source, f"{key} is {value!r}, neither true nor false")
    return value


def parse_network(document: Any, source: str) -> NetworkList:
    """A conflist, or one plugin's configuration taken as a list of one. Raises NetworkError (codes 1 and 7)."""
    if not isinstance(document, dict):
        raise _refuse(source, "not a JSON object")
    if "plugins" not in document:
        if "type" not in document:
            raise _refuse(source, "neither plugins nor type is there")
        keys = ("cniVersion", "cniVersions", "name")
        document = {**{key: document[key] for key in keys if key in document}, "plugins": [document]}
    name = document.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 200:
        raise _refuse(source, f"name {name!r} is none: letters, digits and . _ - after a letter or digit")
    plugins = document["plugins"]
    if not isinstance(plugins, list) or not 0 < len(plugins) <= MAX_PLUGINS:
        raise _refuse(source, f"plugins is no list of 1 to {MAX_PLUGINS} objects")
    for plugin in plugins:
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind or "\0" in kind or kind in (".", ".."):
            raise _refuse(source, f"plugin type {kind!r} is none")
        if not isinstance(plugin.get("capabilities", {}), dict):
            raise _refuse(source, f"capabilities of plugin {kind} is no object")
    return NetworkList(
        name=name,
        versions=_versions(document, source),
        plugins=tuple(plugins),
        disable_check=_flag(document, "disableCheck", source),
        disable_gc=_flag(document, "disableGC", source),
        source=source,
    )


def _versions(document: dict[str, Any], source: str) -> tuple[str, ...]:
    """cniVersions, else cniVersion; without both the specification means 0.2.0, which nobody here speaks."""
    declared = document.get("cniVersions") or [document.get("cniVersion", "0.2.0")]
    if not isinstance(declared, list) or not all(isinstance(version, str) for version in declared):
        raise _refuse(source, f"cniVersions is {declared!r}, not a list of versions")
    known = tuple(version for version in SUPPORTED if version in declared)
    if not known:
        raise _refuse(
            source,
            f"CNI version {', '.join(declared)} is not supported, known are {', '.join(SUPPORTED)}",
            INCOMPATIBLE_VERSION,
        )
    return known


def _load_json(path: Path) -> Any:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise _refuse(str(path), f"larger than {MAX_FILE_BYTES} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _refuse(str(path), f"not JSON: {error}") from None


def load_file(path: Path) -> NetworkList:
    """Raises NetworkError. A list without `plugins` inlined takes those in the directory named after the network."""
    try:
        document = _load_json(path)
        if isinstance(document, dict) and path.suffix == ".conflist":
            inlined = document.get("plugins") or []
            name = document.get("name")
            if isinstance(name, str) and _NAME.fullmatch(name) and isinstance(inlined, list):
                extra = []
                if not _flag(document, "loadOnlyInlinedPlugins", str(path)):
                    extra = [_load_json(file) for file in sorted((path.parent / name).glob("*.conf"))[:MAX_PLUGINS]]
                document = {**document, "plugins": inlined + extra}
        return parse_network(document, str(path))
    except OSError as error:
        raise _refuse(str(path), f"cannot be read: {(error.strerror or str(error)).lower()}") from error


def load_directory(directory: Path) -> tuple[list[NetworkList], list[NetworkError]]:
    """(networks in order of file name, what is wrong with the other files). No directory: no networks."""
    networks: list[NetworkList] = []
    errors: list[NetworkError] = []
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    for path in files:
        try:
            networks.append(load_file(path))
        except NetworkError as error:
            errors.append(error)
    return networks, errors


def embedded_network(config: NetworkConfig) -> NetworkList:
    """The network that needs nothing installed."""
    ranges = [[{"subnet": subnet}] for subnet in (config.subnet, config.subnet6) if subnet]
    plugin: dict[str, Any] = {
        "type": "sandbox-network",
        "bridge": config.bridge,
        "ranges": ranges,
        "dataDir": str(config.cache_dir / "networks"),
        "capabilities": {"portMappings": True, "ips": True, "mac": True},
    }
    if config.mtu:
        plugin["mtu"] = config.mtu
    return parse_network({"cniVersion": LATEST, "name": DEFAULT_NETWORK, "plugins": [plugin]}, "the embedded network")


def choose_network(config: NetworkConfig) -> NetworkList:
    """The network that pods join now. Raises NetworkError when the named one is missing or files are broken."""
    networks, errors = load_directory(config.conf_dir)
    if config.network:
        for network in networks:
            if network.name == config.network:
                return network
        if config.network == DEFAULT_NETWORK:
            return embedded_network(config)
        raise errors[0] if errors else _refuse(str(config.conf_dir), f"no network is named {config.network}")
    if networks:
        return networks[0]
    if errors:
        # A broken file must not silently put pods on another network.
        raise errors[0]
    return embedded_network(config)
