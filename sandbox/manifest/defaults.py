"""Kubernetes' own defaults (`pkg/apis/core/v1/defaults.go`), filled in where a manifest says nothing."""

from __future__ import annotations

import base64
import secrets
from typing import Any

from sandbox.manifest.models import ConfigMap, KubeObject, Pod, Secret, core_v1, meta_v1

DEFAULT_NAMESPACE = "default"
_GENERATED_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # as in Kubernetes: no vowels, nothing that looks alike


def apply_defaults(obj: KubeObject, namespace: str = DEFAULT_NAMESPACE) -> None:
    """Fill in `obj`, in place. Idempotent, except that a generateName without a name makes a name."""
    if obj.metadata is None:
        obj.metadata = meta_v1.ObjectMeta()
    metadata = obj.metadata
    metadata.namespace = metadata.namespace or namespace
    if metadata.generateName and not metadata.name:
        metadata.name = metadata.generateName[:58] + "".join(secrets.choice(_GENERATED_ALPHABET) for _ in range(5))
    if isinstance(obj, Secret):
        _default_secret(obj)
    elif isinstance(obj, Pod) and obj.spec is not None:
        _default_pod_spec(obj.spec)
    else:
        assert isinstance(obj, ConfigMap | Pod)


def _default(obj: Any, **values: Any) -> None:
    for name, value in values.items():
        if getattr(obj, name) is None:
            setattr(obj, name, value)


def _default_secret(secret: Secret) -> None:
    """stringData is for writing only: it ends up in data, where it wins."""
    _default(secret, type="Opaque")
    if secret.stringData:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in secret.stringData.items()}
        secret.data = (secret.data or {}) | encoded
    secret.stringData = None


def _default_pod_spec(spec: core_v1.PodSpec) -> None:
    _default(
        spec,
        dnsPolicy="ClusterFirst",
        restartPolicy="Always",
        schedulerName="default-scheduler",
        terminationGracePeriodSeconds=30,
        enableServiceLinks=True,
    )
    if spec.securityContext is None:
        spec.securityContext = core_v1.PodSecurityContext()
    for volume in spec.volumes or []:
        _default_volume(volume)
    for container in (*(spec.initContainers or []), *(spec.containers or [])):
        _default_container(container, host_network=bool(spec.hostNetwork))


def _default_volume(volume: core_v1.Volume) -> None:
    sources = (name for name in core_v1.Volume.__annotations__ if name != "name")
    if all(getattr(volume, name) is None for name in sources):
        volume.emptyDir = core_v1.EmptyDirVolumeSource()
    if volume.configMap is not None:
        _default(volume.configMap, defaultMode=0o644)
    if volume.secret is not None:
        _default(volume.secret, defaultMode=0o644)
    if volume.hostPath is not None:
        _default(volume.hostPath, type="")


def _default_container(container: core_v1.Container, *, host_network: bool) -> None:
    _default(
        container,
        imagePullPolicy="Always" if _is_latest(container.image or "") else "IfNotPresent",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
    )
    if container.resources is None:
        container.resources = core_v1.ResourceRequirements()
    resources = container.resources
    if resources.limits:
        resources.requests = resources.limits | (resources.requests or {})
    for port in container.ports or []:
        _default(port, protocol="TCP")
        if host_network and not port.hostPort:
            port.hostPort = port.containerPort
    for variable in container.env or []:
        source = variable.valueFrom
        if source is not None and source.fieldRef is not None:
            _default(source.fieldRef, apiVersion="v1")


def _is_latest(image: str) -> bool:
    """Whether an image reference has the tag `latest`, which it also has without any tag or digest."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag == "latest" or (not tag and not digest)
