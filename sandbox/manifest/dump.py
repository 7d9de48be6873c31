"""Typed Kubernetes objects back to plain JSON: what `-o json` and `-o yaml` print."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sandbox.manifest.models import Model
from sandbox.manifest.schema import json_name


def to_manifest(obj: Model) -> dict[str, Any]:
    """The object as JSON has it: camel case, nothing that is None, times as `2026-01-31T12:00:00Z`.

    apiVersion, kind and metadata come first, as people write them. The result shares no list or dict with `obj`.
    """
    values = _dump_object(obj)
    head = {name: values.pop(name) for name in ("apiVersion", "kind", "metadata") if name in values}
    return head | values


_known_names: dict[type[Model], tuple[tuple[str, str], ...]] = {}


def _names(cls: type[Model]) -> tuple[tuple[str, str], ...]:
    names = _known_names.get(cls)
    if names is None:
        names = tuple((attribute, json_name(cls, attribute)[0]) for attribute in cls.__annotations__)
        _known_names[cls] = names
    return names


def _dump_object(obj: Model) -> dict[str, Any]:
    values = obj.__dict__
    result = {}
    for attribute, name in _names(type(obj)):
        value = values.get(attribute)
        if value is not None:
            result[name] = value if type(value) in (str, int, bool) else _dump(value)
    return result


def _dump(value: Any) -> Any:
    if isinstance(value, Model):
        return _dump_object(value)
    if isinstance(value, list | tuple):
        return [_dump(item) for item in value]
    if isinstance(value, dict):
        return {key: _dump(item) for key, item in value.items()}
    if isinstance(value, datetime):
        utc = value.astimezone(UTC)
        text = utc.strftime("%Y-%m-%dT%H:%M:%S")
        return text + (f".{utc.microsecond:06d}Z" if utc.microsecond else "Z")
    return value
