"""Fakes at the pod controller's boundary: an in-memory runtime and a tmpfs that is a plain directory.

`tests/integration/test_pods_contract.py` runs the same cases against this runtime and against the real one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.cgroups.resources import CgroupResources
from sandbox.errors import ImageNotFound, InvalidInput, NotFound, UnsupportedByHost
from sandbox.manifest import load_manifests
from sandbox.pods.controller import PodController
from sandbox.pods.settings import PodSettings
from sandbox.runtime.config import ContainerConfig, PodSandboxConfig
from sandbox.runtime.status import ContainerStatus, PodSandboxStatus, RuntimeEvent
from sandbox.runtime.updates import ResourceChange
from sandbox.store.database import Database
from sandbox.timeline import Timeline


@dataclass
class FakeRuntime:
    """Keeps the rules of the real one: ids, states, idempotent stop and remove, events after the change.

    `calls` is what was asked, in order. `fail` maps a call's name to errors to raise, one a call. `behaviour` maps a
    container's name to the exit codes of its runs, at once; those not named run on.
    """

    sandboxes: dict[str, PodSandboxStatus] = field(default_factory=dict)
    containers: dict[str, ContainerStatus] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    fail: dict[str, list[Exception]] = field(default_factory=dict)
    behaviour: dict[str, list[int]] = field(default_factory=dict)
    ignores_sigterm: set[str] = field(default_factory=set)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """A call waits for the gate of its name."""
    killed: dict[str, asyncio.Event] = field(default_factory=dict)
    hang_at: int = 0
    """The call of this number never returns: the daemon dies in it, before it had an effect."""
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    subscribers: list[Callable[[RuntimeEvent], None]] = field(default_factory=list)
    sequence: int = 0

    async def _call(self, name: str, subject: str) -> None:
        self.calls.append((name, subject))
        await asyncio.sleep(0)
        if len(self.calls) == self.hang_at:
            self.hung.set()
            await asyncio.Event().wait()
        if name in self.gates:
            await self.gates[name].wait()
        if self.fail.get(name):
            raise self.fail[name].pop(0)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def _id(self, prefix: str) -> str:
        self.sequence += 1
        return f"{prefix}{self.sequence}"

    async def run_pod_sandbox(self, config: PodSandboxConfig, timeline: Timeline | None = None) -> str:
        await self._call("run_pod_sandbox", config.metadata.name)
        id = self._id("s")
        self.sandboxes[id] = PodSandboxStatus(
            id, "READY", time.time_ns(), (f"10.88.0.{self.sequence}",), 0, 0, "/none", "", config.hostname, config
        )
        return id

    async def stop_pod_sandbox(self, id: str) -> None:
        await self._call("stop_pod_sandbox", id)
        for container in self.list_containers(id):
            self.exit(container.config.name, 137, signal=9, pod_sandbox_id=id)
        if id in self.sandboxes:
            self.sandboxes[id] = dataclasses.replace(self.sandboxes[id], state="NOTREADY")

    async def remove_pod_sandbox(self, id: str) -> None:
        await self._call("remove_pod_sandbox", id)
        self.sandboxes.pop(id, None)
        self.containers = {k: c for k, c in self.containers.items() if c.pod_sandbox_id != id}

    def check_limits(self, resources: CgroupResources) -> None:
        if resources.hugepage_limits:
            raise UnsupportedByHost("cgroup controller hugetlb is not mounted", operation="check limits")
        if resources.memory_high_bytes is not None:
            raise UnsupportedByHost("memory.high needs cgroup v2", operation="check limits")

    def sandbox_plan(self, config: PodSandboxConfig) -> object:
        return None

    def container_plan(self, sandbox: PodSandboxConfig, config: ContainerConfig) -> object:
        self.check_limits(config.resources)
        if config.security.run_as_non_root and not config.security.run_as_user:
            raise InvalidInput("must not run as root")
        return None

    def pod_sandbox_status(self, id: str) -> PodSandboxStatus:
        if id not in self.sandboxes:
            raise NotFound(f"pod sandbox {id} does not exist")
        return self.sandboxes[id]

    def list_pod_sandboxes(self) -> list[PodSandboxStatus]:
        return list(self.sandboxes.values())

    async def create_container(
        self, pod_sandbox_id: str, config: ContainerConfig, timeline: Timeline | None = None
    ) -> str:
        await self._call("create_container", config.name)
        assert self.sandboxes[pod_sandbox_id].state == "READY"
        id = self._id("c")
        self.containers[id] = ContainerStatus(
            id, pod_sandbox_id, "CREATED", time.time_ns(), 0, 0, 0, 0, "", "", 0, "sha256:image", "", "", config
        )
        return id

    async def start_container(self, id: str, timeline: Timeline | None = None) -> None:
        name = self.containers[id].config.name
        await self._call("start_container", name)
        assert self.containers[id].state == "CREATED"
        self.killed[id] = asyncio.Event()
        self._change(id, state="RUNNING", started_ns=time.time_ns(), pid=1)
        if self.behaviour.get(name):
            code = self.behaviour[name].pop(0)
            asyncio.get_running_loop().call_soon(self.exit, name, code)

    async def stop_container(self, id: str, grace_s: float = 30.0) -> None:
        if id not in self.containers:
            self.calls.append(("stop_container", id))
            return
        name = self.containers[id].config.name
        await self._call("stop_container", f"{name} {grace_s:.0f}")
        if self.containers[id].state != "RUNNING":
            return
        if grace_s > 0 and name in self.ignores_sigterm:
            try:
                await asyncio.wait_for(self.killed[id].wait(), grace_s)
                return
            except TimeoutError:
                pass
        graceful = grace_s > 0 and name not in self.ignores_sigterm
        self.exit(name, 143 if graceful else 137, signal=15 if graceful else 9)

    async def remove_container(self, id: str) -> None:
        await self._call("remove_container", id)
        self.containers.pop(id, None)

    async def update_resources(
        self, changes: Sequence[ResourceChange], stored: Callable[[], None] = lambda: None
    ) -> None:
        await self._call("update_resources", " ".join(sorted(change.id for change in changes)))
        for change in changes:
            things: Any = self.sandboxes if change.id in self.sandboxes else self.containers
            config = dataclasses.replace(things[change.id].config, resources=change.resources)
            things[change.id] = dataclasses.replace(things[change.id], config=config)
        stored()

    def container_status(self, id: str) -> ContainerStatus:
        if id not in self.containers:
            raise NotFound(f"container {id} does not exist")
        return self.containers[id]

    def list_containers(self, pod_sandbox_id: str | None = None) -> list[ContainerStatus]:
        return [c for c in self.containers.values() if pod_sandbox_id in (None, c.pod_sandbox_id)]

    def subscribe(self, callback: Callable[[RuntimeEvent], None]) -> None:
        self.subscribers.append(callback)

    # What a test does to it

    def exit(self, name: str, code: int, *, signal: int = 0, reason: str = "", pod_sandbox_id: str = "") -> None:
        """The running container `name` ends."""
        for id, status in list(self.containers.items()):
            if (
                status.config.name == name
                and status.state == "RUNNING"
                and pod_sandbox_id in ("", status.pod_sandbox_id)
            ):
                self._change(
                    id,
                    state="EXITED",
                    exit_code=code,
                    signal=signal,
                    finished_ns=time.time_ns(),
                    reason=reason or ("Error" if code else "Completed"),
                )
                self.killed[id].set()
                self._emit(RuntimeEvent("exited", status.pod_sandbox_id, id))

    def out_of_memory(self, id: str) -> None:
        """The kernel killed a process of the container, not its first."""
        self._emit(RuntimeEvent("oom", self.containers[id].pod_sandbox_id, id))

    def lose(self, id: str) -> None:
        """The monitor of a pod sandbox died."""
        self.sandboxes[id] = dataclasses.replace(self.sandboxes[id], state="NOTREADY")
        self._emit(RuntimeEvent("pod-lost", id))

    def _change(self, id: str, **changes: Any) -> None:
        self.containers[id] = dataclasses.replace(self.containers[id], **changes)

    def _emit(self, event: RuntimeEvent) -> None:
        for callback in self.subscribers:
            callback(event)

    def restarted(self) -> FakeRuntime:
        """The same kernel after a restart of the daemon: nobody is subscribed, nobody waits."""
        return FakeRuntime(sandboxes=self.sandboxes, containers=self.containers, killed=self.killed, sequence=900)


class DirectoryTmpfs:
    """`ports.Tmpfs` without root: the directory itself."""

    def __init__(self) -> None:
        self.mounted: dict[Path, int | None] = {}

    def mount(self, path: Path, size_bytes: int | None, mode: int) -> None:
        self.mounted.setdefault(path, size_bytes)

    def unmount(self, path: Path) -> None:
        if self.mounted.pop(path, 0) != 0:
            shutil.rmtree(path)
            path.mkdir()


@dataclass
class Harness:
    """A controller on fakes, in `directory`."""

    directory: Path
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    tmpfs: DirectoryTmpfs = field(default_factory=DirectoryTmpfs)
    events: list[tuple[str, str, str, str, str, str]] = field(default_factory=list)
    images: set[str] = field(default_factory=lambda: {"localhost/busybox"})
    settings: PodSettings = None  # type: ignore[assignment]
    database: Database = None  # type: ignore[assignment]
    controller: PodController = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.settings = self.settings or PodSettings(
            root=self.directory / "root",
            run_dir=self.directory / "run",
            backoff_base_s=0.02,
            backoff_max_s=0.08,
            teardown_retry_s=0.01,
            host_ip="192.0.2.7",
            node_name="node",
            resolv_conf=self.directory / "resolv.conf",
        )
        self.database = self.database or Database(self.directory / "state.db")
        self.controller = PodController(
            self.runtime,
            self.database,
            self.settings,
            lambda *event: self.events.append(event),
            resolve_image=self.resolve,
            tmpfs=self.tmpfs,
        )

    def resolve(self, reference: str) -> str:
        if reference not in self.images:
            raise ImageNotFound(f"image {reference!r} is not in the store", hint="did you mean 'localhost/busybox'?")
        return "sha256:image"

    async def apply(self, *texts: str, **options: Any) -> list[Any]:
        objects = load_manifests([(f"{n}.yaml", text.encode()) for n, text in enumerate(texts)])
        return await self.controller.apply(objects, Timeline(), **options)

    async def run(self, text: str, condition: str = "ready", **options: Any) -> dict[str, Any]:
        """Applies one pod and waits for it."""
        (applied,) = await self.apply(text, **options)
        return await self.controller.wait(applied.namespace, applied.name, condition, 5)

    async def until(self, test: Callable[[], object], timeout_s: float = 5) -> None:
        """Waits for a state that some event will bring."""
        async with asyncio.timeout(timeout_s):
            while not test():
                await asyncio.sleep(0.001)

    async def restart(self) -> Harness:
        """The daemon dies without a word and comes back: a new controller on the same store and kernel."""
        await self.controller.close()
        after = Harness(
            self.directory,
            self.runtime.restarted(),
            self.tmpfs,
            self.events,
            self.images,
            self.settings,
            self.database,
        )
        await after.controller.recover()
        return after

    def reasons(self, container: str | None = None) -> list[str]:
        return [event[1] for event in self.events if container in (None, event[5])]


def pod(
    name: str = "web",
    containers: str = "app",
    *,
    init: str = "",
    spec: str = "",
    restart: str = "Always",
    container: str = "",
) -> str:
    """A manifest; `containers` and `init` are names separated by spaces, `container` is YAML for each app container."""
    lines = ["apiVersion: v1", "kind: Pod", f"metadata: {{name: {name}}}", "spec:", f"  restartPolicy: {restart}"]
    for key, names in (("initContainers", init), ("containers", containers)):
        if names:
            lines.append(f"  {key}:")
        for each in names.split():
            lines += [f"  - name: {each}", "    image: localhost/busybox"]
            if key == "containers":
                lines += ["    " + line for line in container.splitlines()]
    lines += ["  " + line for line in spec.splitlines()]
    return "\n".join(lines) + "\n"


def state_of(pod_object: dict[str, Any], name: str) -> dict[str, Any]:
    statuses = pod_object["status"].get("initContainerStatuses", []) + pod_object["status"]["containerStatuses"]
    found: dict[str, Any] = next(status for status in statuses if status["name"] == name)
    return found
