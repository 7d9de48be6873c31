"""Node graphs to typed Kubernetes objects, strictly: an unknown field or a wrong type is a problem with its place."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

from sandbox.errors import InvalidInput
from sandbox.manifest.kinds import nearest
from sandbox.manifest.models import Model
from sandbox.manifest.nodes import Kind, Node, Path, describe, quote
from sandbox.manifest.problems import Problems
from sandbox.manifest.quantity import parse_quantity
from sandbox.manifest.schema import (
    BYTES_MAPS,
    INT64_FIELDS,
    QUANTITY_MAPS,
    Decoder,
    list_item,
    resolve_class,
    schema_of,
)


def decode_object(cls: type[Model], node: Node, path: Path, problems: Problems) -> Any:
    """An instance of `cls`. Fields that are wrong are reported and left None."""
    if node.kind is not Kind.MAP:
        problems.at(node, path, f"expected a mapping with the fields of {cls.__name__}, got {describe(node)}")
        return None
    schema = schema_of(cls)
    values = schema.blank.copy()
    for name, entry in node.entries.items():
        field = schema.fields.get(name)
        if field is None:
            _unknown_field(cls, entry.key, (*path, name), list(schema.fields), problems)
        elif entry.value.is_null() or (field.by_server and not problems.keep_server_fields):
            continue
        else:
            values[field.attribute] = field.decode(entry.value, (*path, name), problems)
    for name in schema.required:
        value = node.get(name)
        if value is None or value.is_null():
            problems.at(node, (*path, name), f"missing, it is required in {cls.__name__}")
    instance = object.__new__(cls)
    instance.__dict__.update(values)  # what __init__ would do, without making the class a dataclass first
    return instance


def _unknown_field(cls: type[Model], key: Node, path: Path, known: list[str], problems: Problems) -> None:
    guess = nearest(key.text, known)
    if guess:
        problems.at(key, path, f'unknown field of {cls.__name__}, did you mean "{guess}"?')
        return
    shown = sorted(known)
    listed = ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
    problems.at(key, path, f"unknown field of {cls.__name__}, which has {listed}")


def decoder_for(cls: type[Model], name: str, annotation: str) -> Decoder:
    """The decoder of field `name` of `cls`, whose annotation is `annotation` without its Optional."""
    item = list_item(annotation)
    if item:
        return _list_of(decoder_for(cls, name, item), item)
    if annotation == "dict":
        if (cls.__name__, name) in BYTES_MAPS:
            return _map_of(_base64)
        return _map_of(_quantity if name in QUANTITY_MAPS else _string)
    if annotation == "int":
        return _int64 if name in INT64_FIELDS else _int32
    simple = _SIMPLE.get(annotation.rpartition(".")[2])
    if simple is not None:
        return simple
    target = resolve_class(cls, annotation)
    if not (isinstance(target, type) and issubclass(target, Model)):
        return _any
    return _object_of(target)


def _object_of(target: type[Model]) -> Decoder:
    return lambda node, path, problems: decode_object(target, node, path, problems)


def _list_of(decode: Decoder, item: str) -> Decoder:
    expected = {"str": "strings", "int": "integers"}.get(item, item.rpartition(".")[2] + " mappings")

    def decode_list(node: Node, path: Path, problems: Problems) -> list[Any] | None:
        if node.kind is not Kind.LIST:
            problems.at(node, path, f"expected a list of {expected}, got {describe(node)}")
            return None
        values = []
        for index, child in enumerate(node.items):
            if child.is_null():
                problems.at(child, (*path, index), f"expected one of a list of {expected}, got null")
            else:
                values.append(decode(child, (*path, index), problems))
        return values

    return decode_list


def _map_of(decode: Decoder) -> Decoder:
    def decode_map(node: Node, path: Path, problems: Problems) -> dict[str, Any] | None:
        if node.kind is not Kind.MAP:
            problems.at(node, path, f"expected a mapping, got {describe(node)}")
            return None
        values = {}
        for key, entry in node.entries.items():
            if not entry.value.is_null():
                values[key] = decode(entry.value, (*path, key), problems)
            else:
                values[key] = ""  # as Go decodes null into a string
        return values

    return decode_map


def _string(node: Node, path: Path, problems: Problems) -> str | None:
    value = node.value
    if type(value) is str:
        return value
    hint = ""
    message = f"expected a string, got {describe(node)}"
    if node.kind is Kind.SCALAR and node.plain:
        message += f", write it in quotes: {quote(node.text, 40)}"
        if isinstance(value, bool):
            hint = "y, yes, on, n, no and off are booleans in Kubernetes' YAML"
    problems.at(node, path, message, hint)
    return None


def _bool(node: Node, path: Path, problems: Problems) -> bool | None:
    value = node.value
    if type(value) is bool:
        return value
    problems.at(node, path, f"expected true or false, got {describe(node)}")
    return None


def _integer(bits: int) -> Decoder:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def decode_integer(node: Node, path: Path, problems: Problems) -> int | None:
        value = node.value
        if type(value) is float and value.is_integer():  # `1.0` and `08` are written as the integers they are
            value = int(value)
        if type(value) is not int:
            problems.at(node, path, f"expected an integer, got {describe(node)}")
            return None
        if not low <= value <= high:
            problems.at(node, path, f"expected an integer of {bits} bits, got {node.text[:40]}")
            return None
        return value

    return decode_integer


_int32 = _integer(32)
_int64 = _integer(64)


def _float(node: Node, path: Path, problems: Problems) -> float | None:
    if type(node.value) in (int, float):
        return float(node.value)
    problems.at(node, path, f"expected a number, got {describe(node)}")
    return None


def _int_or_string(node: Node, path: Path, problems: Problems) -> int | str | None:
    if type(node.value) is str:
        return node.scalar if isinstance(node.scalar, str) else None
    if node.kind is not Kind.SCALAR or type(node.value) not in (int, float):
        problems.at(node, path, f"expected an integer or a string, got {describe(node)}")
        return None
    value: int | None = _int32(node, path, problems)
    return value


def _quantity(node: Node, path: Path, problems: Problems) -> str | None:
    """Kept as text; a number is written out as JSON does."""
    value = node.value
    if type(value) in (int, float):
        text = repr(value).removesuffix(".0") if type(value) is float else str(value)
    elif type(value) is str:
        text = value
    else:
        problems.at(node, path, f'expected a quantity such as "500m" or "1.5Gi", got {describe(node)}')
        return None
    try:
        parse_quantity(text)
    except InvalidInput as error:
        problems.at(node, path, error.message)
        return None
    return text


def _base64(node: Node, path: Path, problems: Problems) -> str | None:
    text = _string(node, path, problems)
    if text is None:
        return None
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        hint = "stringData takes the text itself" if path[:1] == ("data",) else ""
        problems.at(node, path, f"expected base64, got {describe(node)}", hint)
        return None
    return text


def _time(node: Node, path: Path, problems: Problems) -> datetime | None:
    text = _string(node, path, problems)
    if text is None:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        value = None
    if value is None or value.tzinfo is None:
        problems.at(node, path, f"expected a time such as 2026-01-31T12:00:00Z, got {describe(node)}")
        return None
    return value


def _any(node: Node, path: Path, problems: Problems) -> Any:
    """Free-form JSON."""
    if node.kind is Kind.SCALAR:
        return node.value
    if node.kind is Kind.LIST:
        return [_any(child, path, problems) for child in node.items]
    return {key: _any(entry.value, path, problems) for key, entry in node.entries.items()}


_SIMPLE: dict[str, Decoder] = {
    "str": _string,
    "bool": _bool,
    "float": _float,
    "Quantity": _quantity,
    "IntOrString": _int_or_string,
    "Time": _time,
    "MicroTime": _time,
    "RawExtension": _any,
    "FieldsV1": _any,
}
