"""The fields of the Kubernetes classes as decoders, read from the type annotations of the models.

An annotation such as `Optional[List[EnvVar]]` is read as text, once a class and only when an object of that class is
decoded: `typing.get_type_hints` takes a millisecond a class, and a pod touches some twenty classes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import Field
from typing import Any

from sandbox.manifest.models import Model
from sandbox.manifest.nodes import Node, Path
from sandbox.manifest.problems import Problems

Decoder = Callable[[Node, Path, Problems], Any]
"""Turns a node into a value, or reports a problem and returns None. Never called for null."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


QUANTITY_MAPS = _words(
    "limits requests overhead capacity allocatable allocated hard used min max default defaultRequest "
    "maxLimitRequestRatio allocatedResources"
)
"""`map[string]Quantity` fields; the models only say `dict`."""

BYTES_MAPS = frozenset({("Secret", "data"), ("ConfigMap", "binaryData")})
"""`map[string][]byte` fields: base64 in the manifest."""

INT64_FIELDS = _words(
    "terminationGracePeriodSeconds activeDeadlineSeconds runAsUser runAsGroup fsGroup supplementalGroups generation "
    "deletionGracePeriodSeconds expirationSeconds tolerationSeconds observedGeneration seconds"
)
"""Integers of 64 bits; the others have 32."""

SERVER_FIELDS = frozenset(
    {("Pod", "status"), ("ObjectMeta", "managedFields"), ("ObjectMeta", "selfLink"), ("ObjectMeta", "uid")}
    | {("ObjectMeta", "resourceVersion"), ("ObjectMeta", "generation"), ("ObjectMeta", "creationTimestamp")}
    | {("ObjectMeta", "deletionTimestamp"), ("ObjectMeta", "deletionGracePeriodSeconds")}
)
"""What an API server writes itself and ignores in a manifest, so that the output of `-o yaml` can be applied again."""


class FieldSchema:
    """One field: the attribute of the class, how to decode it, whether it must be given."""

    __slots__ = ("attribute", "by_server", "decode", "name", "required")

    def __init__(self, name: str, attribute: str, decode: Decoder, required: bool, by_server: bool) -> None:
        self.name = name
        self.attribute = attribute
        self.decode = decode
        self.required = required
        self.by_server = by_server


class ClassSchema:
    """The fields of a class by their JSON names, and what an object has before anything is decoded."""

    __slots__ = ("blank", "cls", "fields", "required")

    def __init__(self, cls: type[Model], fields: dict[str, FieldSchema]) -> None:
        self.cls = cls
        self.fields = fields
        self.required = tuple(field.name for field in fields.values() if field.required)
        self.blank: dict[str, Any] = {field.attribute: None for field in fields.values()}


_LIST = re.compile(r"List\[(.+)\]")
_OPTIONAL = re.compile(r"Optional\[(.+)\]")


_schemas: dict[type[Model], ClassSchema] = {}


def schema_of(cls: type[Model]) -> ClassSchema:
    """The schema of a class of the models. Made once."""
    schema = _schemas.get(cls)
    if schema is None:
        schema = _schemas[cls] = _make_schema(cls)
    return schema


def _make_schema(cls: type[Model]) -> ClassSchema:
    from sandbox.manifest import decode  # the decoders need schemas in turn

    fields: dict[str, FieldSchema] = {}
    for attribute, annotation in cls.__annotations__.items():
        name, required = json_name(cls, attribute)
        optional = _OPTIONAL.fullmatch(annotation)
        decoder = decode.decoder_for(cls, name, optional[1] if optional else annotation)
        fields[name] = FieldSchema(name, attribute, decoder, required, (cls.__name__, name) in SERVER_FIELDS)
    return ClassSchema(cls, fields)


def json_name(cls: type[Model], attribute: str) -> tuple[str, bool]:
    """The name of a field in JSON (`continue_` is `continue`), and whether it must be given."""
    if attribute not in cls.__dict__:
        return attribute, True
    default = cls.__dict__[attribute]
    if isinstance(default, Field):  # not yet made a dataclass
        return str(default.metadata.get("json", attribute)), False
    fields = cls.__dict__.get("__dataclass_fields__", {})
    if attribute in fields:
        return str(fields[attribute].metadata.get("json", attribute)), False
    return attribute, False


def list_item(annotation: str) -> str:
    """`X` of `List[X]`, or an empty string."""
    match = _LIST.fullmatch(annotation)
    return match[1] if match else ""


def resolve_class(cls: type[Model], annotation: str) -> Any:
    """What a name in an annotation of `cls` (`EnvVar`, `meta_v1.Time`) stands for."""
    target: Any = sys.modules[cls.__module__]
    for part in annotation.split("."):
        target = getattr(target, part)
    return target
