"""What the runtime remembers of pod sandboxes and containers, and how it changes.

    pod sandbox   CREATING ──▶ READY ──▶ NOTREADY ──▶ (gone)
                      └──────────────────────┘
    container     CREATED ──▶ STARTING ──▶ RUNNING ──▶ EXITED ──▶ (gone)
                      │           └─────────────────────▲
                      └─────────────────────────────────┘ (stopped before it started)

A state is stored before the kernel is touched (CREATING, STARTING) and after it answered: what a killed daemon leaves
is found by its record.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox.cgroups.resources import CgroupResources
from sandbox.runtime.codec import from_json, to_json
from sandbox.runtime.config import ContainerConfig, PodSandboxConfig
from sandbox.store.database import Database

CREATING, READY, NOTREADY = "CREATING", "READY", "NOTREADY"
CREATED, STARTING, RUNNING, EXITED = "CREATED", "STARTING", "RUNNING", "EXITED"


@dataclass(frozen=True)
class SandboxRecord:
    """`monitor_*` and `pause_*` identify processes of the boot `boot_id`; `addresses` are "10.0.0.5/16"."""

    id: str
    config: PodSandboxConfig
    state: str
    created_ns: int
    boot_id: str
    cgroup_path: str
    owns_cgroup: bool
    hostname: str
    monitor_pid: int = 0
    monitor_start_time: int = 0
    pause_pid: int = 0
    pause_start_time: int = 0
    netns_path: str = ""
    addresses: tuple[str, ...] = ()
    updating: CgroupResources | None = None
    """The limits that are being written in place of the configuration's; None: none are."""


@dataclass(frozen=True)
class User:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True)
class ContainerRecord:
    """`finished_ns` 0: has not ended. `exit_code` is 128 + `signal` when a signal ended it. Times: wall clock, ns."""

    id: str
    pod_sandbox_id: str
    config: ContainerConfig
    image_id: str
    state: str
    created_ns: int
    cgroup_path: str
    log_path: str = ""
    user: User = field(default_factory=User)
    stop_signal: int = 15
    pid: int = 0
    start_time: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    updating: CgroupResources | None = None
    """As a pod sandbox has it."""


class Records:
    """Both kinds, in memory and in the database at once. One writer: the daemon's event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.sandboxes: dict[str, SandboxRecord] = {
            id: from_json(SandboxRecord, body) for id, body in database.all("pod_sandboxes")
        }
        self.containers: dict[str, ContainerRecord] = {
            id: from_json(ContainerRecord, body) for id, body in database.all("containers")
        }

    def transaction(self) -> AbstractContextManager[None]:
        return self._database.transaction()

    def put_sandbox(self, record: SandboxRecord) -> SandboxRecord:
        self._database.put("pod_sandboxes", record.id, to_json(record))
        self.sandboxes[record.id] = record
        return record

    def change_sandbox(self, id: str, **changes: Any) -> SandboxRecord:
        return self.put_sandbox(replace(self.sandboxes[id], **changes))

    def drop_sandbox(self, id: str) -> None:
        self._database.delete("pod_sandboxes", id)
        self.sandboxes.pop(id, None)

    def put_container(self, record: ContainerRecord) -> ContainerRecord:
        self._database.put("containers", record.id, to_json(record), owner=record.pod_sandbox_id)
        self.containers[record.id] = record
        return record

    def change_container(self, id: str, **changes: Any) -> ContainerRecord:
        return self.put_container(replace(self.containers[id], **changes))

    def drop_container(self, id: str) -> None:
        self._database.delete("containers", id)
        self.containers.pop(id, None)

    def containers_of(self, pod_sandbox_id: str) -> list[ContainerRecord]:
        return [r for r in self.containers.values() if r.pod_sandbox_id == pod_sandbox_id]
