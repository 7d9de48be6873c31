"""Security contexts: the pod's, overridden field by field by the container's, as the runtime takes them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from sandbox.errors import InvalidInput
from sandbox.pods.kube import Container, PodManifest
from sandbox.runtime.config import ContainerSecurity, SeccompProfile


def container_security(pod: PodManifest, container: Container, seccomp_directory: Path) -> ContainerSecurity:
    """Raises InvalidInput for a seccomp profile outside `seccomp_directory`."""
    ours, pods = container.securityContext, pod.spec.securityContext
    capabilities = ours.capabilities if ours else None
    privileged = bool(ours and ours.privileged)
    unmasked = bool(ours and ours.procMount == "Unmasked")
    return ContainerSecurity(
        privileged=privileged,
        add_capabilities=tuple((capabilities.add if capabilities else None) or ()),
        drop_capabilities=tuple((capabilities.drop if capabilities else None) or ()),
        run_as_user=_first("runAsUser", ours, pods),
        run_as_group=_first("runAsGroup", ours, pods),
        run_as_non_root=bool(_first("runAsNonRoot", ours, pods)),
        supplemental_groups=_groups(pods),
        supplemental_groups_policy=(pods.supplementalGroupsPolicy if pods else None) or "Merge",
        readonly_rootfs=bool(ours and ours.readOnlyRootFilesystem),
        no_new_privs=ours is not None and ours.allowPrivilegeEscalation is False,
        seccomp=_seccomp(_first("seccompProfile", ours, pods), privileged, seccomp_directory),
        masked_paths=() if unmasked else None,
        readonly_paths=() if unmasked else None,
    )


def _first(name: str, ours: Any, pods: Any) -> Any:
    value = getattr(ours, name) if ours is not None else None
    return getattr(pods, name) if value is None and pods is not None else value


def _groups(pods: Any) -> tuple[int, ...]:
    """supplementalGroups and, so that the files of the volumes are the container's, fsGroup."""
    if pods is None:
        return ()
    groups = list(pods.supplementalGroups or ())
    if pods.fsGroup is not None and pods.fsGroup not in groups:
        groups.append(pods.fsGroup)
    return tuple(groups)


def _seccomp(profile: Any, privileged: bool, directory: Path) -> SeccompProfile:
    """A container that says nothing gets the runtime's default, a privileged one nothing at all."""
    if privileged:
        return SeccompProfile("Unconfined")
    if profile is None:
        return SeccompProfile()
    if profile.type != "Localhost":
        return SeccompProfile(profile.type)
    path = PurePosixPath(profile.localhostProfile or "")
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InvalidInput(
            f"seccomp profile {str(path)!r} is not a relative path below {directory}",
            operation="resolve seccomp profile",
            subject=str(path),
        )
    return SeccompProfile("Localhost", str(directory / path))
