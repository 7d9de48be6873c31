"""What is checked before a pod is stored, and what a new pod's record starts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.errors import ImageNotFound, InvalidInput
from sandbox.pods.kube import PodManifest
from sandbox.pods.ports import ImageResolver
from sandbox.pods.record import APP, INIT, SIDECAR, ContainerRecord
from sandbox.pods.translate import Translator
from sandbox.pods.volumes import Volumes
from sandbox.runtime.config import ContainerConfig, PodSandboxConfig

NO_UID = "00000000-0000-0000-0000-000000000000"
"""Of a pod that is only looked at."""


@dataclass(frozen=True)
class Preview:
    """What the runtime would be asked for. Nothing of it exists: volumes are at the paths they would have."""

    namespace: str
    name: str
    sandbox: PodSandboxConfig
    containers: tuple[ContainerConfig, ...]
    """Init containers first, in the order in which they run."""


def preview_pod(translator: Translator, volumes: Volumes, pod: PodManifest) -> Preview:
    """Raises InvalidInput for anything of the pod that cannot be had: a reference, a host path, a limit."""
    volumes.check(pod)
    containers = [
        translator.container_config(pod, NO_UID, container, make_sub_paths=False) for container in pod.containers
    ]
    sandbox = translator.sandbox_config(pod, NO_UID)
    return Preview(pod.namespace, pod.name, sandbox, tuple(containers))


def check_pod(translator: Translator, volumes: Volumes, pod: PodManifest) -> None:
    """As `preview_pod`."""
    preview_pod(translator, volumes, pod)


def check_images(pods: Sequence[PodManifest], resolve: ImageResolver) -> None:
    """Every image is there. Raises InvalidInput with what the image store knows of similar names."""
    for pod in pods:
        for container in pod.containers:
            try:
                resolve(container.image or "")
            except ImageNotFound as error:
                raise InvalidInput(
                    f"container {container.name!r} of pod {pod.namespace}/{pod.name}: {error}",
                    operation="resolve image",
                    subject=container.image or "",
                    hint=error.hint,
                ) from error


def container_records(pod: PodManifest) -> tuple[ContainerRecord, ...]:
    inits = [
        ContainerRecord(c.name, SIDECAR if c.restartPolicy == "Always" else INIT) for c in pod.spec.initContainers or ()
    ]
    return (*inits, *(ContainerRecord(c.name, APP) for c in pod.spec.containers))
