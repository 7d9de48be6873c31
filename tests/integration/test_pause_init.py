"""The pause process: PID 1 of a pod, in the namespaces that the runtime's own plan makes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from pause_pod import Pod, until

from sandbox.linux import constants as k
from sandbox.linux.capabilities import read_sets
from sandbox.runtime import ops
from sandbox.runtime.config import PodSandboxConfig, PodSandboxMetadata
from sandbox.runtime.monitor import RunRequest, RunResult
from sandbox.runtime.sandbox_plan import compile_sandbox, sandbox_clone_flags


@pytest_asyncio.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    one = Pod(tmp_path)
    await one.start()
    yield one
    await one.close()


async def start_pause(pod: Pod) -> RunResult:
    config = PodSandboxConfig(metadata=PodSandboxMetadata(name="box", uid="u"))
    plan = compile_sandbox(config, str(pod.socket.parent))
    return await pod.run_plan(
        plan, id="pause", fds=(pod.binary.fd,), clone_flags=sandbox_clone_flags(config), capture=False, log_slot=-1
    )


async def join(pod: Pod, pause: RunResult, command: str, id: str) -> None:
    """`command` in the namespaces of the pod, with the host's files."""
    steps = (ops.Setns(1, k.CLONE_NEWIPC | k.CLONE_NEWUTS), ops.Exec(("/bin/busybox", "sh", "-c", command)))
    plan = ops.Plan(steps, given=("log", "pause"))
    await pod.run_plan(plan, id=id, fds=(pod.log_fd, pause.pidfd), pidns_slot=1, clone_flags=0)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


async def test_there_is_nothing_in_it(pod: Pod) -> None:
    pause = await start_pause(pod)
    await until(lambda: status(pause.pid)["Seccomp"] == "2")
    found = status(pause.pid)
    assert found["Name"] == "pause" and found["NSpid"].split()[-1] == "1"
    assert "0" not in found["Uid"].split() and "0" not in found["Gid"].split() and found["Groups"] == ""
    assert found["NoNewPrivs"] == "1" and set(read_sets(pause.pid).values()) == {0}
    assert list(Path(f"/proc/{pause.pid}/fd").iterdir()) == []
    assert sorted(path.name for path in Path(f"/proc/{pause.pid}/root").iterdir()) == ["root", "shm"]
    assert Path(f"/proc/{pause.pid}/mem").stat().st_uid == 0  # not dumpable: its own user cannot look into it
    assert len(pause.fds) == 2


async def test_it_reaps_orphans_and_the_pod_cannot_end_it(pod: Pod) -> None:
    pause = await start_pause(pod)
    await join(pod, pause, "for i in 1 2 3 4 5 6 7 8; do (sleep 0.05 &) ; done; kill -TERM 1; kill -KILL 1", "c")
    assert (await pod.exit_of("c")).code == 0
    children = Path(f"/proc/{pause.pid}/task/{pause.pid}/children")
    await until(lambda: children.read_text() == "")
    assert "pause" not in pod.exits


async def test_it_ends_when_it_is_told_from_outside(pod: Pod) -> None:
    pause = await start_pause(pod)
    await join(pod, pause, "sleep 100", "c")
    await pod.monitor.signal("pause", signal.SIGTERM)
    record = await pod.exit_of("pause")
    assert (record.code, record.signal) == (0, 0)
    assert (await pod.exit_of("c")).signal == 9  # with its PID 1 goes the namespace


async def test_memory_of_a_pod(pod: Pod) -> None:
    pause = await start_pause(pod)
    await until(lambda: status(pause.pid)["Seccomp"] == "2")

    def pss(pid: int) -> int:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    assert pss(pause.pid) + pss(pod.monitor.pid) < 128


async def test_the_namespaces_end_with_the_pod(pod: Pod) -> None:
    pause = await start_pause(pod)
    names = ("net", "ipc", "uts", "pid", "mnt")
    own = {name: Path(f"/proc/self/ns/{name}").stat().st_ino for name in names}
    theirs = {name: Path(f"/proc/{pause.pid}/ns/{name}").stat().st_ino for name in names}
    assert all(own[name] != theirs[name] for name in names)
    await pod.monitor.shutdown()
    assert not Path(f"/proc/{pause.pid}").exists()


async def test_many_at_once(tmp_path: Path) -> None:
    """Pods do not wait for each other."""
    pods = []
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        pods.append(Pod(tmp_path / str(number)))
    try:
        await asyncio.gather(*(pod.start() for pod in pods))
        results = await asyncio.gather(*(start_pause(pod) for pod in pods))
        assert len({result.pid for result in results}) == 8
        request = RunRequest("x", ops.Plan((ops.Exec(("/bin/busybox", "true")),)))
        for result in await asyncio.gather(*(pod.monitor.run(request) for pod in pods)):
            os.close(result.pidfd)
    finally:
        await asyncio.gather(*(pod.close() for pod in pods))
