"""The plan that makes a pod's namespaces: what the process that becomes `pause` does before its exec.

The pause process keeps a root of its own: an empty read-only tmpfs with two directories. `/shm` is the /dev/shm that
the pod's containers share; `/root` is where each container's root is mounted before the pivot. Containers start from a
copy of this tiny mount namespace, not of the host's: nothing of the host has to be hidden or unmounted.
"""

from __future__ import annotations

import os
import socket

from sandbox.errors import InvalidInput
from sandbox.linux import constants as k
from sandbox.runtime import defaults, ops
from sandbox.runtime.config import NamespaceMode, PodSandboxConfig

NETLINK_ROUTE = 0
SHM = "/shm"
ROOT_MOUNT_POINT = "/root"
_PAUSE, _NETLINK, _NETNS, _ROOT, _SHM = range(5)


def pod_namespaces(config: PodSandboxConfig) -> int:
    """CLONE_NEW* of the namespaces that pause holds besides its PID and mount namespaces.

    With the host's network the host name is the host's too, as in Kubernetes.
    """
    flags = 0
    if config.namespaces.network is NamespaceMode.POD:
        flags |= k.CLONE_NEWNET | k.CLONE_NEWUTS
    if config.namespaces.ipc is NamespaceMode.POD:
        flags |= k.CLONE_NEWIPC
    return flags


def sandbox_clone_flags(config: PodSandboxConfig) -> int:
    """CLONE_NEW* the pause process is born with. Its PID namespace is always its own."""
    return pod_namespaces(config) | k.CLONE_NEWNS | k.CLONE_NEWPID


def check_sysctls(config: PodSandboxConfig) -> None:
    """Raises InvalidInput for a sysctl that no namespace of the pod contains, or that is not a plain name and value."""

    def refused(sentence: str) -> InvalidInput:
        return InvalidInput(sentence, operation="check sysctls", subject=name)

    for name, value in config.sysctls:
        plain = all(part and part.replace("_", "").replace("-", "").isalnum() for part in name.split("."))
        if not plain or any(c in value for c in "\n\0+"):
            raise refused(f"sysctl {name!r}={value!r} is not a plain name and value")
        if name not in defaults.SAFE_SYSCTLS and not name.startswith(defaults.SAFE_SYSCTL_PREFIXES):
            raise refused(f"sysctl {name} is not namespaced: it would change the host")
        network, ipc = config.namespaces.network, config.namespaces.ipc
        if name.startswith("net.") and network is not NamespaceMode.POD:
            raise refused(f"sysctl {name} cannot be set with the host's network")
        if not name.startswith("net.") and name != "kernel.domainname" and ipc is not NamespaceMode.POD:
            raise refused(f"sysctl {name} cannot be set with the host's IPC namespace")


def compile_sandbox(config: PodSandboxConfig, run_directory: str) -> ops.Plan:
    """The plan. The new root is mounted on `run_directory`, in the new mount namespace only."""
    check_sysctls(config)
    has_network = config.namespaces.network is NamespaceMode.POD
    steps: list[ops.Op] = [ops.Mark(1), ops.WriteFile(ops.HOST, "/proc/self/oom_score_adj", b"-998", optional=True)]
    if has_network:
        steps.append(ops.Hostname(config.hostname or config.metadata.name))
        steps += [_sysctl(name, value, optional=True) for name, value in defaults.NET_SYSCTLS]
    steps += [_sysctl(name, value) for name, value in config.sysctls]
    if has_network:
        steps += [
            ops.LoopbackUp(),
            ops.Socket(_NETLINK, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE),
            ops.SendFd(_NETLINK, "netlink socket"),
            ops.OpenPath(_NETNS, ops.HOST, "/proc/self/ns/net", os.O_RDONLY),
            ops.SendFd(_NETNS, "network namespace"),
        ]
    steps += [
        ops.RootPropagation(k.MS_REC | k.MS_PRIVATE, "private"),
        ops.Filesystem(_ROOT, "tmpfs", ("size=64k", "nr_inodes=16", "mode=0555"), _NO_SUID_DEV_EXEC),
        ops.Mkdir(_ROOT, SHM, 0o555),
        ops.Mkdir(_ROOT, ROOT_MOUNT_POINT, 0o555),
        ops.MoveMount(_ROOT, ops.HOST, run_directory),
    ]
    if config.namespaces.ipc is NamespaceMode.POD:
        steps += [
            ops.Filesystem(_SHM, "tmpfs", (f"size={config.shm_size_bytes}", "mode=1777"), _NO_SUID_DEV_EXEC, "shm"),
            ops.MoveMount(_SHM, _ROOT, SHM),
        ]
    steps += [
        ops.MountSetattr(_ROOT, attr_set=k.MOUNT_ATTR_RDONLY, names="read-only"),
        ops.PivotRoot(_ROOT),
        ops.Mark(3),
        ops.Credentials(defaults.PAUSE_UID, defaults.PAUSE_UID),
        ops.NoNewPrivs(),
        ops.Exec(("pause",), fd=_PAUSE),
    ]
    return ops.Plan(tuple(steps), given=("the pause program",))


_NO_SUID_DEV_EXEC = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC


def _sysctl(name: str, value: str, *, optional: bool = False) -> ops.Op:
    return ops.WriteFile(ops.HOST, "/proc/sys/" + name.replace(".", "/"), value.encode(), optional=optional)
