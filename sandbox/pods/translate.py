"""A pod to what the runtime is asked for: one PodSandboxConfig, and a ContainerConfig an attempt.

No decision is left for later: what these return can be printed, and is what runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.pods import dns, env, limits, security
from sandbox.pods.fields import PodFacts
from sandbox.pods.kube import Container, PodManifest
from sandbox.pods.objects import ObjectStore
from sandbox.pods.settings import PodSettings
from sandbox.pods.volumes import Volumes
from sandbox.runtime.config import (
    ContainerConfig,
    NamespaceMode,
    NamespaceOptions,
    PodSandboxConfig,
    PodSandboxMetadata,
    PortMapping,
)

MAX_HOSTNAME = 63
POD_NAME, POD_NAMESPACE, POD_UID = "io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
RESTART_COUNT = "io.kubernetes.container.restartCount"
OWNER = "sandbox/owner"
"""Label of every pod sandbox of this controller: the CRI's are not ours to remove."""
OWNER_PODS = "pods"


@dataclass(frozen=True)
class Translator:
    settings: PodSettings
    objects: ObjectStore
    volumes: Volumes

    def sandbox_config(self, pod: PodManifest, uid: str, attempt: int = 0) -> PodSandboxConfig:
        """Raises InvalidInput."""
        namespace, name = pod.namespace, pod.name
        spec = pod.spec
        return PodSandboxConfig(
            metadata=PodSandboxMetadata(name, uid, namespace, attempt),
            hostname=self.hostname(pod),
            log_directory=str(self.settings.log_directory(namespace, name, uid)),
            dns=dns.pod_dns(pod, self.settings.resolv_conf),
            port_mappings=_port_mappings(pod),
            host_aliases=tuple((alias.ip, tuple(alias.hostnames or ())) for alias in spec.hostAliases or ()),
            labels=_pairs({**pod.labels, **_identity(pod, uid), OWNER: OWNER_PODS}),
            annotations=_pairs(pod.annotations),
            namespaces=NamespaceOptions(
                network=NamespaceMode.NODE if spec.hostNetwork else NamespaceMode.POD,
                pid=_pid_mode(pod),
                ipc=NamespaceMode.NODE if spec.hostIPC else NamespaceMode.POD,
            ),
            sysctls=tuple(
                (s.name, s.value) for s in (spec.securityContext.sysctls if spec.securityContext else None) or ()
            ),
            resources=limits.pod_resources(pod, self.settings),
            qos_class=limits.qos_class(pod),
            runtime_handler=spec.runtimeClassName or "",
        )

    def container_config(
        self,
        pod: PodManifest,
        uid: str,
        container: Container,
        attempt: int = 0,
        addresses: tuple[str, ...] = (),
        *,
        make_sub_paths: bool = True,
    ) -> ContainerConfig:
        """`addresses` are the pod's, for its environment. Raises InvalidInput, and KernelError for a sub path."""
        variables = self.environment(pod, uid, container, addresses)
        return ContainerConfig(
            name=container.name,
            image=container.image or "",
            attempt=attempt,
            command=tuple(env.expand(word, variables) for word in container.command or ()),
            args=tuple(env.expand(word, variables) for word in container.args or ()),
            working_dir=container.workingDir or "",
            env=tuple(variables.items()),
            mounts=self.volumes.mounts(pod, uid, container, variables, make_sub_paths=make_sub_paths),
            labels=_pairs({CONTAINER_NAME: container.name, **_identity(pod, uid)}),
            annotations=((RESTART_COUNT, str(attempt)),),
            log_path=f"{container.name}/{attempt}.log",
            stdin=bool(container.stdin),
            stdin_once=bool(container.stdinOnce),
            tty=bool(container.tty),
            resources=limits.container_resources(pod, container, self.settings),
            oom_score_adj=limits.oom_score_adj(pod, container),
            security=security.container_security(pod, container, self.settings.seccomp_directory),
            stop_signal=(container.lifecycle.stopSignal if container.lifecycle else None) or "",
        )

    def environment(
        self, pod: PodManifest, uid: str, container: Container, addresses: tuple[str, ...]
    ) -> dict[str, str]:
        facts = PodFacts(uid, self.settings.node_name, self.settings.host_ip, addresses)
        return env.build_environment(pod, container, env.EnvContext(pod.namespace, self.objects, facts))

    def hostname(self, pod: PodManifest) -> str:
        """The pod's name unless it says otherwise; the host's own with the host's network."""
        if pod.spec.hostnameOverride:
            return str(pod.spec.hostnameOverride)
        if pod.spec.hostNetwork:
            return self.settings.node_name
        name: str = pod.spec.hostname or pod.name
        return name[:MAX_HOSTNAME].rstrip("-.")


def _identity(pod: PodManifest, uid: str) -> dict[str, str]:
    return {POD_NAME: pod.name, POD_NAMESPACE: pod.namespace, POD_UID: uid}


def _pairs(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(values.items())


def _pid_mode(pod: PodManifest) -> NamespaceMode:
    if pod.spec.hostPID:
        return NamespaceMode.NODE
    return NamespaceMode.POD if pod.spec.shareProcessNamespace else NamespaceMode.CONTAINER


def _port_mappings(pod: PodManifest) -> tuple[PortMapping, ...]:
    """Host ports; with the host's network a container has them anyway."""
    if pod.spec.hostNetwork:
        return ()
    return tuple(
        PortMapping(port.containerPort, port.hostPort, port.protocol or "TCP", port.hostIP or "")
        for container in pod.containers
        for port in container.ports or ()
        if port.hostPort
    )
