"""What the runtime is asked for: the messages of the CRI as frozen dataclasses.

Field names are those of `api.proto` (CRI v1) in snake case, so that the CRI handlers map one to one and the pod
controller speaks the same language. No gRPC and no YAML here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sandbox.cgroups.resources import CgroupResources


class NamespaceMode(StrEnum):
    """`api.proto` NamespaceMode."""

    POD = "POD"
    CONTAINER = "CONTAINER"
    NODE = "NODE"


class Propagation(StrEnum):
    """`api.proto` MountPropagation."""

    PRIVATE = "PRIVATE"
    HOST_TO_CONTAINER = "HOST_TO_CONTAINER"
    BIDIRECTIONAL = "BIDIRECTIONAL"


@dataclass(frozen=True)
class PodSandboxMetadata:
    name: str
    uid: str
    namespace: str = "default"
    attempt: int = 0


@dataclass(frozen=True)
class DNSConfig:
    """What /etc/resolv.conf says. All empty: the host's own file is copied."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class PortMapping:
    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True)
class NamespaceOptions:
    """pid: POD shares the pause process' PID namespace, CONTAINER gives each container its own, NODE the host's."""

    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.CONTAINER
    ipc: NamespaceMode = NamespaceMode.POD


@dataclass(frozen=True)
class PodSandboxConfig:
    metadata: PodSandboxMetadata
    hostname: str = ""
    log_directory: str = ""
    """Absolute path on the host; container `log_path`s are relative to it. Empty: no log files."""
    dns: DNSConfig = field(default_factory=DNSConfig)
    port_mappings: tuple[PortMapping, ...] = ()
    host_aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Lines of /etc/hosts: address, names. Only used where the caller does not mount its own file."""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    cgroup_parent: str = ""
    """Path below the cgroup mounts in which the container cgroups are made; the pod's own cgroup. Empty: the
    runtime makes `<parent>/<qos>/pod<uid>` itself and removes it with the sandbox."""
    namespaces: NamespaceOptions = field(default_factory=NamespaceOptions)
    sysctls: tuple[tuple[str, str], ...] = ()
    resources: CgroupResources = field(default_factory=CgroupResources)
    """Limits of the pod's cgroup as a whole."""
    qos_class: str = "BestEffort"
    runtime_handler: str = ""
    shm_size_bytes: int = 64 << 20


@dataclass(frozen=True)
class Mount:
    """A bind mount from the host. `host_path` must exist (the caller made it)."""

    container_path: str
    host_path: str
    readonly: bool = False
    recursive_read_only: bool = False
    propagation: Propagation = Propagation.PRIVATE
    sub_path: str = ""
    """Resolved below `host_path` at mount time and never outside it."""


@dataclass(frozen=True)
class Device:
    container_path: str
    host_path: str
    permissions: str = "rwm"


@dataclass(frozen=True)
class SeccompProfile:
    """kind: RuntimeDefault, Unconfined or Localhost; `localhost_path` is an absolute path of an OCI JSON profile."""

    kind: str = "RuntimeDefault"
    localhost_path: str = ""


@dataclass(frozen=True)
class ContainerSecurity:
    privileged: bool = False
    add_capabilities: tuple[str, ...] = ()
    """With or without CAP_; ALL is allowed."""
    drop_capabilities: tuple[str, ...] = ()
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    run_as_non_root: bool = False
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: str = "Merge"
    """Merge adds the groups of the image's /etc/group; Strict does not."""
    readonly_rootfs: bool = False
    no_new_privs: bool = True
    seccomp: SeccompProfile = field(default_factory=SeccompProfile)
    masked_paths: tuple[str, ...] | None = None
    """None: the defaults."""
    readonly_paths: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Rlimit:
    """`name` such as RLIMIT_NOFILE; -1 is infinity."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class ContainerConfig:
    name: str
    image: str
    """A reference or image id that the image store knows."""
    attempt: int = 0
    command: tuple[str, ...] = ()
    """Replaces the image's Entrypoint when not empty (and then its Cmd is not used)."""
    args: tuple[str, ...] = ()
    """Replaces the image's Cmd when not empty."""
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: CgroupResources = field(default_factory=CgroupResources)
    oom_score_adj: int = 0
    security: ContainerSecurity = field(default_factory=ContainerSecurity)
    rlimits: tuple[Rlimit, ...] = ()
    stop_signal: str = ""
    """Empty: the image's, else SIGTERM."""
