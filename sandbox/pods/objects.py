"""ConfigMaps and Secrets: kept in the store from `apply` until `down`, read whenever a container is made."""

from __future__ import annotations

import base64
import binascii
import difflib
from typing import Any

from sandbox.errors import Conflict, InvalidInput
from sandbox.manifest.dump import to_manifest
from sandbox.pods.kube import ConfigMap, KubeObject, Secret, name_of, namespace_of
from sandbox.pods.record import KIND_OBJECT
from sandbox.store.database import Database

CONFIG_MAP, SECRET = "ConfigMap", "Secret"


def object_id(kind: str, namespace: str, name: str) -> str:
    return f"{kind}/{namespace}/{name}"


def kind_of(thing: KubeObject) -> str:
    return CONFIG_MAP if isinstance(thing, ConfigMap) else SECRET if isinstance(thing, Secret) else "Pod"


class ObjectStore:
    """Reads and writes within the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, thing: KubeObject) -> None:
        """Inserts or replaces. Raises Conflict when the stored one is immutable and this one differs."""
        kind, namespace, name = kind_of(thing), namespace_of(thing), name_of(thing)
        id, body = object_id(kind, namespace, name), to_manifest(thing)
        decoded_data(kind, body)  # refuses what cannot be read later
        stored = self._database.get(KIND_OBJECT, id)
        if stored is not None and stored.get("immutable") and decoded_data(kind, stored) != decoded_data(kind, body):
            raise Conflict(
                f"{kind} {namespace}/{name} is immutable and cannot be changed",
                operation="apply",
                subject=f"{namespace}/{name}",
                hint=f"remove it with `sandbox down`, or give the new {kind} another name",
            )
        self._database.put(KIND_OBJECT, id, body)

    def read(self, kind: str, namespace: str, name: str) -> dict[str, bytes] | None:
        """Key to value, or None when there is no such object."""
        body = self._database.get(KIND_OBJECT, object_id(kind, namespace, name))
        return None if body is None else decoded_data(kind, body)

    def delete(self, kind: str, namespace: str, name: str) -> bool:
        """True when it was there."""
        id = object_id(kind, namespace, name)
        known = self._database.get(KIND_OBJECT, id) is not None
        self._database.delete(KIND_OBJECT, id)
        return known

    def names(self, kind: str, namespace: str) -> list[str]:
        prefix = object_id(kind, namespace, "")
        return [id.removeprefix(prefix) for id, _ in self._database.all(KIND_OBJECT) if id.startswith(prefix)]

    def missing(self, kind: str, namespace: str, name: str, needed_by: str) -> InvalidInput:
        """The error for a reference to nothing, with the nearest known name as its hint."""
        near = difflib.get_close_matches(name, self.names(kind, namespace), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"give the {kind} in the same run, or in one before it"
        return InvalidInput(
            f"{needed_by} refers to {kind} {name!r}, which does not exist in namespace {namespace!r}",
            operation="resolve references",
            subject=name,
            hint=hint,
        )


def missing_key(kind: str, name: str, key: str, data: dict[str, bytes], needed_by: str) -> InvalidInput:
    """The error for a key that the object lacks."""
    near = difflib.get_close_matches(key, data, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"its keys are {', '.join(sorted(data)) or 'none'}"
    return InvalidInput(
        f"{needed_by} refers to key {key!r}, which {kind} {name!r} does not have",
        operation="resolve references",
        subject=f"{name}/{key}",
        hint=hint,
    )


def decoded_data(kind: str, body: dict[str, Any]) -> dict[str, bytes]:
    """Every key with its bytes; a Secret's `stringData` wins over its `data`. Raises InvalidInput on bad base64."""
    plain, coded = ("data", "binaryData") if kind == CONFIG_MAP else ("stringData", "data")
    data: dict[str, bytes] = {}
    for key, value in (body.get(coded) or {}).items():
        try:
            data[key] = base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            name = body["metadata"]["name"]
            raise InvalidInput(
                f"key {key!r} of {kind} {name!r} is not base64", subject=name, hint="text belongs in stringData"
            ) from error
    data.update({key: value.encode() for key, value in (body.get(plain) or {}).items()})
    return data
