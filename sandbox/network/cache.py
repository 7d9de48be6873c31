"""What DEL needs to know of an ADD, one JSON file an attachment.

It is written before the first plugin runs and again after the last.

A file that a power cut left empty says whose it is by its name; DEL then goes by today's configuration.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.errors import NetworkError
from sandbox.network.conf import NetworkList, parse_network

_KIND = "sandbox/attachment.v1"
_NAME = re.compile(r"(?P<container>[A-Za-z0-9][A-Za-z0-9_.-]*)@(?P<ifname>[^/]{1,15})\.json")


@dataclass(frozen=True)
class CachedAttachment:
    """`network` None: the file could not be read. `result` None: ADD did not end."""

    container: str
    ifname: str
    network: NetworkList | None = None
    netns_path: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    capabilities: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None


class AttachmentCache:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, container: str, ifname: str) -> Path:
        name = f"{container}@{ifname}.json"
        if not _NAME.fullmatch(name) or len(name) > 250:
            raise NetworkError(f"container id {container!r} or interface {ifname!r} is none", code=4, operation="cache")
        return self._directory / name

    def save(self, entry: CachedAttachment) -> None:
        """Replaces the file in one step. Raises NetworkError."""
        assert entry.network is not None
        document = {
            "kind": _KIND,
            "containerID": entry.container,
            "ifName": entry.ifname,
            "netns": entry.netns_path,
            "cniArgs": entry.arguments,
            "capabilityArgs": entry.capabilities,
            "config": entry.network.to_json(),
            "result": entry.result,
        }
        path = self._path(entry.container, entry.ifname)
        temporary = path.with_suffix(".tmp")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(temporary, "w", opener=_private) as file:
                json.dump(document, file)
            temporary.replace(path)
        except OSError as error:
            raise NetworkError(
                f"the network cache {path} cannot be written: {(error.strerror or str(error)).lower()}",
                code=5,
                operation="write the network cache",
                subject=str(path),
            ) from error

    def load(self, container: str, ifname: str) -> CachedAttachment | None:
        """None: there is none."""
        path = self._path(container, ifname)
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, OSError, RecursionError):
            return CachedAttachment(container, ifname)
        try:
            result = document["result"]
            return CachedAttachment(
                container,
                ifname,
                parse_network(document["config"], str(path)),
                str(document["netns"]),
                {str(k): str(v) for k, v in document["cniArgs"].items()},
                dict(document["capabilityArgs"]),
                dict(result) if result is not None else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError, NetworkError):
            return CachedAttachment(container, ifname)

    def remove(self, container: str, ifname: str) -> None:
        """Idempotent."""
        self._path(container, ifname).unlink(missing_ok=True)

    def entries(self) -> Iterator[tuple[str, str]]:
        """(container, ifname) of every file; half-written temporaries of a crash are swept."""
        if not self._directory.is_dir():
            return
        for path in sorted(self._directory.iterdir()):
            if path.suffix == ".tmp":
                path.unlink(missing_ok=True)
            elif match := _NAME.fullmatch(path.name):
                yield match["container"], match["ifname"]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
