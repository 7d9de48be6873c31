"""What the runtime tells of its objects: snapshots, never the records themselves."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.runtime.config import ContainerConfig, PodSandboxConfig
from sandbox.runtime.records import READY, STARTING, ContainerRecord, SandboxRecord


@dataclass(frozen=True)
class PodSandboxStatus:
    """`state` is READY or NOTREADY (api.proto PodSandboxState); `addresses` without prefix length."""

    id: str
    state: str
    created_ns: int
    addresses: tuple[str, ...]
    pause_pid: int
    monitor_pid: int
    netns_path: str
    cgroup_path: str
    hostname: str
    config: PodSandboxConfig


@dataclass(frozen=True)
class ContainerStatus:
    """`state` is CREATED, RUNNING or EXITED (api.proto ContainerState)."""

    id: str
    pod_sandbox_id: str
    state: str
    created_ns: int
    started_ns: int
    finished_ns: int
    exit_code: int
    signal: int
    reason: str
    message: str
    pid: int
    image_id: str
    log_path: str
    cgroup_path: str
    config: ContainerConfig


@dataclass(frozen=True)
class RuntimeEvent:
    """`kind`: started, exited, oom (a process of the container was killed), pod-lost (monitor or pause died)."""

    kind: str
    pod_sandbox_id: str
    container_id: str = ""


def sandbox_status(record: SandboxRecord) -> PodSandboxStatus:
    return PodSandboxStatus(
        id=record.id,
        state=READY if record.state == READY else "NOTREADY",
        created_ns=record.created_ns,
        addresses=tuple(address.split("/")[0] for address in record.addresses),
        pause_pid=record.pause_pid,
        monitor_pid=record.monitor_pid,
        netns_path=record.netns_path,
        cgroup_path=record.cgroup_path,
        hostname=record.hostname,
        config=record.config,
    )


def container_status(record: ContainerRecord) -> ContainerStatus:
    return ContainerStatus(
        id=record.id,
        pod_sandbox_id=record.pod_sandbox_id,
        state="CREATED" if record.state == STARTING else record.state,
        created_ns=record.created_ns,
        started_ns=record.started_ns,
        finished_ns=record.finished_ns,
        exit_code=record.exit_code,
        signal=record.signal,
        reason=record.reason,
        message=record.message,
        pid=record.pid,
        image_id=record.image_id,
        log_path=record.log_path,
        cgroup_path=record.cgroup_path,
        config=record.config,
    )
