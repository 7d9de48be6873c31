"""YAML to typed, defaulted, validated objects; errors with line and column.

`load_manifests` is the door. The room is a leaf: it knows no runtime, no store and no host.
"""

from sandbox.manifest.dump import to_manifest
from sandbox.manifest.load import from_manifest, load_manifests
from sandbox.manifest.models import ConfigMap, KubeObject, Pod, Secret
from sandbox.manifest.quantity import parse_bytes, parse_milli, parse_quantity
from sandbox.manifest.references import Reference, references
from sandbox.manifest.support import notes

__all__ = [
    "ConfigMap",
    "KubeObject",
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
]
