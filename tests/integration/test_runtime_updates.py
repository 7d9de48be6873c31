"""Limits of running containers, changed in place: what the kernel then does, and what a refusal leaves."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runtime_host import Host

from sandbox.cgroups import tree
from sandbox.cgroups.detect import detect
from sandbox.cgroups.resources import CgroupResources
from sandbox.errors import Conflict, InvalidInput, KernelError, NotFound
from sandbox.runtime.config import ContainerConfig, PodSandboxConfig, PodSandboxMetadata
from sandbox.runtime.runtime import Runtime
from sandbox.runtime.updates import ResourceChange

MIB = 1 << 20
LIMITS = CgroupResources(
    cpu_shares=512,
    cpu_quota_us=20_000,
    cpu_period_us=100_000,
    memory_limit_bytes=64 * MIB,
    memory_swap_limit_bytes=64 * MIB,
    pids_limit=50,
)
SPIN = "while :; do :; done"
HOLD = "dd if=/dev/zero of=/dev/shm/held bs=1M count=24 2>/dev/null; echo held; sleep 1000"


async def start(runtime: Runtime, host: Host, script: str, resources: CgroupResources = LIMITS) -> tuple[str, str]:
    """(pod sandbox, container) that runs `script`; the pod has the same limits as its one container."""
    config = PodSandboxConfig(
        PodSandboxMetadata("web", f"uid-{host.tag}"),
        log_directory=str(host.root / "logs"),
        resources=resources,
        qos_class="Burstable",
    )
    sandbox = await runtime.run_pod_sandbox(config)
    container = ContainerConfig(
        "app", "localhost/busybox", command=("sh", "-c", script), resources=resources, log_path="app.log"
    )
    id = await runtime.create_container(sandbox, container)
    await runtime.start_container(id)
    return sandbox, id


async def until_log(host: Host, text: str) -> None:
    path = host.root / "logs" / "app.log"
    async with asyncio.timeout(10):
        while not path.exists() or text not in path.read_text():
            await asyncio.sleep(0.01)


async def share(runtime: Runtime, id: str, seconds: float = 1.5) -> float:
    """Of one CPU, over `seconds`."""
    before, start_s = runtime.container_stats(id).cpu_usage_ns or 0, time.monotonic()
    await asyncio.sleep(seconds)
    after, took_s = runtime.container_stats(id).cpu_usage_ns or 0, time.monotonic() - start_s
    return (after - before) / 1e9 / took_s


async def expect_share(runtime: Runtime, id: str, expected: float, tolerance: float) -> None:
    """The limit is never exceeded, and reached in one of several windows: others may use this machine too."""
    shares: list[float] = []
    for _ in range(10):
        shares.append(await share(runtime, id))
        assert shares[-1] <= expected + tolerance
        if shares[-1] >= expected - tolerance:
            return
    raise AssertionError(f"never near {expected}: {shares}")


SETTINGS = (
    "shares",
    "quota",
    "period",
    "burst",
    "limit_in_bytes",
    "soft_limit_in_bytes",
    "max",
    "weight",
    "high",
    "low",
    "cpus",
    "mems",
)


def files(host: Host, path: str) -> dict[str, str]:
    """Every file of the cgroup and those below it that holds a setting, with its content."""
    found: dict[str, str] = {}
    for root in {*getattr(host.cgroups, "_roots", ()), *Path("/sys/fs/cgroup").iterdir(), Path("/sys/fs/cgroup")}:
        for directory in tree.subtree(f"{root}/{path}"):
            for file in sorted(Path(directory).iterdir()):
                words = file.name.replace("_us", "").split(".")[-1].removeprefix("cfs_")
                if file.is_file() and words in SETTINGS and os.access(file, os.W_OK):
                    found[str(file)] = file.read_text()
    return found


async def test_cpu_share_follows(host: Host) -> None:
    runtime = await host.runtime()
    _, id = await start(
        runtime, host, SPIN, CgroupResources(cpu_shares=512, cpu_quota_us=20_000, cpu_period_us=100_000)
    )
    await expect_share(runtime, id, 0.2, 0.05)
    pod = runtime.container_status(id).pod_sandbox_id
    wanted = CgroupResources(cpu_shares=512, cpu_quota_us=50_000, cpu_period_us=100_000)
    await runtime.update_resources([ResourceChange(id, wanted), ResourceChange(pod, wanted)])
    await expect_share(runtime, id, 0.5, 0.08)
    less = replace(wanted, cpu_quota_us=10_000)
    await runtime.update_resources([ResourceChange(pod, less), ResourceChange(id, less)])
    await expect_share(runtime, id, 0.1, 0.04)


async def test_update_container_resources_leaves_what_it_does_not_name(host: Host) -> None:
    runtime = await host.runtime()
    _, id = await start(runtime, host, "sleep 1000")
    await runtime.update_container_resources(id, CgroupResources(pids_limit=7))
    resources = runtime.container_status(id).config.resources
    assert resources == replace(LIMITS, pids_limit=7)
    stats = runtime.container_stats(id)
    assert (stats.pids_limit, stats.memory_limit_bytes) == (7, 64 * MIB)


async def test_memory_limit_binds_after_the_change(host: Host) -> None:
    runtime = await host.runtime()
    script = "until [ -e /dev/shm/go ]; do sleep 0.05; done; dd if=/dev/zero of=/dev/null bs=48M count=1; echo alive"
    _, id = await start(runtime, host, script)
    await runtime.update_container_resources(
        id, CgroupResources(memory_limit_bytes=16 * MIB, memory_swap_limit_bytes=16 * MIB)
    )
    session = await runtime.exec(id, ("sh", "-c", "touch /dev/shm/go"))
    await session.wait()
    session.close()
    async with asyncio.timeout(10):
        while runtime.container_status(id).state != "EXITED" and not host.cgroups.oom_kills(
            runtime.container_status(id).cgroup_path
        ):
            await asyncio.sleep(0.02)
    assert runtime.container_status(id).config.resources.memory_limit_bytes == 16 * MIB


async def test_memory_below_use_is_refused_and_every_file_stays(host: Host) -> None:
    runtime = await host.runtime()
    sandbox, id = await start(runtime, host, HOLD)
    await until_log(host, "held")
    pod = runtime.pod_sandbox_status(sandbox).cgroup_path
    before = files(host, pod)
    assert len(before) > 10
    less = replace(LIMITS, memory_limit_bytes=8 * MIB, memory_swap_limit_bytes=8 * MIB, pids_limit=9, cpu_quota_us=5000)
    with pytest.raises(InvalidInput, match=r"8.0 MiB of container app is below its present use"):
        await runtime.update_resources([ResourceChange(id, less), ResourceChange(sandbox, less)])
    assert files(host, pod) == before
    assert runtime.container_status(id).config.resources == LIMITS


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(
            CgroupResources(memory_high_bytes=MIB),
            marks=pytest.mark.skipif(detect().mode == "v2", reason="memory.high is there"),
        ),
        CgroupResources(pids_limit=0),
    ],
)
async def test_one_wrong_limit_keeps_all_others(host: Host, refused: CgroupResources) -> None:
    runtime = await host.runtime()
    sandbox, id = await start(runtime, host, "sleep 1000")
    pod = runtime.pod_sandbox_status(sandbox).cgroup_path
    before = files(host, pod)
    with pytest.raises(InvalidInput):
        await runtime.update_container_resources(id, replace(refused, cpu_shares=1000, cpu_quota_us=10_000))
    assert files(host, pod) == before


class Refusing:
    """The host's driver, whose n-th update is half written and then refused, as the kernel may."""

    def __init__(self, driver: Any, nth: int) -> None:
        self._driver, self._left = driver, nth

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def update(self, path: str, resources: CgroupResources) -> None:
        self._left -= 1
        self._driver.update(path, resources)
        if self._left == 0:
            raise KernelError("cannot write", subject="cpu.max", errno=5)


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
async def test_what_the_kernel_refuses_late_is_undone_everywhere(host: Host, nth: int) -> None:
    runtime = await host.runtime()
    sandbox, id = await start(runtime, host, "sleep 1000")
    second = await runtime.create_container(
        sandbox, ContainerConfig("two", "localhost/busybox", command=("sleep", "1000"), resources=LIMITS)
    )
    await runtime.start_container(second)
    pod = runtime.pod_sandbox_status(sandbox).cgroup_path
    before = files(host, pod)
    runtime._context.cgroups = Refusing(host.cgroups, nth)
    mixed = replace(LIMITS, cpu_quota_us=30_000, memory_limit_bytes=32 * MIB, memory_swap_limit_bytes=32 * MIB)
    changes = [ResourceChange(each, replace(mixed, pids_limit=-1, io_weight=None)) for each in (id, second, sandbox)]
    with pytest.raises(KernelError):
        await runtime.update_resources(changes)
    runtime._context.cgroups = host.cgroups
    assert files(host, pod) == before
    assert runtime.container_status(id).config.resources == LIMITS
    await runtime.update_resources(changes)
    assert files(host, pod) != before


async def test_new_limits_survive_the_daemon(host: Host) -> None:
    runtime = await host.runtime()
    sandbox, id = await start(runtime, host, "sleep 1000")
    wanted = replace(LIMITS, memory_limit_bytes=80 * MIB, memory_swap_limit_bytes=80 * MIB)
    await runtime.update_resources([ResourceChange(id, wanted), ResourceChange(sandbox, wanted)])
    await host.forget(runtime)
    after = await host.runtime()
    assert after.container_status(id).config.resources == wanted
    assert after.pod_sandbox_status(sandbox).config.resources == wanted
    assert after.container_stats(id).memory_limit_bytes == 80 * MIB


async def test_a_daemon_that_died_half_way_is_taken_back(host: Host) -> None:
    runtime = await host.runtime()
    sandbox, id = await start(runtime, host, "sleep 1000")
    pod = runtime.pod_sandbox_status(sandbox).cgroup_path
    before = files(host, pod)
    wanted = replace(LIMITS, cpu_quota_us=60_000, pids_limit=9, memory_low_bytes=MIB)
    updates = runtime._updates
    updates._intend({id: wanted, sandbox: wanted})
    host.cgroups.update(pod, CgroupResources(cpu_quota_us=60_000, cpu_period_us=100_000, pids_limit=9))
    cgroup = runtime.container_status(id).cgroup_path
    host.cgroups.update(cgroup, CgroupResources(cpu_quota_us=60_000, cpu_period_us=100_000))
    assert files(host, pod) != before
    await host.forget(runtime)
    after = await host.runtime()
    assert files(host, pod) == before
    assert after._context.records.containers[id].updating is None
    assert after.container_status(id).config.resources == LIMITS


async def test_who_cannot_be_updated(host: Host) -> None:
    runtime = await host.runtime()
    _, id = await start(runtime, host, "exit 3")
    async with asyncio.timeout(10):
        while runtime.container_status(id).state != "EXITED":
            await asyncio.sleep(0.01)
    with pytest.raises(Conflict, match="has ended"):
        await runtime.update_container_resources(id, CgroupResources(pids_limit=7))
    with pytest.raises(NotFound):
        await runtime.update_container_resources("nobody", CgroupResources(pids_limit=7))
