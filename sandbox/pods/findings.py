"""What this host has against a valid pod, each thing at its place in the manifest, before anything of it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from sandbox.cgroups.annotations import keys_for
from sandbox.errors import ImageNotFound, InvalidInput
from sandbox.manifest import Finding
from sandbox.pods import limits
from sandbox.pods.admission import NO_UID
from sandbox.pods.kube import Container, Path, PodManifest
from sandbox.pods.ports import ImageResolver, RuntimePort
from sandbox.pods.translate import Translator
from sandbox.pods.volumes import Volumes

Step = tuple[Path, Callable[[], object]]
"""Where to point at, and what raises InvalidInput when something is wrong there."""

VOLUME_KINDS = ("hostPath", "configMap", "secret", "emptyDir")


@dataclass(frozen=True)
class HostCheck:
    """Asks everybody who would refuse the pod later, in the order in which they would."""

    runtime: RuntimePort
    translator: Translator
    volumes: Volumes
    resolve_image: ImageResolver

    def findings(self, pod: PodManifest) -> list[Finding]:
        found = list(_attempt(pod, self._pod_steps(pod)))
        for path, container in pod.located:
            own = list(_attempt(pod, self._container_steps(pod, path, container)))
            if not own and not found:  # else it would say the same again
                own = list(_attempt(pod, [(path, partial(self._plan, pod, container))]))
            found += own
        return found

    def _pod_steps(self, pod: PodManifest) -> Iterator[Step]:
        for number, volume in enumerate(pod.spec.volumes or ()):
            kind = next((k for k in VOLUME_KINDS if getattr(volume, k) is not None), "name")
            yield ("spec", "volumes", number, kind), partial(self.volumes.check_one, pod, volume)
        yield ("spec",), lambda: self.runtime.sandbox_plan(self.translator.sandbox_config(pod, NO_UID))

    def _container_steps(self, pod: PodManifest, path: Path, container: Container) -> Iterator[Step]:
        yield (*path, "image"), partial(self.resolve_image, container.image or "")
        yield (*path, "resources"), partial(self._check_limits, replace(pod, annotations={}), container)
        for key in keys_for(pod.annotations, container.name):
            alone = replace(pod, annotations={key: pod.annotations[key]})
            yield ("metadata", "annotations", key), partial(self._check_limits, alone, container)

    def _check_limits(self, pod: PodManifest, container: Container) -> None:
        self.runtime.check_limits(limits.container_resources(pod, container, self.translator.settings))

    def _plan(self, pod: PodManifest, container: Container) -> None:
        config = self.translator.container_config(pod, NO_UID, container, make_sub_paths=False)
        self.runtime.container_plan(self.translator.sandbox_config(pod, NO_UID), config)


def _attempt(pod: PodManifest, steps: Iterator[Step] | list[Step]) -> Iterator[Finding]:
    for path, step in steps:
        try:
            step()
        except (InvalidInput, ImageNotFound) as error:
            message = str(error)
            about_annotation = error.operation == "read annotations"
            if about_annotation:
                path = ("metadata", "annotations", error.subject)
                message = message.removeprefix(f"annotation {error.subject}: ")
            elif error.operation == "check sysctls":
                path = ("spec", "securityContext", "sysctls")
            elif error.operation == "seccomp":
                path = (*path, "securityContext", "seccompProfile", "localhostProfile")
            yield Finding(pod.source, path, message, error.hint, key=about_annotation)
