"""What this release does with every field of the objects it accepts: the one table that says so.

Each field of a class listed here is SUPPORTED, NOTED (accepted; it means nothing on one host, and the pod's events say
so once) or REFUSED (an error that says why). A field that the table does not know is refused: nothing is ever ignored
in silence. Whoever implements a field moves it here; a test compares the table with the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sandbox.manifest.models import KubeObject, Model, Pod, core_v1, meta_v1
from sandbox.manifest.nodes import Path, render_path
from sandbox.manifest.problems import Problems
from sandbox.manifest.schema import SERVER_FIELDS, json_name


class Support(Enum):
    SUPPORTED = "supported"
    NOTED = "accepted with a note"
    REFUSED = "refused"


@dataclass(frozen=True)
class Verdict:
    """`sentence` completes "<path>: …". `harmless`: values that ask for nothing, accepted without a word."""

    support: Support
    sentence: str = ""
    harmless: tuple[Any, ...] = ()


_SUPPORTED = Verdict(Support.SUPPORTED)


def _noted(sentence: str, *harmless: Any) -> Verdict:
    return Verdict(Support.NOTED, sentence, harmless)


def _refused(sentence: str, *harmless: Any) -> Verdict:
    return Verdict(Support.REFUSED, sentence, harmless)


def _not_yet(*harmless: Any) -> Verdict:
    return Verdict(Support.REFUSED, "not supported by this release", harmless)


def _fields(names: str) -> dict[str, Verdict]:
    return dict.fromkeys(names.split(), _SUPPORTED)


_ONE_HOST = _noted("has no effect, there is one host and no scheduler")
_NO_IDENTITY = _noted("has no effect, there is no API server to be known to", "default", False)
_CLOUD = _refused("not supported, it belongs to a storage system that this host does not have")
_OLD_VOLUMES = (
    "awsElasticBlockStore azureDisk azureFile cephfs cinder csi fc flexVolume flocker gcePersistentDisk gitRepo "
    "glusterfs photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume"
)

_POD_SPEC = {
    **_fields(
        "containers initContainers volumes restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds hostname "
        "hostAliases dnsConfig dnsPolicy hostNetwork hostPID hostIPC shareProcessNamespace securityContext "
        "enableServiceLinks os"
    ),
    "affinity": _ONE_HOST,
    "nodeName": _ONE_HOST,
    "nodeSelector": _ONE_HOST,
    "tolerations": _ONE_HOST,
    "topologySpreadConstraints": _ONE_HOST,
    "schedulerName": _noted(_ONE_HOST.sentence, "default-scheduler"),
    "schedulingGroup": _ONE_HOST,
    "priority": _noted("has no effect, pods of one host are not preempted", 0),
    "priorityClassName": _noted("has no effect, pods of one host are not preempted"),
    "preemptionPolicy": _noted("has no effect, pods of one host are not preempted"),
    "evictionResponders": _noted("has no effect, pods of one host are not evicted"),
    "serviceAccountName": _NO_IDENTITY,
    "serviceAccount": _NO_IDENTITY,
    "automountServiceAccountToken": _NO_IDENTITY,
    "imagePullSecrets": _noted("has no effect, this release loads images from files and asks no registry"),
    "subdomain": _noted("has no effect, there is no cluster domain to be in"),
    "ephemeralContainers": _refused("not allowed in a manifest, they are added to a running pod"),
    "schedulingGates": _refused("not supported, there is no scheduler to open the gate"),
    "resourceClaims": _refused("not supported, there is no driver of dynamic resources"),
    "setHostnameAsFQDN": _not_yet(False),
    "hostnameOverride": _not_yet(),
    "hostUsers": _not_yet(True),
    "runtimeClassName": _not_yet(),
    "overhead": _not_yet(),
    "resources": _refused(
        "limits of the pod as a whole are not supported by this release, give each container its own"
    ),
    "readinessGates": _not_yet(),
}

_CONTAINER = {
    **_fields(
        "name image imagePullPolicy command args workingDir ports env envFrom volumeMounts resources securityContext "
        "stdin stdinOnce tty lifecycle restartPolicy resizePolicy"
    ),
    "livenessProbe": _refused("probes are not supported by this release"),
    "readinessProbe": _refused("probes are not supported by this release"),
    "startupProbe": _refused("probes are not supported by this release"),
    "restartPolicyRules": _not_yet(),
    "volumeDevices": _refused("block devices are not supported by this release"),
    "terminationMessagePath": _noted(
        "has no effect, this release collects no termination messages", "/dev/termination-log"
    ),
    "terminationMessagePolicy": _noted("has no effect, this release collects no termination messages", "File"),
}

_VOLUME = {
    **_fields("name emptyDir hostPath configMap secret"),
    **dict.fromkeys(_OLD_VOLUMES.split(), _CLOUD),
    "nfs": _not_yet(),
    "iscsi": _not_yet(),
    "downwardAPI": _not_yet(),
    "projected": _not_yet(),
    "image": _not_yet(),
    "persistentVolumeClaim": _not_yet(),
    "ephemeral": _not_yet(),
}

_LSM = {
    "appArmorProfile": _refused("AppArmor profiles are not supported by this release"),
    "seLinuxOptions": _refused("SELinux labels are not supported by this release"),
    "windowsOptions": _refused("not supported, the host runs Linux"),
}

TABLE: dict[type[Model], dict[str, Verdict]] = {
    meta_v1.ObjectMeta: {
        **_fields("name namespace labels annotations generateName"),
        "finalizers": _noted("has no effect, objects are removed at once"),
        "ownerReferences": _noted("has no effect, objects are removed one by one"),
    },
    core_v1.Pod: _fields("apiVersion kind metadata spec"),
    core_v1.ConfigMap: _fields("apiVersion kind metadata data binaryData immutable"),
    core_v1.Secret: _fields("apiVersion kind metadata data stringData type immutable"),
    core_v1.PodSpec: _POD_SPEC,
    core_v1.Container: _CONTAINER,
    core_v1.Volume: _VOLUME,
    core_v1.PodSecurityContext: {
        **_fields("runAsUser runAsGroup runAsNonRoot supplementalGroups supplementalGroupsPolicy fsGroup"),
        **_fields("seccompProfile sysctls"),
        "fsGroupChangePolicy": _noted("has no effect, the group of a volume is set each time", "Always"),
        **_LSM,
        "seLinuxChangePolicy": _LSM["seLinuxOptions"],
    },
    core_v1.SecurityContext: {
        **_fields("capabilities privileged allowPrivilegeEscalation readOnlyRootFilesystem procMount"),
        **_fields("runAsUser runAsGroup runAsNonRoot seccompProfile"),
        **_LSM,
    },
    core_v1.Lifecycle: {
        **_fields("stopSignal"),
        "postStart": _refused("lifecycle hooks are not supported by this release"),
        "preStop": _refused("lifecycle hooks are not supported by this release"),
    },
    core_v1.ResourceRequirements: {
        **_fields("limits requests"),
        "claims": _refused("not supported, there is no driver of dynamic resources"),
    },
    core_v1.ContainerResizePolicy: _fields("resourceName restartPolicy"),
    core_v1.VolumeMount: {
        **_fields("name mountPath readOnly recursiveReadOnly subPath subPathExpr mountPropagation"),
        "bindMountOptions": _not_yet(),
    },
    core_v1.EnvVar: _fields("name value valueFrom"),
    core_v1.EnvVarSource: {
        **_fields("configMapKeyRef secretKeyRef fieldRef resourceFieldRef"),
        "fileKeyRef": _not_yet(),
    },
    core_v1.EnvFromSource: _fields("prefix configMapRef secretRef"),
    core_v1.ConfigMapEnvSource: _fields("name optional"),
    core_v1.SecretEnvSource: _fields("name optional"),
    core_v1.ConfigMapKeySelector: _fields("name key optional"),
    core_v1.SecretKeySelector: _fields("name key optional"),
    core_v1.ObjectFieldSelector: _fields("apiVersion fieldPath"),
    core_v1.ResourceFieldSelector: _fields("containerName resource divisor"),
    core_v1.ContainerPort: _fields("containerPort hostPort hostIP name protocol"),
    core_v1.Capabilities: _fields("add drop"),
    core_v1.SeccompProfile: _fields("type localhostProfile"),
    core_v1.Sysctl: _fields("name value"),
    core_v1.HostAlias: _fields("ip hostnames"),
    core_v1.PodDNSConfig: _fields("nameservers searches options"),
    core_v1.PodDNSConfigOption: _fields("name value"),
    core_v1.PodOS: _fields("name"),
    core_v1.EmptyDirVolumeSource: {**_fields("medium sizeLimit"), "mode": _not_yet()},
    core_v1.HostPathVolumeSource: _fields("path type"),
    core_v1.ConfigMapVolumeSource: {**_fields("name items defaultMode optional"), "defaultUser": _not_yet()},
    core_v1.SecretVolumeSource: {**_fields("secretName items defaultMode optional"), "defaultUser": _not_yet()},
    core_v1.KeyToPath: {**_fields("key path mode"), "user": _not_yet()},
}

_UNKNOWN = _not_yet()


def verdict(cls: type[Model], field: str) -> Verdict:
    """What happens with the field `field` (its JSON name) of `cls`."""
    return TABLE.get(cls, {}).get(field, _UNKNOWN)


def check_support(obj: KubeObject, problems: Problems) -> None:
    """Report every field that is set and refused."""
    for path, found in _walk(obj, ()):
        if found.support is Support.REFUSED:
            problems.add(path, found.sentence, key=True)


def notes(pod: Pod) -> list[str]:
    """What the pod's events say about fields that are accepted and have no effect: `spec.tolerations: has …`."""
    noted = [(path, found.sentence) for path, found in _walk(pod, ()) if found.support is Support.NOTED]
    return [f"{render_path(path)}: {sentence}" for path, sentence in (*noted, *_unlimited_disk(pod))]


def _unlimited_disk(pod: Pod) -> Iterator[tuple[Path, str]]:
    """Values of fields that otherwise work: amounts of disk that nothing here enforces."""
    if pod.spec is None:
        return
    for number, volume in enumerate(pod.spec.volumes or ()):
        if volume.emptyDir is not None and volume.emptyDir.sizeLimit and volume.emptyDir.medium != "Memory":
            yield ("spec", "volumes", number, "emptyDir", "sizeLimit"), "is enforced only with medium: Memory"
    for field in ("initContainers", "containers"):
        for number, container in enumerate(getattr(pod.spec, field) or ()):
            for kind in ("limits", "requests"):
                if container.resources and "ephemeral-storage" in (getattr(container.resources, kind) or {}):
                    path: Path = ("spec", field, number, "resources", kind, "ephemeral-storage")
                    yield path, "has no effect, this release does not limit disk space"


def _walk(obj: Model, path: Path) -> Iterator[tuple[Path, Verdict]]:
    """Every field below `obj` that is set to something and is not simply supported."""
    cls = type(obj)
    table = TABLE.get(cls, {})
    for attribute, value in obj.__dict__.items():
        if value is None or value == [] or value == {}:
            continue
        name = json_name(cls, attribute)[0]
        found = table.get(name, _UNKNOWN)
        where = (*path, name)
        if found is not _SUPPORTED:
            if (cls.__name__, name) not in SERVER_FIELDS and value not in found.harmless:
                yield where, found
        elif isinstance(value, Model):
            yield from _walk(value, where)
        elif isinstance(value, list) and isinstance(value[0], Model):
            for index, item in enumerate(value):
                yield from _walk(item, (*where, index))
