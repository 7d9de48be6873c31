"""What the rooms of the runtime share: its collaborators, its records, and what lives only while the daemon does."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sandbox.cgroups.driver import CgroupDriver
from sandbox.errors import Conflict, MonitorError, NotFound
from sandbox.images.store import ImageStore
from sandbox.network.manager import NetworkManager
from sandbox.runtime.monitor import Monitor, PauseBinary
from sandbox.runtime.records import READY, ContainerRecord, Records, SandboxRecord
from sandbox.runtime.status import RuntimeEvent

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_PROCESS = "pause"
"""The monitor's name of the pod's PID 1."""


@dataclass
class Context:
    """`root` and `run_dir` are the daemon's directories; `cgroup_parent` a path below the cgroup mounts."""

    root: Path
    run_dir: Path
    cgroup_parent: str
    cgroups: CgroupDriver
    images: ImageStore
    network: NetworkManager
    binary: PauseBinary
    records: Records
    boot_id: str
    monitors: dict[str, Monitor] = field(default_factory=dict)
    pidfds: dict[str, int] = field(default_factory=dict)
    """Of the pause processes (by sandbox id) and the containers' first processes (by container id); owned here."""
    watches: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What ends the watch over a running container's memory, by container id."""
    exited: dict[str, asyncio.Event] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _listeners: list[Callable[[RuntimeEvent], None]] = field(default_factory=list)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def subscribe(self, callback: Callable[[RuntimeEvent], None]) -> None:
        self._listeners.append(callback)

    def emit(self, event: RuntimeEvent) -> None:
        for listener in self._listeners:
            listener(event)

    def spawn_task(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Runs `work` in the background; a failure is logged with what it was about."""

        async def guarded() -> None:
            try:
                await work
            except Exception:
                log.exception("background work failed: %s", what)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def protect(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work`, which goes on to its end also when whoever awaits it is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def settle(self) -> None:
        """Waits for background work, such as the removal of cgroups."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def lock(self, id: str) -> asyncio.Lock:
        return self.locks.setdefault(id, asyncio.Lock())

    def sandbox(self, id: str) -> SandboxRecord:
        record = self.records.sandboxes.get(id)
        if record is None:
            raise NotFound(f"no pod sandbox {id!r}", subject=id)
        return record

    def container(self, id: str) -> ContainerRecord:
        record = self.records.containers.get(id)
        if record is None:
            raise NotFound(f"no container {id!r}", subject=id)
        return record

    def monitor(self, pod_sandbox_id: str) -> Monitor:
        """The live monitor of a READY sandbox. Raises Conflict or MonitorError."""
        record = self.sandbox(pod_sandbox_id)
        monitor = self.monitors.get(pod_sandbox_id)
        if monitor is not None:
            return monitor
        if record.state == READY:
            raise MonitorError(f"the monitor of pod sandbox {pod_sandbox_id} does not answer", subject=pod_sandbox_id)
        raise Conflict(f"pod sandbox {pod_sandbox_id} is {record.state.lower()}", subject=pod_sandbox_id)

    def keep_pidfd(self, id: str, pidfd: int) -> None:
        self.drop_pidfd(id)
        self.pidfds[id] = pidfd

    def drop_pidfd(self, id: str) -> None:
        pidfd = self.pidfds.pop(id, -1)
        if pidfd >= 0:
            os.close(pidfd)

    def keep_watch(self, id: str, end: Callable[[], None]) -> None:
        self.drop_watch(id)
        self.watches[id] = end

    def drop_watch(self, id: str) -> None:
        """Idempotent."""
        self.watches.pop(id, lambda: None)()

    def pod_dir(self, pod_sandbox_id: str) -> Path:
        return self.root / "pods" / pod_sandbox_id

    def pod_run_dir(self, pod_sandbox_id: str) -> Path:
        return self.run_dir / "pods" / pod_sandbox_id

    def monitor_socket(self, pod_sandbox_id: str) -> Path:
        return self.pod_run_dir(pod_sandbox_id) / "monitor.sock"

    def container_dir(self, record: ContainerRecord) -> Path:
        return self.pod_dir(record.pod_sandbox_id) / "containers" / record.id
