"""What a killed daemon leaves, and what the next one makes of it; on a fake runtime."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from sandbox.errors import NotFound
from sandbox.pods.record import now_ns
from tests.unit.pods_fakes import Harness, pod, state_of


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


MANIFEST = pod(init="one", spec="volumes: [{name: v, emptyDir: {}}]")


async def _die_in_call(harness: Harness, number: int) -> Harness:
    harness.runtime.behaviour = {"one": [0]}
    harness.runtime.hang_at = number
    await harness.apply(MANIFEST)
    await asyncio.wait_for(harness.runtime.hung.wait(), 5)
    return await harness.restart()


CALLS_OF_A_START = 5
"""run_pod_sandbox, then create and start of the init container and of the app."""


@pytest.mark.parametrize("number", range(1, CALLS_OF_A_START + 1))
async def test_a_daemon_that_dies_in_a_start_finishes_it_later(harness: Harness, number: int) -> None:
    after = await _die_in_call(harness, number)
    after.runtime.behaviour = {"one": [0]}
    ready = await after.controller.wait("default", "web", "ready", 5)
    assert state_of(ready, "app")["restartCount"] == 0
    assert len(after.runtime.sandboxes) == 1
    await after.until(lambda: sorted(c.config.name for c in after.runtime.containers.values()) == ["app", "one"])
    await after.controller.delete("default", "web")
    assert not after.runtime.sandboxes and not after.database.all("pods")


@pytest.mark.parametrize("step", ["stop_container", "stop_pod_sandbox", "remove_pod_sandbox"])
async def test_a_daemon_that_dies_in_a_removal_finishes_it_later(harness: Harness, step: str) -> None:
    await harness.run(pod(spec="volumes: [{name: v, emptyDir: {}}]"))
    harness.runtime.gates[step] = asyncio.Event()
    removal = asyncio.ensure_future(harness.controller.delete("default", "web"))
    await harness.until(lambda: step in harness.runtime.names())
    removal.cancel()
    after = await harness.restart()
    await after.until(lambda: not after.controller.list())
    assert not after.runtime.sandboxes and not after.runtime.containers and not after.database.all("pods")
    assert not list((after.directory / "root" / "volumes").iterdir())


async def test_a_daemon_that_dies_before_it_stored_the_sandbox_leaves_an_orphan_that_goes(harness: Harness) -> None:
    await harness.run(pod())
    record = harness.database.all("pods")[0][1]
    ours = harness.runtime.sandboxes[record["sandbox_id"]]
    harness.runtime.sandboxes["orphan"] = type(ours)(**{**ours.__dict__, "id": "orphan"})
    config = type(ours.config)(metadata=ours.config.metadata)
    harness.runtime.sandboxes["cri"] = type(ours)(**{**ours.__dict__, "id": "cri", "config": config})
    after = await harness.restart()
    await after.until(lambda: "orphan" not in after.runtime.sandboxes)
    assert set(after.runtime.sandboxes) == {ours.id, "cri"}, "what the CRI made is not ours"


async def test_a_running_pod_is_taken_up_untouched(harness: Harness) -> None:
    before = await harness.run(pod())
    after = await harness.restart()
    assert after.controller.get("default", "web") == before
    await asyncio.sleep(0.02)
    assert not after.runtime.calls
    after.runtime.exit("app", 1)
    await after.until(lambda: state_of(after.controller.get("default", "web"), "app")["restartCount"] == 1)


async def test_an_exit_that_was_missed_is_told_once(harness: Harness) -> None:
    await harness.run(pod(restart="Never"))
    await harness.controller.close()
    harness.runtime.exit("app", 9)
    after = await harness.restart()
    done = await after.controller.wait("default", "web", "done", 5)
    assert state_of(done, "app")["state"]["terminated"]["exitCode"] == 9
    again = await after.restart()
    await asyncio.sleep(0.02)
    assert again.controller.get("default", "web") == done
    assert harness.events.count(("Warning", "Exited", "Container app exited with code 9", "default", "web", "app")) == 1


async def test_a_back_off_goes_on_where_it_was(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    object.__setattr__(harness.settings, "backoff_base_s", 0.3)
    object.__setattr__(harness.settings, "backoff_max_s", 10.0)
    await harness.run(pod())
    for count in (1, 2):
        harness.runtime.exit("app", 1)
        await harness.until(lambda n=count: harness.reasons("app").count("Exited") == n)  # type: ignore[misc]
    crashed = time.monotonic()
    await harness.until(lambda: "BackOff" in harness.reasons("app"))
    after = await harness.restart()
    await after.until(lambda: state_of(after.controller.get("default", "web"), "app")["restartCount"] == 2)
    waited = time.monotonic() - crashed
    assert 0.25 < waited < 0.9, "neither at once nor from the start again"
    assert harness.reasons("app").count("BackOff") == 1


async def test_a_finished_pod_stays_finished(harness: Harness) -> None:
    harness.runtime.behaviour = {"app": [0]}
    done = await harness.run(pod(restart="Never"), "done")
    after = await harness.restart()
    await asyncio.sleep(0.02)
    assert after.controller.get("default", "web") == done and not after.runtime.calls


async def test_a_deadline_counts_the_time_the_daemon_was_away(harness: Harness) -> None:
    await harness.run(pod(spec="activeDeadlineSeconds: 60"))
    ((uid, body),) = harness.database.all("pods")
    await harness.controller.close()
    body["started_ns"] = now_ns() - 61 * 10**9
    harness.database.put("pods", uid, body)
    after = await harness.restart()
    done = await after.controller.wait("default", "web", "done", 5)
    assert done["status"]["reason"] == "DeadlineExceeded"


async def test_volumes_and_logs_that_belong_to_nobody_go(harness: Harness) -> None:
    await harness.run(pod(spec="volumes: [{name: v, emptyDir: {}}]"))
    uid = harness.controller.get("default", "web")["metadata"]["uid"]
    (harness.settings.volumes_directory("stale-uid") / "v").mkdir(parents=True)
    harness.settings.log_directory("default", "old", "stale-uid").mkdir(parents=True)
    ours = harness.settings.log_directory("default", "web", uid)
    ours.mkdir(parents=True)
    after = await harness.restart()
    stale = [
        harness.settings.volumes_directory("stale-uid"),
        harness.settings.log_directory("default", "old", "stale-uid"),
    ]
    await after.until(lambda: not any(path.exists() for path in stale))
    assert ours.exists() and (harness.settings.volumes_directory(uid) / "v").is_dir()


async def test_a_hundred_pods_are_back_at_once(harness: Harness) -> None:
    for applied in await harness.apply(*(pod(f"p{n}") for n in range(100))):
        await harness.controller.wait(applied.namespace, applied.name, "ready", 20)
    await harness.controller.close()
    began = time.monotonic()
    after = await harness.restart()
    assert len(after.controller.list()) == 100
    took = time.monotonic() - began
    print(f"100 pods taken up in {took * 1000:.0f} ms")
    assert took < 0.5


async def test_a_stuck_orphan_holds_up_nobody(harness: Harness) -> None:
    await harness.run(pod())
    await harness.controller.close()
    ours = next(iter(harness.runtime.sandboxes.values()))
    harness.runtime.sandboxes["orphan"] = type(ours)(**{**ours.__dict__, "id": "orphan"})
    after = Harness(
        harness.directory,
        harness.runtime.restarted(),
        harness.tmpfs,
        harness.events,
        harness.images,
        harness.settings,
        harness.database,
    )
    after.runtime.gates["stop_pod_sandbox"] = asyncio.Event()
    await after.controller.recover()
    after.runtime.exit("app", 1)
    await after.until(lambda: state_of(after.controller.get("default", "web"), "app")["restartCount"] == 1)
    await after.controller.close()


async def test_objects_outlive_the_daemon(harness: Harness) -> None:
    secret = "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {k: v}}"
    await harness.apply(secret, pod(container="env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]"))
    await harness.controller.wait("default", "web", "ready", 5)
    after = await harness.restart()
    after.runtime.exit("app", 1)
    await after.until(lambda: state_of(after.controller.get("default", "web"), "app")["restartCount"] == 1)
    newest = max(after.runtime.containers.values(), key=lambda c: c.created_ns)
    assert newest.config.env == (("A", "v"),)


async def test_unknown_pods_are_not_found(harness: Harness) -> None:
    for call in (harness.controller.stop, harness.controller.delete):
        with pytest.raises(NotFound, match="pod default/nope does not exist"):
            await call("default", "nope")
