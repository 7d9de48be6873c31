"""Which changes a pod that runs follows, and how: in place, by a restart, not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pods_fakes import Harness, pod, state_of

from sandbox.cgroups.resources import CgroupResources
from sandbox.errors import Conflict, InvalidInput, KernelError, ManifestError, NotFound
from sandbox.manifest import load_manifests
from sandbox.pods.resize import Patch


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


def limited(cpu: str = "200m", memory: str = "64Mi", *, policy: str = "", restart: str = "Always", **more: Any) -> str:
    text = f"resources:\n  limits: {{cpu: {cpu}, memory: {memory}}}\n  requests: {{cpu: 100m, memory: 32Mi}}\n"
    if policy:
        text += f"resizePolicy:\n- {{resourceName: {policy}, restartPolicy: RestartContainer}}\n"
    return pod(container=text, restart=restart, **more)


def patch(container: str = "app", **values: dict[str, str]) -> Patch:
    return Patch(container, values.get("limits", {}), values.get("requests", {}), values.get("settings", {}))


def resources(harness: Harness) -> CgroupResources:
    (container,) = harness.runtime.containers.values()
    return container.config.resources


async def until_resized(harness: Harness) -> dict[str, Any]:
    return await harness.controller.wait("default", "web", "resized", 5)


async def test_another_limit_in_the_manifest_is_written_in_place(harness: Harness) -> None:
    before = state_of(await harness.run(limited()), "app")
    assert before["resources"]["limits"] == {"cpu": "200m", "memory": "64Mi"}
    after = await harness.run(limited("500m", "128Mi"))
    state = state_of(after, "app")
    assert state["containerID"] == before["containerID"] and state["restartCount"] == 0
    assert state["resources"]["limits"] == {"cpu": "500m", "memory": "128Mi"}
    assert state["allocatedResources"] == {"cpu": "100m", "memory": "32Mi"}
    assert after["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "500m"
    assert (resources(harness).cpu_quota_us, resources(harness).memory_limit_bytes) == (50_000, 128 << 20)
    (sandbox,) = harness.runtime.sandboxes.values()
    assert sandbox.config.resources.cpu_quota_us == 50_000
    message = next(event[2] for event in harness.events if event[1] == "Resized")
    assert message == "Resized container app: cpu limit 200m → 500m, memory limit 64Mi → 128Mi"
    assert harness.runtime.names().count("update_resources") == 1


async def test_the_same_amount_in_other_words_writes_nothing(harness: Harness) -> None:
    await harness.run(limited("200m"))
    await harness.run(limited("0.2"))
    assert "Resized" not in harness.reasons()
    assert ("update_resources", "") in harness.runtime.calls


async def test_resize_policy_restarts_with_the_new_limits(harness: Harness) -> None:
    before = state_of(await harness.run(limited(policy="memory")), "app")
    after = state_of(await harness.run(limited(policy="memory", memory="128Mi")), "app")
    assert after["containerID"] != before["containerID"] and after["restartCount"] == 1
    assert after["resources"]["limits"]["memory"] == "128Mi"
    assert resources(harness).memory_limit_bytes == 128 << 20
    assert harness.reasons("app")[-6:] == ["ResizeStarted", "Killing", "Exited", "Resized", "Created", "Started"]
    assert "BackOff" not in harness.reasons()
    await harness.run(limited("300m", policy="memory", memory="128Mi"))
    assert state_of(harness.controller.get("default", "web"), "app")["restartCount"] == 1, "cpu needs no restart"


async def test_while_a_container_is_restarted_the_pod_keeps_the_wider_limit(harness: Harness) -> None:
    await harness.run(limited(policy="memory"))
    harness.runtime.gates["stop_container"] = asyncio.Event()
    await harness.apply(limited(policy="memory", memory="48Mi"))
    await harness.until(lambda: "Killing" in harness.reasons())
    (sandbox,) = harness.runtime.sandboxes.values()
    assert sandbox.config.resources.memory_limit_bytes == 64 << 20
    conditions = {c["type"]: c["status"] for c in harness.controller.get("default", "web")["status"]["conditions"]}
    assert conditions["PodResizeInProgress"] == "True"
    assert state_of(harness.controller.get("default", "web"), "app")["resources"]["limits"]["memory"] == "64Mi"
    harness.runtime.gates["stop_container"].set()
    object_ = await until_resized(harness)
    (sandbox,) = harness.runtime.sandboxes.values()
    assert sandbox.config.resources.memory_limit_bytes == 48 << 20
    assert "PodResizeInProgress" not in [c["type"] for c in object_["status"]["conditions"]]


async def test_a_restart_goes_on_after_the_daemon_died(harness: Harness) -> None:
    await harness.run(limited(policy="memory"))
    harness.runtime.gates["stop_container"] = asyncio.Event()
    await harness.apply(limited(policy="memory", memory="128Mi"))
    await harness.until(lambda: "Killing" in harness.reasons())
    after = await harness.restart()
    state = state_of(await until_resized(after), "app")
    assert state["restartCount"] == 1 and resources(after).memory_limit_bytes == 128 << 20
    await after.controller.close()


@pytest.mark.parametrize("policy", ["OnFailure", "Always"])
async def test_a_restart_for_limits_is_no_end_of_the_pod(harness: Harness, policy: str) -> None:
    await harness.run(limited(policy="cpu", restart=policy))
    after = await harness.run(limited("300m", policy="cpu", restart=policy))
    assert after["status"]["phase"] == "Running" and state_of(after, "app")["restartCount"] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (limited().replace("localhost/busybox", "other"), r"spec.containers\[0\].image differs"),
        (limited(containers="app two"), "spec.containers differs"),
        (limited(policy="cpu"), "resizePolicy differs"),
        (limited().replace("{cpu: 200m, memory: 64Mi}", "{memory: 64Mi}"), "cpu limit of container app cannot be tak"),
        (limited().replace("cpu: 100m, memory: 32Mi", "cpu: 200m, memory: 64Mi"), "would become Guaranteed"),
        (limited().replace("64Mi}", "64Mi, ephemeral-storage: 1Gi}"), "ephemeral-storage limit"),
        (limited().replace("{name: web}", "{name: web, annotations: {a: b}}"), "annotations.a differs"),
    ],
)
async def test_other_differences_stay_a_conflict(harness: Harness, text: str, says: str) -> None:
    harness.images.add("other")
    before = await harness.run(limited())
    with pytest.raises(Conflict, match=says):
        await harness.apply(text)
    assert harness.controller.get("default", "web") == before
    assert "update_resources" not in harness.runtime.names()


async def test_what_the_runtime_refuses_changes_nothing(harness: Harness) -> None:
    before = await harness.run(limited())
    harness.runtime.fail["update_resources"] = [InvalidInput("memory limit 1.0 MiB is below"), KernelError("no")]
    for error in (InvalidInput, KernelError):
        with pytest.raises(error):
            await harness.apply(limited("300m", "40Mi"), pod("new"))
        assert harness.controller.get("default", "web") == before
    with pytest.raises(NotFound):
        harness.controller.get("default", "new")


async def test_what_is_wrong_with_a_new_pod_keeps_the_old_limits(harness: Harness) -> None:
    await harness.run(limited())
    with pytest.raises(InvalidInput, match="missing"):
        await harness.apply(limited("300m"), pod("new").replace("localhost/busybox", "missing"))
    assert "update_resources" not in harness.runtime.names()


async def test_several_pods_change_together(harness: Harness) -> None:
    other = limited().replace("name: web", "name: db")
    await harness.run(limited())
    await harness.run(other)
    await harness.apply(limited("300m"), other.replace("200m", "400m"))
    assert harness.runtime.names().count("update_resources") == 1
    quotas = sorted(c.config.resources.cpu_quota_us or 0 for c in harness.runtime.containers.values())
    assert quotas == [30_000, 40_000]


async def test_patch_changes_what_it_names(harness: Harness) -> None:
    await harness.run(limited())
    words = await harness.controller.resize(
        "default", "web", patch(limits={"cpu": "300m"}, settings={"pids": "20", "cpu-burst": "100m"})
    )
    assert words == ["app: cpu limit 200m → 300m, cpu-burst none → 100m, pids none → 20"]
    assert resources(harness) == CgroupResources(
        cpu_shares=102,
        cpu_quota_us=30_000,
        cpu_period_us=100_000,
        cpu_burst_us=10_000,
        memory_limit_bytes=64 << 20,
        memory_swap_limit_bytes=64 << 20,
        pids_limit=20,
    )
    annotations = harness.controller.get("default", "web")["metadata"]["annotations"]
    assert annotations == {"sandbox/pids.app": "20", "sandbox/cpu-burst.app": "100m"}
    assert await harness.controller.resize("default", "web", patch(limits={"cpu": "300m"})) == []


async def test_a_request_that_equals_its_limit_goes_with_it(harness: Harness) -> None:
    await harness.run(pod(container="resources: {limits: {cpu: 200m, memory: 64Mi}}"))
    await harness.controller.resize("default", "web", patch(limits={"cpu": "300m"}))
    object_ = harness.controller.get("default", "web")
    assert object_["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "300m", "memory": "64Mi"}
    assert object_["status"]["qosClass"] == "Guaranteed"


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (patch(limits={"cpu": "50m"}), InvalidInput, "expected at most the limit"),
        (patch(limits={"cpu": "lots"}), InvalidInput, "lots"),
        (patch(limits={"disk": "1"}), InvalidInput, "'disk' cannot change"),
        (patch(settings={"pids": "0"}), InvalidInput, "pids"),
        (patch(settings={"speed": "1"}), InvalidInput, "no limit 'speed'"),
        (patch(settings={"io": "/dev/none rbps=1"}), InvalidInput, "no such file"),
        (patch(requests={"cpu": "200m", "memory": "64Mi"}), Conflict, "would become Guaranteed"),
    ],
)
async def test_wrong_patches(harness: Harness, wrong: Patch, error: type[Exception], says: str) -> None:
    before = await harness.run(limited())
    with pytest.raises(error, match=says):
        await harness.controller.resize("default", "web", wrong)
    assert harness.controller.get("default", "web") == before


async def test_patches_of_what_is_not_there(harness: Harness) -> None:
    with pytest.raises(NotFound):
        await harness.controller.resize("default", "web", patch(limits={"cpu": "1"}))
    harness.runtime.behaviour["app"] = [0]
    await harness.run(limited(restart="Never"), "done")
    with pytest.raises(Conflict, match="has ended"):
        await harness.controller.resize("default", "web", patch(limits={"cpu": "1"}))


async def test_a_stopped_pod_starts_with_the_new_limits(harness: Harness) -> None:
    await harness.run(limited())
    await harness.controller.stop("default", "web")
    await harness.run(limited("300m"))
    assert resources(harness).cpu_quota_us == 30_000
    state = state_of(harness.controller.get("default", "web"), "app")
    assert state["resources"]["limits"]["cpu"] == "300m"


async def test_a_container_that_is_being_created_follows(harness: Harness) -> None:
    harness.runtime.gates["create_container"] = asyncio.Event()
    await harness.apply(limited())
    await harness.until(lambda: "create_container" in harness.runtime.names())
    await harness.apply(limited("300m"))
    harness.runtime.gates["create_container"].set()
    await until_resized(harness)
    assert resources(harness).cpu_quota_us == 30_000
    assert state_of(harness.controller.get("default", "web"), "app")["resources"]["limits"]["cpu"] == "300m"


POLICY = "resizePolicy:\n- {resourceName: %s, restartPolicy: %s}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (pod(container=POLICY % ("disk", "NotRequired")), 'expected cpu or memory, got "disk"'),
        (pod(container=POLICY % ("cpu", "Sometimes")), "expected NotRequired or RestartContainer"),
        (pod(container=POLICY % ("cpu", "RestartContainer"), restart="Never"), "expected NotRequired in a pod"),
        (pod(container=POLICY % ("cpu", "NotRequired") + POLICY.partition("\n")[2] % ("cpu", "NotRequired")), "duplic"),
        (pod(init="first").replace("- name: first", "- name: first\n    resizePolicy: []"), ""),
        (
            pod(init="first").replace(
                "- name: first", "- name: first\n    resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}]"
            ),
            "an init container runs once",
        ),
    ],
)
def test_resize_policies_are_validated(text: str, says: str) -> None:
    if not says:
        load_manifests([("pod.yaml", text.encode())])
        return
    with pytest.raises(ManifestError, match=says):
        load_manifests([("pod.yaml", text.encode())])
