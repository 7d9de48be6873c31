"""The Kubernetes object classes, from the `lightkube-models` package (generated from Kubernetes' OpenAPI schema).

That package leaves three names to its host, `lightkube.core.schema.{dataclass, field, DictMixin}`. The host it was
written for is a cluster client with an HTTP stack of its own, which nothing here needs, so this module provides
them. Ours are lazy: a class becomes a real dataclass when it is first used as one. Turning all of its 230 classes
into dataclasses at import costs 45 ms; a pod needs about twenty.

Import the models from here (`from sandbox.manifest.models import core_v1`), never from `lightkube` directly.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")


def _materialise(cls: type) -> None:
    """Make `cls` the dataclass that its annotations describe. Idempotent."""
    if "__dataclass_fields__" not in cls.__dict__:
        dataclasses.dataclass(cls)


class _LazyFields:
    """Stands for `__dataclass_fields__` until somebody asks for it (`dataclasses.fields`, `replace`, `asdict`)."""

    def __get__(self, instance: object, owner: type) -> Any:
        if owner is Model:
            return None  # `dataclass` looks at the bases of the class it makes: this one has no fields
        _materialise(owner)
        return owner.__dict__["__dataclass_fields__"]


class Model:
    """Base of every Kubernetes object class. A subclass is a plain dataclass from its first use on."""

    __dataclass_fields__ = _LazyFields()
    __hash__ = None  # type: ignore[assignment]  # mutable, as dataclasses are

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _materialise(type(self))  # gives the class its own __init__, __eq__ and __repr__
        type(self).__init__(self, *args, **kwargs)

    def __eq__(self, other: object) -> Any:
        _materialise(type(self))
        return type(self).__eq__(self, other)

    def __repr__(self) -> str:
        _materialise(type(self))
        return type(self).__repr__(self)


def _identity(cls: type[T]) -> type[T]:
    return cls


def _import_models() -> None:
    """Import the models' base module with our three names in the place where it looks for them."""
    schema = types.ModuleType("lightkube.core.schema")
    schema.__dict__.update(dataclass=_identity, field=dataclasses.field, DictMixin=Model)
    provided = {"lightkube.core": types.ModuleType("lightkube.core"), "lightkube.core.schema": schema}
    before = {name: sys.modules.get(name) for name in provided}
    sys.modules.update(provided)
    try:
        importlib.import_module("lightkube.models._schema")
    finally:  # leave no trace for whoever uses the real client in this process
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


if not TYPE_CHECKING:
    _import_models()

from lightkube.models import core_v1, meta_v1  # noqa: E402

ConfigMap = core_v1.ConfigMap
Pod = core_v1.Pod
Secret = core_v1.Secret

KubeObject = core_v1.Pod | core_v1.ConfigMap | core_v1.Secret
"""What this release can load from a manifest."""

__all__ = ["ConfigMap", "KubeObject", "Model", "Pod", "Secret", "core_v1", "meta_v1"]
