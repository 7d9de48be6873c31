"""What the pod controller relies on in a runtime: the same cases on the unit tests' fake and on the real one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from runtime_host import Host

from sandbox.errors import NotFound, PlanError
from sandbox.pods.ports import RuntimePort
from sandbox.runtime.config import ContainerConfig, PodSandboxConfig, PodSandboxMetadata
from sandbox.runtime.status import RuntimeEvent
from sandbox.timeline import Timeline
from tests.unit.pods_fakes import FakeRuntime

SCRIPTS = {
    "runs": "trap 'exit 143' TERM; while :; do sleep 0.05; done",
    "fails": "exit 7",
    "stubborn": "trap '' TERM; while :; do sleep 0.05; done",
}


class Subject:
    """A runtime and the ways to make its containers behave. `lose` kills what holds the pod together."""

    def __init__(self, runtime: RuntimePort, lose: Callable[[str], None]) -> None:
        self.runtime = runtime
        self.lose = lose
        self.events: list[RuntimeEvent] = []
        runtime.subscribe(self._heard)

    def _heard(self, event: RuntimeEvent) -> None:
        if event.kind == "exited":
            assert self.runtime.container_status(event.container_id).state == "EXITED", "the event came too early"
        self.events.append(event)

    async def sandbox(self) -> str:
        config = PodSandboxConfig(PodSandboxMetadata("web", f"uid-{os.urandom(4).hex()}"))
        return await self.runtime.run_pod_sandbox(config, Timeline())

    async def create(self, sandbox: str, behaviour: str) -> str:
        if isinstance(self.runtime, FakeRuntime):
            self.runtime.behaviour = {"fails": [7]}
            self.runtime.ignores_sigterm = {"stubborn"}
            if behaviour == "missing":
                self.runtime.fail["start_container"] = [PlanError("exec /missing", errno=2)]
        command = ("/missing",) if behaviour == "missing" else ("/bin/sh", "-c", SCRIPTS[behaviour])
        config = ContainerConfig(name=behaviour, image="localhost/busybox", command=command)
        return await self.runtime.create_container(sandbox, config, Timeline())

    async def start(self, sandbox: str, behaviour: str) -> str:
        id = await self.create(sandbox, behaviour)
        await self.runtime.start_container(id, Timeline())
        return id

    async def until(self, test: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not test():
                await asyncio.sleep(0.005)

    async def ended(self, id: str) -> None:
        await self.until(lambda: self.runtime.container_status(id).state == "EXITED")


@pytest_asyncio.fixture(params=["fake", "real"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    if request.param == "fake":
        fake = FakeRuntime()
        yield Subject(fake, fake.lose)
        return
    host = Host(tmp_path)
    runtime = await host.runtime()

    def kill_monitor(id: str) -> None:
        os.kill(runtime.pod_sandbox_status(id).monitor_pid, signal.SIGKILL)

    yield Subject(runtime, kill_monitor)
    await host.close()


async def test_a_pod_sandbox_from_start_to_end(subject: Subject) -> None:
    runtime = subject.runtime
    id = await subject.sandbox()
    status = runtime.pod_sandbox_status(id)
    assert status.state == "READY" and status.addresses and "/" not in status.addresses[0]
    assert [s.id for s in runtime.list_pod_sandboxes()] == [id]
    for _ in range(2):
        await runtime.stop_pod_sandbox(id)
        assert runtime.pod_sandbox_status(id).state == "NOTREADY"
    for _ in range(2):
        await runtime.remove_pod_sandbox(id)
    assert runtime.list_pod_sandboxes() == []
    with pytest.raises(NotFound):
        runtime.pod_sandbox_status(id)


async def test_a_container_from_start_to_end(subject: Subject) -> None:
    runtime = subject.runtime
    sandbox = await subject.sandbox()
    id = await subject.create(sandbox, "fails")
    created = runtime.container_status(id)
    assert (created.state, created.started_ns, created.config.name) == ("CREATED", 0, "fails")
    await runtime.start_container(id, Timeline())
    await subject.ended(id)
    ended = runtime.container_status(id)
    assert (ended.exit_code, ended.signal, ended.reason, ended.pod_sandbox_id) == (7, 0, "Error", sandbox)
    assert 0 < ended.started_ns <= ended.finished_ns and ended.image_id
    assert [e.kind for e in subject.events if e.container_id == id].count("exited") == 1
    assert [c.id for c in runtime.list_containers(sandbox)] == [id] and runtime.list_containers("other") == []
    for _ in range(2):
        await runtime.remove_container(id)
    with pytest.raises(NotFound):
        runtime.container_status(id)
    await runtime.remove_pod_sandbox(sandbox)


async def test_stop_is_graceful_and_then_not(subject: Subject) -> None:
    runtime = subject.runtime
    sandbox = await subject.sandbox()
    gentle, stubborn = await subject.start(sandbox, "runs"), await subject.start(sandbox, "stubborn")
    await asyncio.sleep(0.2)  # the shells set their traps
    await runtime.stop_container(gentle, 10)
    assert runtime.container_status(gentle).exit_code == 143
    await runtime.stop_container(stubborn, 0.3)
    assert (runtime.container_status(stubborn).exit_code, runtime.container_status(stubborn).signal) == (137, 9)
    await runtime.stop_container(stubborn, 1)
    await runtime.stop_container("unknown", 1)
    await runtime.remove_container("unknown")
    await runtime.stop_pod_sandbox("unknown")
    await runtime.remove_pod_sandbox("unknown")
    await runtime.remove_pod_sandbox(sandbox)


async def test_a_second_stop_overtakes_the_first(subject: Subject) -> None:
    runtime = subject.runtime
    sandbox = await subject.sandbox()
    id = await subject.start(sandbox, "stubborn")
    await asyncio.sleep(0.2)
    slow = asyncio.ensure_future(runtime.stop_container(id, 60))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        await runtime.stop_container(id, 0)
        await slow
    assert runtime.container_status(id).exit_code == 137
    await runtime.remove_pod_sandbox(sandbox)


async def test_a_start_that_fails_is_an_error_and_can_be_removed(subject: Subject) -> None:
    runtime = subject.runtime
    sandbox = await subject.sandbox()
    id = await subject.create(sandbox, "missing")
    with pytest.raises(PlanError) as caught:
        await runtime.start_container(id, Timeline())
    assert "/missing" in str(caught.value) and caught.value.errno == 2
    await runtime.remove_container(id)
    again = await subject.start(sandbox, "runs")
    assert runtime.container_status(again).state == "RUNNING"
    await runtime.remove_pod_sandbox(sandbox)
    assert runtime.list_containers() == []


async def test_a_lost_pod_is_told_and_can_be_removed(subject: Subject) -> None:
    runtime = subject.runtime
    sandbox = await subject.sandbox()
    await subject.start(sandbox, "runs")
    subject.lose(sandbox)
    await subject.until(lambda: any(e.kind == "pod-lost" for e in subject.events))
    assert runtime.pod_sandbox_status(sandbox).state == "NOTREADY"
    await runtime.stop_pod_sandbox(sandbox)
    assert all(c.state == "EXITED" and c.exit_code == 137 for c in runtime.list_containers(sandbox))
    await runtime.remove_pod_sandbox(sandbox)
    assert runtime.list_pod_sandboxes() == [] and runtime.list_containers() == []
