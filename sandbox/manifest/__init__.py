"""YAML to typed, defaulted, validated objects; errors with line and column.

`load_manifests` is the door. The room is a leaf: it knows no runtime, no store and no host. Names are imported when
they are first used, so that the CLI can write YAML without loading the Kubernetes classes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.manifest.dump import to_manifest
    from sandbox.manifest.load import Manifests, from_manifest, load_manifests
    from sandbox.manifest.models import ConfigMap, KubeObject, Pod, Secret
    from sandbox.manifest.problems import Finding
    from sandbox.manifest.quantity import parse_bytes, parse_milli, parse_quantity
    from sandbox.manifest.reference import Reference, references
    from sandbox.manifest.support import notes
    from sandbox.manifest.yaml_text import to_yaml

__all__ = [
    "ConfigMap",
    "Finding",
    "KubeObject",
    "Manifests",
    "Pod",
    "Reference",
    "Secret",
    "from_manifest",
    "load_manifests",
    "notes",
    "parse_bytes",
    "parse_milli",
    "parse_quantity",
    "references",
    "to_manifest",
    "to_yaml",
]

_MODULES = {
    "dump": ("to_manifest",),
    "load": ("Manifests", "from_manifest", "load_manifests"),
    "models": ("ConfigMap", "KubeObject", "Pod", "Secret"),
    "problems": ("Finding",),
    "quantity": ("parse_bytes", "parse_milli", "parse_quantity"),
    "reference": ("Reference", "references"),
    "support": ("notes",),
    "yaml_text": ("to_yaml",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
