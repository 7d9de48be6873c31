"""The Kubernetes models this room uses, and a validated pod without the schema's optional everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.manifest.dump import to_manifest
from sandbox.manifest.load import from_manifest
from sandbox.manifest.models import ConfigMap, KubeObject, Pod, Secret, core_v1
from sandbox.manifest.nodes import Path

Container = core_v1.Container

__all__ = ["ConfigMap", "Container", "KubeObject", "Path", "Pod", "PodManifest", "Secret", "name_of", "namespace_of"]


def name_of(thing: KubeObject) -> str:
    return (thing.metadata.name if thing.metadata else None) or ""


def namespace_of(thing: KubeObject) -> str:
    return (thing.metadata.namespace if thing.metadata else None) or "default"


@dataclass(frozen=True)
class PodManifest:
    """A pod that `load_manifests` gave: defaulted and valid. Nobody changes it."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: core_v1.PodSpec
    source: Pod

    @classmethod
    def of(cls, pod: Pod) -> PodManifest:
        assert pod.spec is not None and pod.metadata is not None
        metadata = pod.metadata
        return cls(namespace_of(pod), name_of(pod), metadata.labels or {}, metadata.annotations or {}, pod.spec, pod)

    @classmethod
    def from_json(cls, manifest: dict[str, Any]) -> PodManifest:
        """The inverse of `to_json`, for a manifest that was validated before it was stored."""
        pod = from_manifest(manifest)
        assert isinstance(pod, Pod), manifest.get("kind")
        return cls.of(pod)

    def to_json(self) -> dict[str, Any]:
        return to_manifest(self.source)

    @property
    def located(self) -> list[tuple[Path, Container]]:
        """`containers`, each with where it stands in the manifest."""
        fields = (("initContainers", self.spec.initContainers or ()), ("containers", self.spec.containers))
        return [(("spec", field, n), container) for field, some in fields for n, container in enumerate(some)]

    @property
    def containers(self) -> list[Container]:
        """Init containers, then app containers, in the order in which they start."""
        return [*(self.spec.initContainers or ()), *self.spec.containers]
