"""The runtime as its callers see it: pod sandboxes and containers, in the CRI's terms.

Single-threaded: every method runs in the daemon's event loop. Errors are those of `sandbox.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox.cgroups.driver import CgroupDriver, CgroupStats
from sandbox.cgroups.resources import CgroupResources
from sandbox.images.store import ImageStore
from sandbox.linux.capabilities import capability_sets
from sandbox.linux.process import boot_id
from sandbox.linux.seccomp import compile_filter
from sandbox.network.manager import NetworkManager
from sandbox.runtime.config import ContainerConfig, PodSandboxConfig
from sandbox.runtime.containers import Containers
from sandbox.runtime.context import Context
from sandbox.runtime.monitor import ExitRecord, PauseBinary
from sandbox.runtime.ops import Plan
from sandbox.runtime.records import Records
from sandbox.runtime.recovery import recover
from sandbox.runtime.sandbox_plan import compile_sandbox
from sandbox.runtime.sandboxes import PodSandboxes
from sandbox.runtime.sessions import Session, Sessions
from sandbox.runtime.status import (
    ContainerStatus,
    PodSandboxStatus,
    RuntimeEvent,
    container_status,
    sandbox_status,
)
from sandbox.runtime.updates import ResourceChange, Updates
from sandbox.runtime.usage import Usage
from sandbox.store.database import Database
from sandbox.timeline import Timeline


class Runtime:
    """`root`, `run_dir`: the daemon's directories. `cgroup_parent`: where pod cgroups are made, below the mounts."""

    def __init__(
        self,
        *,
        root: Path,
        run_dir: Path,
        database: Database,
        cgroups: CgroupDriver,
        images: ImageStore,
        network: NetworkManager,
        pause: Path,
        cgroup_parent: str = "sandbox",
    ) -> None:
        self._context = Context(
            root=root,
            run_dir=run_dir,
            cgroup_parent=cgroup_parent,
            cgroups=cgroups,
            images=images,
            network=network,
            binary=PauseBinary.load(pause),
            records=Records(database),
            boot_id=boot_id(),
        )
        self._sessions = Sessions(self._context)
        self._containers = Containers(self._context)
        self._updates = Updates(self._context)
        self.usage = Usage(self._context)
        self._sandboxes = PodSandboxes(self._context, self._containers, self._sessions)

    async def recover(self) -> None:
        """Once, at the start: adopts what runs, learns what ended, undoes what was begun."""
        await recover(self._context, self._sandboxes, self._containers)
        self._updates.undo_interrupted()
        # The default filter takes 12 ms to compile: not in the first pod's time.
        compile_filter("RuntimeDefault", "", capability_sets().bounding)

    async def close(self) -> None:
        """Lets go of the monitors; pods keep running."""
        for id in list(self._context.watches):
            self._context.drop_watch(id)
        await self._context.settle()
        for monitor in self._context.monitors.values():
            monitor.close()
        self._context.monitors.clear()
        for id in list(self._context.pidfds):
            self._context.drop_pidfd(id)

    def subscribe(self, callback: Callable[[RuntimeEvent], None]) -> None:
        """`callback` runs in the event loop, after the change can be seen in the status."""
        self._context.subscribe(callback)

    async def run_pod_sandbox(self, config: PodSandboxConfig, timeline: Timeline | None = None) -> str:
        """RunPodSandbox: returns the id. A failure leaves nothing behind."""
        return await self._sandboxes.run(config, timeline or Timeline())

    async def stop_pod_sandbox(self, id: str) -> None:
        """StopPodSandbox: kills what runs, gives the network back. Idempotent."""
        await self._sandboxes.stop(id)

    async def remove_pod_sandbox(self, id: str) -> None:
        """RemovePodSandbox: and forgets it. Idempotent."""
        await self._sandboxes.remove(id)

    def pod_sandbox_status(self, id: str) -> PodSandboxStatus:
        return sandbox_status(self._context.sandbox(id))

    def list_pod_sandboxes(self) -> list[PodSandboxStatus]:
        return [sandbox_status(record) for record in self._context.records.sandboxes.values()]

    async def create_container(
        self, pod_sandbox_id: str, config: ContainerConfig, timeline: Timeline | None = None
    ) -> str:
        """CreateContainer: checks everything that can be checked before the start; returns the id."""
        sandbox = self._sandboxes.require_ready(pod_sandbox_id)
        return await self._containers.create(sandbox, config, timeline or Timeline())

    async def start_container(self, id: str, timeline: Timeline | None = None) -> None:
        """StartContainer: returns when the app is executing. PlanError names the operation that failed."""
        await self._containers.start(id, timeline or Timeline())

    async def stop_container(self, id: str, grace_s: float = 30.0) -> None:
        """StopContainer: the stop signal, after `grace_s` SIGKILL. Idempotent."""
        await self._containers.stop(id, grace_s)

    async def remove_container(self, id: str) -> None:
        """RemoveContainer: kills it if it runs. Idempotent."""
        await self._containers.remove(id)

    async def update_container_resources(self, id: str, resources: CgroupResources) -> None:
        """UpdateContainerResources: limits that are None stay. All or nothing; memory below its use is refused."""
        await self._updates.update_container(id, resources)

    def check_resources(self, changes: Sequence[ResourceChange]) -> None:
        """Raises what `update_resources` would before it touches anything."""
        self._updates.check(changes)

    async def update_resources(
        self, changes: Sequence[ResourceChange], stored: Callable[[], None] = lambda: None
    ) -> None:
        """New limits for several pod sandboxes and containers, all or nothing; `stored` joins the last transaction."""
        await self._updates.apply(changes, stored)

    def container_status(self, id: str) -> ContainerStatus:
        return container_status(self._context.container(id))

    def list_containers(self, pod_sandbox_id: str | None = None) -> list[ContainerStatus]:
        records = self._context.records.containers.values()
        return [container_status(r) for r in records if pod_sandbox_id in (None, r.pod_sandbox_id)]

    async def exec(
        self,
        container_id: str,
        command: tuple[str, ...],
        *,
        tty: bool = False,
        stdin: bool = False,
        rows: int = 0,
        columns: int = 0,
    ) -> Session:
        """Starts a process in a running container; the caller closes the session."""
        return await self._sessions.exec(container_id, command, tty=tty, stdin=stdin, rows=rows, columns=columns)

    async def kill_exec(self, container_id: str, session: Session) -> None:
        await self._sessions.kill(container_id, session)

    async def attach(self, container_id: str, *, stdin: bool = False) -> Session:
        """Joins the streams of a running container; the caller closes the session."""
        return await self._sessions.attach(container_id, stdin=stdin)

    async def end_of_input(self, container_id: str, session: Session) -> None:
        await self._sessions.end_of_input(container_id, session)

    async def reopen_container_log(self, id: str) -> None:
        """ReopenContainerLog: after the file was rotated away."""
        await self._containers.reopen_log(id)

    def container_stats(self, id: str) -> CgroupStats:
        return self.usage.of(self._context.container(id).cgroup_path)

    def pod_sandbox_stats(self, id: str) -> CgroupStats:
        return self.usage.of(self._context.sandbox(id).cgroup_path)

    def sandbox_plan(self, config: PodSandboxConfig) -> Plan:
        """What `run_pod_sandbox` would run, for a dry run."""
        return compile_sandbox(config, str(self._context.run_dir))

    def container_plan(self, sandbox: PodSandboxConfig, config: ContainerConfig) -> Plan:
        """What `start_container` would run, for a dry run; ids and paths are stand-ins."""
        return self._containers.dry_run(self._sandboxes.new_record(sandbox), config)

    def check_limits(self, resources: CgroupResources) -> None:
        """Raises UnsupportedByHost that names the controller, or InvalidInput that names the value."""
        self._context.cgroups.check(resources)

    def runtime_info(self) -> dict[str, object]:
        return {"cgroups": self._context.cgroups.mode, "controllers": sorted(self._context.cgroups.controllers)}


__all__ = ["ExitRecord", "Runtime"]
