"""From records to specs: everything a container's plan depends on, looked up and decided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from sandbox.cgroups.resources import CgroupResources
from sandbox.errors import InvalidInput
from sandbox.images.store import Image
from sandbox.linux.capabilities import capability_sets
from sandbox.linux.seccomp import compile_filter
from sandbox.runtime import defaults
from sandbox.runtime.container_plan import (
    ContainerSpec,
    Source,
    compile_container,
    find_device,
    find_source,
)
from sandbox.runtime.context import Context
from sandbox.runtime.files import pod_file_mounts
from sandbox.runtime.ops import Plan
from sandbox.runtime.process import CapabilitySets, ProcessSpec, command_line, environment
from sandbox.runtime.records import ContainerRecord, SandboxRecord


def container_resources(record: ContainerRecord) -> CgroupResources:
    """The container's limits with its device list."""
    if record.config.security.privileged:
        return replace(record.config.resources, device_rules=defaults.ALL_DEVICES)
    extra = tuple(find_device(device)[1] for device in record.config.devices)
    return replace(record.config.resources, device_rules=defaults.DEVICE_RULES + extra)


def process_spec(
    sandbox: SandboxRecord, record: ContainerRecord, image: Image, argv: tuple[str, ...], *, tty: bool
) -> ProcessSpec:
    """Who a process of this container is: its first one, or one exec'd later."""
    config, security, user = record.config, record.config.security, record.user
    caps = capability_sets(
        security.add_capabilities, security.drop_capabilities, privileged=security.privileged, uid=user.uid
    )
    sets = CapabilitySets(caps.bounding, caps.effective, caps.permitted, caps.inheritable, caps.ambient)
    kind = "Unconfined" if security.privileged else security.seccomp.kind
    return ProcessSpec(
        argv=argv,
        env=environment(image.config.env, config.env, home=user.home, hostname=sandbox.hostname, tty=tty),
        working_dir=_working_dir(config.working_dir or image.config.working_dir or "/"),
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        capabilities=sets,
        no_new_privs=security.no_new_privs and not security.privileged,
        seccomp=compile_filter(kind, security.seccomp.localhost_path, sets.bounding),
        seccomp_name=kind,
        rlimits=config.rlimits,
    )


def _working_dir(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidInput(f"the working directory {path!r} is not absolute", subject=path)
    return path


def container_spec(
    context: Context, sandbox: SandboxRecord, record: ContainerRecord, image: Image, *, dry_run: bool = False
) -> ContainerSpec:
    """Raises InvalidInput for mounts, devices or commands that cannot be."""
    config, security = record.config, record.config.security
    own = frozenset(str(PurePosixPath(m.container_path)) for m in config.mounts)
    files = pod_file_mounts(context.pod_dir(sandbox.id), own, security.readonly_rootfs)
    entry = context.cgroups.entry(record.cgroup_path)
    directory = context.container_dir(record)
    argv = command_line(image.config.entrypoint, image.config.cmd, config.command, config.args, config.image)
    bare = security.privileged
    masked = defaults.MASKED_PATHS if security.masked_paths is None else security.masked_paths
    readonly = defaults.READONLY_PATHS if security.readonly_paths is None else security.readonly_paths
    given = ("the pause process", "the log file") + (("the cgroup",) if entry.directory else ())
    return ContainerSpec(
        sandbox=sandbox.config,
        layers=image.layers,
        upper=str(directory / "upper"),
        work=str(directory / "work"),
        cgroup_joins=entry.join_paths,
        cgroup_views=tuple((_hierarchy(path), path.removesuffix("/tasks")) for path in entry.join_paths),
        unified_cgroup=context.cgroups.mode == "v2",
        sources=tuple(Source(mount, is_directory=False) for mount in files)
        + tuple(find_source(mount, dry_run=dry_run) for mount in config.mounts),
        devices=tuple(find_device(device)[0] for device in config.devices),
        readonly_rootfs=security.readonly_rootfs,
        privileged=security.privileged,
        masked_paths=() if bare else masked,
        readonly_paths=() if bare else readonly,
        oom_score_adj=config.oom_score_adj,
        tty=config.tty,
        process=process_spec(sandbox, record, image, argv, tty=config.tty),
        given=given,
    )


def compile_for(
    context: Context, sandbox: SandboxRecord, record: ContainerRecord, image: Image, *, dry_run: bool = False
) -> Plan:
    return compile_container(container_spec(context, sandbox, record, image, dry_run=dry_run))


def _hierarchy(procs_path: str) -> str:
    """The directory below /sys/fs/cgroup of a v1 hierarchy: "memory", "cpu,cpuacct"."""
    return PurePosixPath(procs_path).relative_to("/sys/fs/cgroup").parts[0]
