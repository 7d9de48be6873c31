"""The life of pods: order, readiness, restarts, the end; on a fake runtime."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from sandbox.errors import Conflict, DeadlineExceeded, InvalidInput, KernelError, NotFound, PlanError, SandboxError
from sandbox.manifest import load_manifests
from sandbox.pods import status
from sandbox.timeline import Timeline
from tests.unit.pods_fakes import Harness, pod, state_of


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


async def test_a_pod_becomes_ready_and_says_so(harness: Harness) -> None:
    ready = await harness.run(pod(containers="app side"))
    assert ready["status"]["phase"] == "Running"
    assert ready["status"]["podIP"] == "10.88.0.1"
    assert ready["status"]["hostIP"] == "192.0.2.7"
    assert {c["type"]: c["status"] for c in ready["status"]["conditions"]} == dict.fromkeys(
        ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"), "True"
    )
    app = state_of(ready, "app")
    assert app["ready"] and app["started"] and app["restartCount"] == 0
    assert app["containerID"].startswith("sandbox://c") and app["imageID"] == "sha256:image"
    assert "startedAt" in app["state"]["running"]
    assert harness.reasons("app") == ["Created", "Started"]


async def test_intent_is_stored_before_the_runtime_is_touched(harness: Harness) -> None:
    harness.runtime.gates["run_pod_sandbox"] = asyncio.Event()
    await harness.apply(pod())
    await harness.until(lambda: harness.runtime.calls)
    ((_, body),) = harness.database.all("pods")
    assert body["name"] == "web" and "sandbox_id" not in body
    harness.runtime.gates.pop("run_pod_sandbox").set()


async def test_init_containers_run_one_after_the_other_before_the_apps(harness: Harness) -> None:
    harness.runtime.behaviour = {"one": [0], "two": [0]}
    ready = await harness.run(pod(init="one two"))
    started = [name for call, name in harness.runtime.calls if call == "start_container"]
    assert started == ["one", "two", "app"]
    assert state_of(ready, "one")["state"]["terminated"]["reason"] == "Completed"
    assert state_of(ready, "one")["ready"] is True


async def test_a_running_init_container_holds_the_apps_back(harness: Harness) -> None:
    await harness.apply(pod(init="one"))
    await harness.until(lambda: ("start_container", "one") in harness.runtime.calls)
    await asyncio.sleep(0.02)
    shown = harness.controller.get("default", "web")
    assert shown["status"]["phase"] == "Pending"
    assert state_of(shown, "app")["state"]["waiting"]["reason"] == "PodInitializing"
    harness.runtime.exit("one", 0)
    await harness.controller.wait("default", "web", "ready", 5)


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
async def test_a_failed_init_container_is_tried_again(harness: Harness, policy: str) -> None:
    harness.runtime.behaviour = {"one": [1, 1, 0]}
    ready = await harness.run(pod(init="one", restart=policy))
    assert state_of(ready, "one")["restartCount"] == 2
    assert state_of(ready, "one")["lastState"]["terminated"]["exitCode"] == 1


async def test_a_failed_init_container_fails_a_pod_that_never_restarts(harness: Harness) -> None:
    harness.runtime.behaviour = {"one": [4]}
    done = await harness.run(pod(init="one", restart="Never"), "done")
    assert done["status"]["phase"] == "Failed"
    assert ("create_container", "app") not in harness.runtime.calls
    assert status.exit_code(done) == 4


async def test_apps_start_in_parallel(harness: Harness) -> None:
    gate = harness.runtime.gates["start_container"] = asyncio.Event()
    await harness.apply(pod(containers="a b c"))
    await harness.until(lambda: harness.runtime.names().count("start_container") == 3)
    gate.set()
    await harness.controller.wait("default", "web", "ready", 5)


@pytest.mark.parametrize(
    ("policy", "codes", "phase", "code"),
    [
        ("Never", {"a": [0], "b": [0]}, "Succeeded", 0),
        ("Never", {"a": [0], "b": [3]}, "Failed", 3),
        ("OnFailure", {"a": [0], "b": [3, 0]}, "Succeeded", 0),
    ],
)
async def test_phase_of_a_pod_that_ended(
    harness: Harness, policy: str, codes: dict[str, list[int]], phase: str, code: int
) -> None:
    harness.runtime.behaviour = codes
    done = await harness.run(pod(containers="a b", restart=policy), "done")
    assert done["status"]["phase"] == phase
    assert status.exit_code(done) == code
    assert not harness.runtime.sandboxes, "a finished pod holds nothing in the runtime"
    assert harness.controller.get("default", "web")["status"]["phase"] == phase


async def test_one_app_that_ended_does_not_end_the_pod(harness: Harness) -> None:
    harness.runtime.behaviour = {"a": [0]}
    await harness.apply(pod(containers="a b", restart="Never"))
    await harness.until(lambda: harness.reasons("a").count("Exited") == 1)
    await asyncio.sleep(0.02)
    shown = harness.controller.get("default", "web")
    assert shown["status"]["phase"] == "Running"
    assert state_of(shown, "b")["state"].keys() == {"running"}


async def test_the_first_restart_is_immediate_and_the_next_back_off(harness: Harness) -> None:
    await harness.run(pod())
    waits = []
    for attempt in range(1, 6):
        crashed = time.monotonic()
        harness.runtime.exit("app", 1)
        await harness.until(
            lambda n=attempt: state_of(harness.controller.get("default", "web"), "app")["restartCount"] == n
        )  # type: ignore[misc]
        waits.append(time.monotonic() - crashed)
        await harness.controller.wait("default", "web", "ready", 5)
    assert waits[0] < 0.015
    assert [round(wait / 0.02) >= expected for wait, expected in zip(waits[1:], (1, 2, 4, 4), strict=True)] == [
        True
    ] * 4
    assert waits[4] < 0.2, "the delay is capped"


async def test_a_backing_off_container_is_shown_as_kubectl_shows_it(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    object.__setattr__(harness.settings, "backoff_base_s", 30.0)
    object.__setattr__(harness.settings, "backoff_max_s", 300.0)
    await harness.run(pod())
    for count in (1, 2):
        harness.runtime.exit("app", 7)
        await harness.until(lambda n=count: harness.reasons("app").count("Exited") == n)  # type: ignore[misc]
    await harness.until(lambda: "BackOff" in harness.reasons("app"))
    shown = harness.controller.get("default", "web")
    app = state_of(shown, "app")
    assert app["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert app["state"]["waiting"]["message"].startswith("back-off 30s restarting failed container app in pod web_")
    assert app["lastState"]["terminated"]["exitCode"] == 7
    assert app["restartCount"] == 1
    assert shown["status"]["phase"] == "Running"
    await asyncio.sleep(0.01)
    assert harness.reasons("app").count("BackOff") == 1
    await harness.controller.delete("default", "web")


async def test_only_the_crashed_container_restarts(harness: Harness) -> None:
    before = await harness.run(pod(containers="a b"))
    harness.runtime.exit("a", 1)
    await harness.until(lambda: state_of(harness.controller.get("default", "web"), "a")["restartCount"] == 1)
    after = await harness.controller.wait("default", "web", "ready", 5)
    assert state_of(after, "b") == state_of(before, "b")
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert harness.runtime.names().count("run_pod_sandbox") == 1
    await harness.until(lambda: len(harness.runtime.containers) == 2)


async def test_an_oom_kill_is_told(harness: Harness) -> None:
    await harness.run(pod(restart="Never"))
    harness.runtime.exit("app", 137, signal=9, reason="OOMKilled")
    done = await harness.controller.wait("default", "web", "done", 5)
    assert state_of(done, "app")["state"]["terminated"]["reason"] == "OOMKilled"
    assert state_of(done, "app")["state"]["terminated"]["signal"] == 9
    assert "OOMKilling" in harness.reasons("app")


async def test_a_killed_process_of_a_container_that_lives_on_is_told_once(harness: Harness) -> None:
    await harness.run(pod())
    (id,) = harness.runtime.containers
    for _ in range(3):
        harness.runtime.out_of_memory(id)
    harness.runtime.exit("app", 137, signal=9, reason="OOMKilled")
    await harness.until(lambda: harness.reasons("app").count("Started") == 2)
    assert harness.reasons("app").count("OOMKilling") == 1
    (id,) = (c.id for c in harness.runtime.containers.values() if c.state == "RUNNING")
    harness.runtime.out_of_memory(id)
    assert harness.reasons("app").count("OOMKilling") == 2


async def test_a_failed_first_start_cleans_up_and_is_raised(harness: Harness) -> None:
    failure = PlanError("exec /nope", operation="exec /nope", errno=2)
    harness.runtime.fail["start_container"] = [failure]
    with pytest.raises(PlanError) as caught:
        await harness.run(pod(spec="volumes: [{name: v, emptyDir: {}}]"))
    assert caught.value is failure
    with pytest.raises(NotFound):
        harness.controller.get("default", "web")
    assert not harness.runtime.sandboxes and not harness.runtime.containers
    assert not harness.database.all("pods")
    assert not list((harness.directory / "root" / "volumes").iterdir())
    assert "Failed" in harness.reasons()
    await harness.run(pod())  # an identical retry succeeds


async def test_a_failed_pod_sandbox_cleans_up_and_is_raised(harness: Harness) -> None:
    harness.runtime.fail["run_pod_sandbox"] = [KernelError("no namespaces today")]
    with pytest.raises(KernelError):
        await harness.run(pod())
    assert not harness.database.all("pods")


async def test_without_a_waiter_a_failed_start_follows_the_back_off(harness: Harness) -> None:
    harness.runtime.fail["start_container"] = [PlanError("exec /nope")] * 2
    await harness.apply(pod(), wait=False)
    await harness.until(lambda: harness.reasons("app").count("Failed") == 1)
    assert (
        state_of(harness.controller.get("default", "web"), "app")["state"]["waiting"]["reason"] == "RunContainerError"
    )
    ready = await harness.controller.wait("default", "web", "ready", 5)
    assert state_of(ready, "app")["restartCount"] == 2
    assert state_of(ready, "app")["lastState"]["terminated"]["reason"] == "StartError"
    await harness.until(lambda: len(harness.runtime.containers) == 1)


async def test_a_failed_creation_later_keeps_the_pod(harness: Harness) -> None:
    await harness.run(pod())
    harness.runtime.fail["create_container"] = [InvalidInput("the image is gone")]
    harness.runtime.exit("app", 1)
    await harness.until(lambda: "Failed" in harness.reasons("app"))
    waiting = state_of(harness.controller.get("default", "web"), "app")["state"]["waiting"]
    assert waiting == {"reason": "CreateContainerConfigError", "message": "the image is gone"}
    await harness.controller.wait("default", "web", "ready", 5)


async def test_a_bug_in_the_runtime_does_not_kill_the_worker(harness: Harness) -> None:
    harness.runtime.fail["run_pod_sandbox"] = [RuntimeError("bug")]
    await harness.apply(pod(), wait=False)
    ready = await harness.controller.wait("default", "web", "ready", 5)
    assert ready["status"]["phase"] == "Running"


async def test_deadline(harness: Harness) -> None:
    done = await harness.run(pod(spec="activeDeadlineSeconds: 1"), "done")
    assert done["status"]["phase"] == "Failed"
    assert done["status"]["reason"] == "DeadlineExceeded"
    assert state_of(done, "app")["state"]["terminated"]["exitCode"] == 143
    assert harness.runtime.names().count("create_container") == 1


async def test_a_lost_pod_sandbox_is_made_again(harness: Harness) -> None:
    harness.runtime.behaviour = {"one": [0, 0]}
    before = await harness.run(pod(init="one"))
    (id,) = harness.runtime.sandboxes
    harness.runtime.lose(id)
    await harness.until(lambda: "SandboxChanged" in harness.reasons())
    after = await harness.controller.wait("default", "web", "ready", 5)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert state_of(after, "app")["restartCount"] == 1
    assert state_of(after, "app")["lastState"]["terminated"]["exitCode"] == 137
    assert state_of(after, "one")["restartCount"] == 1, "init containers run again in a new pod sandbox"
    assert id not in harness.runtime.sandboxes and len(harness.runtime.sandboxes) == 1


async def test_a_lost_pod_that_never_restarts_has_failed(harness: Harness) -> None:
    await harness.run(pod(restart="Never"))
    (id,) = harness.runtime.sandboxes
    harness.runtime.lose(id)
    done = await harness.controller.wait("default", "web", "done", 5)
    assert done["status"]["phase"] == "Failed"
    assert harness.runtime.names().count("run_pod_sandbox") == 1


async def test_stop_is_graceful_keeps_the_pod_and_is_idempotent(harness: Harness) -> None:
    await harness.run(pod(containers="a b", spec="terminationGracePeriodSeconds: 7"))
    await harness.controller.stop("default", "web")
    assert {subject for call, subject in harness.runtime.calls if call == "stop_container"} == {"a 7", "b 7"}
    shown = harness.controller.get("default", "web")
    assert state_of(shown, "a")["state"]["terminated"]["exitCode"] == 143
    assert shown["status"]["reason"] == "Stopped" and shown["status"]["phase"] == "Failed"
    assert not harness.runtime.sandboxes
    await harness.controller.stop("default", "web")
    assert harness.runtime.names().count("run_pod_sandbox") == 1, "a stopped pod stays stopped"
    await harness.run(pod(containers="a b", spec="terminationGracePeriodSeconds: 7"))
    assert state_of(harness.controller.get("default", "web"), "a")["restartCount"] == 1


async def test_delete_leaves_nothing_and_a_second_says_not_found(harness: Harness) -> None:
    await harness.run(pod(spec="volumes: [{name: v, emptyDir: {medium: Memory}}]"))
    log = harness.controller.log_path("default", "web")
    log.parent.mkdir(parents=True)
    log.write_text("line")
    await harness.controller.delete("default", "web")
    assert not harness.runtime.sandboxes and not harness.runtime.containers and not harness.tmpfs.mounted
    assert not harness.database.all("pods")
    assert not log.parent.parent.exists()
    with pytest.raises(NotFound):
        await harness.controller.delete("default", "web")


async def test_force_overtakes_a_grace_period(harness: Harness) -> None:
    harness.runtime.ignores_sigterm = {"app"}
    await harness.run(pod())
    gentle = asyncio.ensure_future(harness.controller.delete("default", "web"))
    await harness.until(lambda: ("stop_container", "app 30") in harness.runtime.calls)
    assert harness.controller.get("default", "web")["metadata"]["deletionTimestamp"]
    began = time.monotonic()
    await harness.controller.delete("default", "web", force=True)
    await gentle
    assert time.monotonic() - began < 2


async def test_a_failed_teardown_is_told_tried_again_and_does_every_step(harness: Harness) -> None:
    await harness.run(pod(spec="volumes: [{name: v, emptyDir: {}}]"))
    harness.runtime.fail["stop_pod_sandbox"] = [SandboxError("the plugin is stuck")]
    with pytest.raises(SandboxError, match="stuck"):
        await harness.controller.delete("default", "web")
    assert "remove_pod_sandbox" in harness.runtime.names()
    await harness.until(lambda: not harness.controller.list())
    assert not list((harness.directory / "root" / "volumes").iterdir())


async def test_rm_removes_the_pod_when_it_is_done(harness: Harness) -> None:
    harness.runtime.behaviour = {"app": [5]}
    done = await harness.run(pod(restart="Never"), "done", remove_when_done=True)
    assert status.exit_code(done) == 5
    assert not harness.controller.list() and not harness.database.all("pods")


async def test_a_pod_that_went_before_the_wait_is_still_told_of(harness: Harness) -> None:
    harness.runtime.behaviour = {"app": [5]}
    (applied,) = await harness.apply(pod(restart="Never"), remove_when_done=True)
    await harness.until(lambda: not harness.controller.list())
    done = await harness.controller.wait("default", "web", "done", 5, uid=applied.uid)
    assert status.exit_code(done) == 5
    failure = harness.runtime.fail["start_container"] = [PlanError("exec /nope")]
    (applied,) = await harness.apply(pod())
    await harness.until(lambda: not harness.controller.list())
    with pytest.raises(PlanError) as caught:
        await harness.controller.wait("default", "web", "ready", 5, uid=applied.uid)
    assert not failure and str(caught.value) == "container app: exec /nope"
    with pytest.raises(NotFound):
        await harness.controller.wait("default", "web", "ready", 5)


async def test_a_start_that_nobody_waits_for_any_more_is_not_undone(harness: Harness) -> None:
    gate = harness.runtime.gates["start_container"] = asyncio.Event()
    harness.runtime.fail["start_container"] = [PlanError("exec /nope")]
    waiting = asyncio.ensure_future(harness.run(pod()))
    await harness.until(lambda: "start_container" in harness.runtime.names())
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gate.set()
    await harness.controller.wait("default", "web", "ready", 5)


async def test_the_same_pod_again_is_untouched_and_another_conflicts(harness: Harness) -> None:
    await harness.run(pod())
    calls = list(harness.runtime.calls)
    (again,) = await harness.apply(pod())
    assert not again.created and harness.runtime.calls == calls
    with pytest.raises(Conflict, match="another manifest"):
        await harness.apply(pod(containers="app more"))
    assert harness.runtime.calls == calls


async def test_a_stuck_pod_holds_up_no_other(harness: Harness) -> None:
    gate = harness.runtime.gates["run_pod_sandbox"] = asyncio.Event()
    await harness.apply(pod("stuck"))
    await harness.until(lambda: harness.runtime.calls)
    del harness.runtime.gates["run_pod_sandbox"]
    await harness.run(pod("free"))
    assert harness.controller.get("default", "stuck")["status"]["phase"] == "Pending"
    gate.set()
    await harness.controller.wait("default", "stuck", "ready", 5)


async def test_wait_runs_out_of_time(harness: Harness) -> None:
    await harness.apply(pod(init="one"))
    with pytest.raises(DeadlineExceeded, match="web was not ready after"):
        await harness.controller.wait("default", "web", "ready", 0.05)
    assert harness.controller.get("default", "web")["status"]["phase"] == "Pending"


async def test_wait_for_ready_fails_when_the_pod_does(harness: Harness) -> None:
    harness.runtime.behaviour = {"one": [3]}
    with pytest.raises(SandboxError, match="container one exited with code 3"):
        await harness.run(pod(init="one", restart="Never"))


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (pod(container="envFrom: [{configMapRef: {name: nope}}]"), "refers to ConfigMap 'nope'"),
        (pod(container="env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]"), "refers to Secret 's'"),
        (pod(spec="volumes: [{name: v, configMap: {name: nope}}]"), "refers to ConfigMap 'nope'"),
        (pod(spec="volumes: [{name: v, hostPath: {path: /does/not/exist, type: Directory}}]"), "does not exist"),
        (pod().replace("localhost/busybox", "localhost/busybax"), "image 'localhost/busybax' is not in the store"),
    ],
)
async def test_nothing_is_made_of_a_pod_that_cannot_be(harness: Harness, manifest: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        await harness.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: other}}", pod("good"), manifest)
    assert caught.value.exit_code == 2
    assert not harness.runtime.calls and not harness.controller.list()
    assert not harness.database.all("pods") and not harness.database.all("objects")
    assert not (harness.directory / "root" / "volumes").exists()


async def test_a_missing_key_names_the_nearest(harness: Harness) -> None:
    config = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {colour: red}}"
    await harness.apply(config)
    variable = "env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: color}}}]"
    with pytest.raises(InvalidInput) as caught:
        await harness.apply(pod(container=variable))
    assert caught.value.hint == "did you mean 'colour'?"


async def test_notes_become_events(harness: Harness) -> None:
    await harness.run(pod(spec="nodeSelector: {disk: ssd}"))
    assert any(event[1] == "FieldHasNoEffect" and "nodeSelector" in event[2] for event in harness.events)


async def test_preview_leaves_nothing(harness: Harness) -> None:
    text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {colour: red}}\n---\n" + pod(
        init="one", container="envFrom: [{configMapRef: {name: c}}]"
    )
    (preview,) = harness.controller.preview(load_manifests([("a.yaml", text.encode())]))
    assert [c.name for c in preview.containers] == ["one", "app"]
    assert ("colour", "red") in preview.containers[1].env
    assert not harness.database.all("objects") and not harness.runtime.calls


async def test_down_removes_what_the_manifest_names_and_keeps_what_is_needed(harness: Harness) -> None:
    shared = "{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}}"
    own = "{apiVersion: v1, kind: Secret, metadata: {name: own}}"
    using = "envFrom: [{configMapRef: {name: shared}}]"
    await harness.apply(shared, own, pod("a", container=using), pod("b", container=using))
    removed = await harness.controller.down(
        load_manifests([("x", text.encode()) for text in (shared, own, pod("a", container=using), pod("absent"))])
    )
    assert removed == ["Pod/default/a", "Secret/default/own"]
    assert harness.controller.object_keys("ConfigMap", "default", "shared") == frozenset()
    assert [p["metadata"]["name"] for p in harness.controller.list()] == ["b"]


async def test_subscribers_hear_of_changes(harness: Harness) -> None:
    heard: list[tuple[str, str]] = []
    end = harness.controller.subscribe(lambda namespace, name: heard.append((namespace, name)))
    await harness.run(pod())
    assert ("default", "web") in heard
    end()
    heard.clear()
    await harness.controller.delete("default", "web")
    assert not heard


async def test_the_timeline_has_the_controllers_steps(harness: Harness) -> None:
    await harness.run(pod())
    names = [span.name for span in harness.controller.timeline("default", "web").spans]
    assert names[:3] == ["validate", "image", "record"] and "volumes" in names


async def test_overhead(tmp_path: Path) -> None:
    """At most 3 ms of processor time a pod, on a runtime that costs nothing."""
    harness = Harness(tmp_path)
    await harness.run(pod("warm"))
    texts = [pod(f"p{n}", "a b", container="env: [{name: A, value: b}]") for n in range(30)]
    objects = load_manifests([(f"{n}.yaml", text.encode()) for n, text in enumerate(texts)])
    began = time.process_time()
    for applied in await harness.controller.apply(objects, Timeline()):
        await harness.controller.wait(applied.namespace, applied.name, "ready", 10)
    cost_ms = (time.process_time() - began) * 1000 / len(objects)
    print(f"controller: {cost_ms:.2f} ms of processor time a pod")
    assert cost_ms < 3
