"""The plan of a container: from a child of the monitor in the host's namespaces to the app's first instruction.

Outside, as root in the host's namespaces, every source becomes a descriptor: the overlay, the volumes, the devices.
Inside, after setns and unshare, the descriptors are mounted, the root is pivoted, privileges are dropped, the app is
executed. No path of the host is looked up once the container's own files can be in the way.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sandbox.cgroups.resources import DeviceRule
from sandbox.errors import InvalidInput
from sandbox.linux import constants as k
from sandbox.runtime import defaults, ops
from sandbox.runtime.config import Device, Mount, NamespaceMode, PodSandboxConfig, Propagation
from sandbox.runtime.process import ProcessSpec, process_ops
from sandbox.runtime.sandbox_plan import ROOT_MOUNT_POINT, SHM, pod_namespaces

PAUSE = 0
"""Slot of the pause process' pidfd: the pod's namespaces."""
LOG = 1
"""Slot of the log file; the plan does not touch it, the monitor keeps it."""
CGROUP = 2
"""Slot of the container's cgroup2 directory, where the kernel has one."""


@dataclass(frozen=True)
class Source:
    """A bind mount with what the host says its source is."""

    mount: Mount
    is_directory: bool


@dataclass(frozen=True)
class DeviceNode:
    """A device of the host as a node to make: `mode` includes the type."""

    container_path: str
    mode: int
    dev: int
    uid: int
    gid: int


@dataclass(frozen=True)
class ContainerSpec:
    """Everything a container's plan depends on, decided; nothing here asks the host again."""

    sandbox: PodSandboxConfig
    layers: tuple[str, ...]
    """Unpacked layers, lowest first."""
    upper: str
    work: str
    cgroup_joins: tuple[str, ...]
    """`tasks` files of the cgroups to join (v1)."""
    cgroup_views: tuple[tuple[str, str], ...]
    """(name below /sys/fs/cgroup, host directory) of the container's own cgroups (v1)."""
    unified_cgroup: bool
    """The hierarchy is cgroup2 alone: the container's view is one mount."""
    sources: tuple[Source, ...]
    devices: tuple[DeviceNode, ...]
    readonly_rootfs: bool
    privileged: bool
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    oom_score_adj: int
    tty: bool
    process: ProcessSpec
    given: tuple[str, ...] = ("the pause process", "the log file")


def container_clone_flags(sandbox: PodSandboxConfig) -> int:
    """CLONE_NEW* the container's first process is born with."""
    return k.CLONE_NEWPID if sandbox.namespaces.pid is NamespaceMode.CONTAINER else 0


def find_source(mount: Mount, *, dry_run: bool = False) -> Source:
    """Looks at the host's side of a mount. Raises InvalidInput when there is nothing.

    In a dry run nothing of the pod was made: a volume that is to come is taken to be the directory it will be.
    """
    path = mount.host_path
    if not path.startswith("/") or not mount.container_path.startswith("/"):
        raise InvalidInput(f"a mount needs absolute paths, not {path!r} on {mount.container_path!r}")
    if ".." in PurePosixPath(mount.container_path).parts or mount.container_path == "/":
        raise InvalidInput(f"a mount cannot be made on {mount.container_path!r}", subject=mount.container_path)
    source = Path(path, mount.sub_path.lstrip("/"))
    try:
        mode = source.stat().st_mode
    except OSError as error:
        if dry_run and isinstance(error, FileNotFoundError):
            return Source(mount, is_directory=True)
        raise InvalidInput(
            f"the source {str(source)!r} of the mount on {mount.container_path} cannot be used",
            operation="open the source of a mount",
            subject=str(source),
            errno=error.errno or 0,
        ) from error
    return Source(mount, stat.S_ISDIR(mode))


def find_device(device: Device) -> tuple[DeviceNode, DeviceRule]:
    """The node to make and the rule that allows its use. Raises InvalidInput when it is no device."""
    try:
        found = Path(device.host_path).stat()
    except OSError as error:
        raise InvalidInput(
            f"the device {device.host_path!r} cannot be used", subject=device.host_path, errno=error.errno or 0
        ) from error
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        raise InvalidInput(f"{device.host_path!r} is not a device", subject=device.host_path)
    node = DeviceNode(device.container_path, found.st_mode, found.st_rdev, found.st_uid, found.st_gid)
    major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    return node, DeviceRule(True, kind, major, minor, device.permissions or "rwm")


class _Slots:
    """Numbers the descriptors that the plan itself opens."""

    def __init__(self, first: int) -> None:
        self._next = first

    def new(self) -> int:
        self._next += 1
        return self._next - 1


def compile_container(spec: ContainerSpec) -> ops.Plan:
    """The whole plan, printable before it runs."""
    slots = _Slots(len(spec.given))
    root = slots.new()
    sources = [(source, slots.new()) for source in spec.sources]
    views = [(name, directory, slots.new()) for name, directory in spec.cgroup_views]
    host_ipc = spec.sandbox.namespaces.ipc is not NamespaceMode.POD
    shm, null = slots.new(), slots.new()

    steps: list[ops.Op] = [ops.Mark(1)]
    steps += [ops.JoinCgroup(path) for path in spec.cgroup_joins]
    steps.append(ops.WriteFile(ops.HOST, "/proc/self/oom_score_adj", str(spec.oom_score_adj).encode(), optional=True))
    steps += [ops.SessionKeyring(), ops.Mark(2)]
    # Nothing of a container outlives the host's power: its end need not wait for the disk, and `upper` is used once.
    steps.append(ops.Overlay(root, tuple(reversed(spec.layers)), spec.upper, spec.work, volatile=True))
    for source, slot in sources:
        steps += _open_source(source, slot)
    for _, directory, slot in views:
        steps.append(ops.OpenTree(slot, directory, k.OPEN_TREE_CLONE))
    if host_ipc:
        steps.append(ops.OpenTree(shm, "/dev/shm", k.OPEN_TREE_CLONE))  # noqa: S108 - the host's, as asked
    join = pod_namespaces(spec.sandbox) | k.CLONE_NEWNS
    steps += [
        ops.Setns(PAUSE, join, "the pod's " + namespace_names(join)),
        ops.Unshare(k.CLONE_NEWNS | k.CLONE_NEWCGROUP, "mnt cgroup"),
        ops.Mark(3),
    ]
    if not host_ipc:
        steps.append(ops.OpenTree(shm, SHM, k.OPEN_TREE_CLONE))
    steps.append(ops.MoveMount(root, ops.HOST, ROOT_MOUNT_POINT))
    steps += _proc(slots, root)
    steps += _dev(slots, root, shm, null, spec)
    steps += _sys(slots, root, spec, views)
    for source, slot in sorted(sources, key=lambda s: s[0].mount.container_path.rstrip("/").count("/")):
        create = "dir" if source.is_directory else "file"
        steps.append(ops.MoveMount(slot, root, source.mount.container_path, create=create))
    steps += _hide(null, root, spec)
    if spec.tty:
        steps.append(ops.Pty(slots.new(), root, uid=spec.process.uid, console=True))
    else:
        steps.append(ops.Setsid())
    steps += [ops.PivotRoot(root), ops.Mark(4), *process_ops(spec.process)]
    return ops.Plan(tuple(steps), given=spec.given)


def _open_source(source: Source, slot: int) -> list[ops.Op]:
    mount = source.mount
    recursive = k.AT_RECURSIVE if source.is_directory else 0
    steps: list[ops.Op] = [
        ops.OpenTree(slot, mount.host_path, k.OPEN_TREE_CLONE | recursive, sub_path=mount.sub_path.lstrip("/"))
    ]
    propagation = {
        Propagation.PRIVATE: k.MS_PRIVATE,
        Propagation.HOST_TO_CONTAINER: k.MS_SLAVE,
        Propagation.BIDIRECTIONAL: k.MS_SHARED,
    }[mount.propagation]
    steps.append(ops.MountSetattr(slot, propagation=propagation, recursive=True, names=mount.propagation.lower()))
    if mount.readonly:
        steps.append(
            ops.MountSetattr(slot, attr_set=k.MOUNT_ATTR_RDONLY, recursive=mount.recursive_read_only, names="read-only")
        )
    return steps


_NO_SUID_EXEC = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC
_NO_SUID_DEV_EXEC = _NO_SUID_EXEC | k.MOUNT_ATTR_NODEV


def _proc(slots: _Slots, root: int) -> list[ops.Op]:
    proc = slots.new()
    return [
        ops.Filesystem(proc, "proc", attr_flags=_NO_SUID_DEV_EXEC, source="proc"),
        ops.MoveMount(proc, root, "/proc", create="dir", no_symlinks=True),
    ]


def _dev(slots: _Slots, root: int, shm: int, null: int, spec: ContainerSpec) -> list[ops.Op]:
    """`null` becomes our own /dev/null, opened before a volume of the pod can lie over it."""
    dev, pts, mqueue = slots.new(), slots.new(), slots.new()
    steps: list[ops.Op] = [
        ops.Filesystem(dev, "tmpfs", ("mode=755", "size=64k"), _NO_SUID_EXEC, "tmpfs"),
        ops.MoveMount(dev, root, "/dev", create="dir", no_symlinks=True),
    ]
    steps += [
        ops.Mknod(dev, name, defaults.DEVICE_MODE, os.makedev(major, minor)) for name, major, minor in defaults.DEVICES
    ]
    steps.append(ops.OpenPath(null, dev, "/null", k.O_PATH))
    steps += [ops.Symlink(dev, name, target) for name, target in defaults.DEV_LINKS]
    pts_options = ("newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    steps += [
        ops.Mkdir(dev, "pts"),
        ops.Mkdir(dev, "shm", 0o1777),
        ops.Mkdir(dev, "mqueue"),
        ops.Filesystem(pts, "devpts", pts_options, k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC, "devpts"),
        ops.MoveMount(pts, dev, "pts"),
        ops.MoveMount(shm, dev, "shm"),
        ops.Filesystem(mqueue, "mqueue", attr_flags=_NO_SUID_DEV_EXEC, source="mqueue"),
        ops.MoveMount(mqueue, dev, "mqueue"),
    ]
    for device in spec.devices:
        inside = device.container_path.removeprefix("/dev/")
        at = dev if device.container_path.startswith("/dev/") else root
        steps.append(ops.Mknod(at, inside, device.mode, device.dev, device.uid, device.gid))
    return steps


def _sys(slots: _Slots, root: int, spec: ContainerSpec, views: list[tuple[str, str, int]]) -> list[ops.Op]:
    sys, cgroup = slots.new(), slots.new()
    readonly = 0 if spec.privileged else k.MOUNT_ATTR_RDONLY
    steps: list[ops.Op] = [
        ops.Filesystem(sys, "sysfs", attr_flags=_NO_SUID_DEV_EXEC | readonly, source="sysfs"),
        ops.MoveMount(sys, root, "/sys", create="dir", no_symlinks=True),
    ]
    if spec.unified_cgroup:
        return [
            *steps,
            ops.Filesystem(cgroup, "cgroup2", attr_flags=_NO_SUID_DEV_EXEC | readonly, source="cgroup"),
            ops.MoveMount(cgroup, sys, "fs/cgroup"),
        ]
    steps += [
        ops.Filesystem(cgroup, "tmpfs", ("mode=755", "size=64k"), _NO_SUID_DEV_EXEC, "cgroup"),
        ops.MoveMount(cgroup, sys, "fs/cgroup"),
    ]
    for name, _, slot in views:
        attributes = _NO_SUID_DEV_EXEC | readonly
        steps += [
            ops.MountSetattr(slot, attr_set=attributes, propagation=k.MS_PRIVATE, names="cgroup view"),
            ops.MoveMount(slot, cgroup, name, create="dir"),
        ]
    if readonly:
        steps.append(ops.MountSetattr(cgroup, attr_set=k.MOUNT_ATTR_RDONLY, names="read-only"))
    return steps


def _hide(null: int, root: int, spec: ContainerSpec) -> list[ops.Op]:
    steps: list[ops.Op] = [ops.Mask(null, root, path) for path in spec.masked_paths]
    steps += [ops.ReadOnly(root, path) for path in spec.readonly_paths]
    if spec.readonly_rootfs:
        steps.append(ops.MountSetattr(root, attr_set=k.MOUNT_ATTR_RDONLY, names="read-only root"))
    return steps


def namespace_names(flags: int) -> str:
    """Of CLONE_NEW* flags, for humans."""
    return " ".join(name for name, flag in k.CLONE_NAMES.items() if flags & flag and "_" not in name)
