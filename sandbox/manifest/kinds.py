"""Which kinds of object there are, which of them this release runs, and the class each is decoded into."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from sandbox.manifest.models import ConfigMap, Model, Pod, Secret


@dataclass(frozen=True)
class KindEntry:
    """A kind of `api_version`. `model` is None when it is known but not run by this release."""

    api_version: str
    kind: str
    model: type[Model] | None = None


_SUPPORTED = (
    KindEntry("v1", "Pod", Pod),
    KindEntry("v1", "ConfigMap", ConfigMap),
    KindEntry("v1", "Secret", Secret),
)

_KNOWN = {
    "v1": "Service PersistentVolumeClaim PersistentVolume Namespace ServiceAccount Endpoints Event LimitRange Node "
    "PodTemplate ReplicationController ResourceQuota Binding",
    "apps/v1": "Deployment DaemonSet StatefulSet ReplicaSet ControllerRevision",
    "batch/v1": "Job CronJob",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "networking.k8s.io/v1": "Ingress IngressClass NetworkPolicy",
    "policy/v1": "PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1": "Role RoleBinding ClusterRole ClusterRoleBinding",
    "storage.k8s.io/v1": "StorageClass CSIDriver CSINode VolumeAttachment",
    "scheduling.k8s.io/v1": "PriorityClass",
    "node.k8s.io/v1": "RuntimeClass",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition",
    "discovery.k8s.io/v1": "EndpointSlice",
    "coordination.k8s.io/v1": "Lease",
    "admissionregistration.k8s.io/v1": "MutatingWebhookConfiguration ValidatingWebhookConfiguration",
    "resource.k8s.io/v1": "ResourceClaim ResourceClaimTemplate DeviceClass",
}

KINDS: dict[tuple[str, str], KindEntry] = {
    **{(version, kind): KindEntry(version, kind) for version, kinds in _KNOWN.items() for kind in kinds.split()},
    **{(entry.api_version, entry.kind): entry for entry in _SUPPORTED},
}

LIST_KINDS = frozenset({"List", "PodList", "ConfigMapList", "SecretList"})
"""`v1` kinds that only hold `items`."""


def supported_kinds() -> str:
    """For sentences: `Pod, ConfigMap, Secret and List`."""
    return ", ".join(entry.kind for entry in _SUPPORTED) + " and List"


def nearest(word: str, known: list[str]) -> str:
    """The known word that `word` was probably meant to be, regardless of case, or an empty string."""
    folded = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower()[:100], folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else ""


def explain_unknown(api_version: str, kind: str) -> str:
    """Why `api_version` and `kind` name nothing that can be run, in one sentence."""
    entry = KINDS.get((api_version, kind))
    api_version, kind = api_version[:253], kind[:63]
    if entry is not None:
        return f"{api_version} {kind} is not supported by this release, which runs {supported_kinds()}"
    versions = sorted(version for version, name in KINDS if name == kind)
    if versions or kind in LIST_KINDS:
        expected = " or ".join(f'"{version}"' for version in versions) or '"v1"'
        return f'{kind} is not in apiVersion "{api_version}", expected {expected}'
    guess = nearest(kind, sorted({name for _, name in KINDS} | {"List"}))
    suffix = f', did you mean "{guess}"?' if guess else f", expected {supported_kinds()}"
    return f'unknown kind "{kind}" of apiVersion "{api_version}"{suffix}'
