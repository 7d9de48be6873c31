"""Containers where cgroup v2 is the only hierarchy: how they get in, what they see, and limits that only v2 has."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from runtime_host import Host
from test_runtime_pods import ended, output, pod, say, shell, started

from sandbox.cgroups.detect import detect
from sandbox.cgroups.resources import CgroupResources, HugepageLimit, IoLimit
from sandbox.runtime.config import ContainerSecurity, Mount
from sandbox.runtime.runtime import Runtime

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(detect().mode != "v2", reason="needs a host with cgroup v2 alone, such as scripts/vm makes"),
]

MI = 1 << 20
ROOT = Path("/sys/fs/cgroup")
NO_SWAP = CgroupResources(memory_limit_bytes=32 * MI, memory_swap_limit_bytes=32 * MI)


@pytest_asyncio.fixture
async def runtime(host: Host) -> AsyncIterator[Runtime]:
    yield await host.runtime()


def members(path: str) -> set[int]:
    """Processes of this very cgroup, not of those below."""
    return set(map(int, (ROOT / path / "cgroup.procs").read_text().split()))


def setting(path: str, name: str) -> str:
    return (ROOT / path / name).read_text().strip()


async def test_only_leaves_have_processes(runtime: Runtime, tmp_path: Path) -> None:
    """The container is born in its cgroup; pause and monitor are in none of the pod's, which hand controllers down."""
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, resources=CgroupResources(memory_limit_bytes=64 * MI)))
    id = await started(runtime, sandbox, shell("sleep 1000", resources=NO_SWAP))
    of_pod, of_container = runtime.pod_sandbox_status(sandbox), runtime.container_status(id)
    session = await runtime.exec(id, ("sleep", "1000"))
    assert members(of_container.cgroup_path) == {of_container.pid, session.pid}
    session.close()
    assert members(of_pod.cgroup_path) == set()
    assert {"cpu", "memory", "pids", "io", "cpuset"} <= set(
        setting(of_pod.cgroup_path, "cgroup.subtree_control").split()
    )
    inside = {int(p) for file in (ROOT / of_pod.cgroup_path).rglob("cgroup.procs") for p in file.read_text().split()}
    assert not inside & {of_pod.pause_pid, of_pod.monitor_pid}
    assert Path(f"/proc/{of_container.pid}/cgroup").read_text() == f"0::/{of_container.cgroup_path}\n"


async def test_a_container_sees_its_own_cgroup_as_the_root(runtime: Runtime, tmp_path: Path) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    look = "cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max; echo 1 >/sys/fs/cgroup/pids.max || echo sealed; "
    lines = await say(runtime, sandbox, look + "grep cgroup /proc/mounts", resources=NO_SWAP)
    assert lines[:2] == ["0::/", str(32 * MI)] and "sealed" in lines
    (mount,) = [line for line in lines if " cgroup2 " in line]
    assert mount.split()[1] == "/sys/fs/cgroup" and mount.split()[3].startswith("ro,")
    # A privileged one may divide what it has, and cannot give itself more.
    divide = (
        "cd /sys/fs/cgroup; mkdir leaf && echo 0 >leaf/cgroup.procs && echo +pids >cgroup.subtree_control && "
        "echo 5 >leaf/pids.max && cat leaf/pids.max /proc/self/cgroup; echo max >memory.max || echo sealed"
    )
    privileged = ContainerSecurity(privileged=True)
    lines = await say(runtime, sandbox, divide, security=privileged, resources=NO_SWAP)
    assert lines[0] == "5" and "sealed" in lines
    assert lines[1].startswith("0::/")


async def test_exec_in_a_container_that_divided_its_cgroup(runtime: Runtime, host: Host, tmp_path: Path) -> None:
    """As an init system in a container does: its own cgroup hands controllers down and can have no process."""
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    divide = "cd /sys/fs/cgroup; mkdir init && echo 0 >init/cgroup.procs && echo +pids >cgroup.subtree_control"
    config = shell(f"{divide}; echo ready; sleep 1000", security=ContainerSecurity(privileged=True))
    id = await started(runtime, sandbox, config)
    async with asyncio.timeout(20):
        while "ready" not in output(runtime.container_status(id)):
            await asyncio.sleep(0.02)
    path = runtime.container_status(id).cgroup_path
    assert setting(path, "cgroup.subtree_control") == "pids"
    session = await runtime.exec(id, ("sleep", "1000"))
    assert session.pid in members(f"{path}/init") and session.pid in host.cgroups.processes(path)
    session.close()
    await runtime.stop_container(id, 0)
    assert runtime.container_status(id).exit_code == 137
    await runtime.remove_container(id)
    assert not host.cgroups.exists(path)


async def test_exec_is_under_the_containers_limits(runtime: Runtime, tmp_path: Path) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    id = await started(runtime, sandbox, shell("sleep 1000", resources=CgroupResources(pids_limit=4)))
    session = await runtime.exec(id, ("sh", "-c", "for i in 1 2 3 4 5; do sleep 30 & done; wait"))
    assert session.stderr_fd is not None
    said = b""
    async with asyncio.timeout(20):
        while b"fork" not in said:
            said += await asyncio.to_thread(os.read, session.stderr_fd, 1000)
    session.close()


async def test_the_pods_limit_binds_the_sum(runtime: Runtime, tmp_path: Path) -> None:
    limit = CgroupResources(cpu_quota_us=30_000, cpu_period_us=100_000)
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, resources=limit))
    spin = "while :; do :; done"
    for name in ("one", "two"):
        await started(runtime, sandbox, shell(spin, name))
    await asyncio.sleep(0.5)
    before, began = runtime.pod_sandbox_stats(sandbox).cpu_usage_ns, time.monotonic_ns()
    await asyncio.sleep(2)
    after, took = runtime.pod_sandbox_stats(sandbox).cpu_usage_ns, time.monotonic_ns() - began
    assert before is not None and after is not None
    assert (after - before) / took == pytest.approx(0.3, abs=0.05)
    throttled = [runtime.container_stats(c.id).cpu_usage_ns or 0 for c in runtime.list_containers(sandbox)]
    assert min(throttled) > 0


async def test_an_out_of_memory_kill_takes_the_whole_container(runtime: Runtime, tmp_path: Path) -> None:
    whole = CgroupResources(
        memory_limit_bytes=32 * MI, memory_swap_limit_bytes=32 * MI, unified=(("memory.oom.group", "1"),)
    )
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    id = await started(runtime, sandbox, shell("tail /dev/zero; echo survived", resources=whole))
    status = await ended(runtime, id, 60)
    assert (status.exit_code, status.reason) == (137, "OOMKilled") and output(status) == []
    # Without, the shell is told that its child was killed and goes on.
    id = await started(runtime, sandbox, shell("tail /dev/zero; echo survived", "alone", resources=NO_SWAP))
    status = await ended(runtime, id, 60)
    assert status.exit_code == 0 and output(status)[-1] == "survived"


async def test_memory_high_slows_down_and_does_not_kill(runtime: Runtime, tmp_path: Path) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    high = CgroupResources(memory_high_bytes=16 * MI, memory_limit_bytes=256 * MI, memory_swap_limit_bytes=256 * MI)
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=18 2>/dev/null; echo filled; sleep 1000"
    id = await started(runtime, sandbox, shell(fill, resources=high))
    path = runtime.container_status(id).cgroup_path
    async with asyncio.timeout(60):
        while int(dict(line.split() for line in setting(path, "memory.events").splitlines())["high"]) == 0:
            await asyncio.sleep(0.02)
    assert runtime.container_stats(id).oom_kills == 0
    assert runtime.container_status(id).state == "RUNNING"


async def test_swap_is_counted_and_bounded(runtime: Runtime, tmp_path: Path) -> None:
    if len(Path("/proc/swaps").read_text().splitlines()) < 2:
        pytest.skip("this host has no swap")
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    fill = "dd if=/dev/zero of=/dev/shm/$0 bs=1M count=40 2>/dev/null; echo filled; sleep 1000"
    both = CgroupResources(memory_limit_bytes=24 * MI, memory_swap_limit_bytes=64 * MI)
    id = await started(runtime, sandbox, shell(fill.replace("$0", "a"), "with", resources=both))
    async with asyncio.timeout(60):
        while "filled" not in output(runtime.container_status(id)):
            await asyncio.sleep(0.05)
    stats = runtime.container_stats(id)
    assert stats.swap_usage_bytes and stats.swap_usage_bytes >= 14 * MI
    assert stats.memory_usage_bytes and stats.memory_usage_bytes <= 24 * MI
    assert setting(runtime.container_status(id).cgroup_path, "memory.swap.max") == str(40 * MI)
    without = CgroupResources(memory_limit_bytes=24 * MI, memory_swap_limit_bytes=24 * MI)
    id = await started(runtime, sandbox, shell("exec " + fill.replace("$0", "b"), "without", resources=without))
    status = await ended(runtime, id, 60)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


async def test_disk_limits_bind_what_a_container_writes(runtime: Runtime, tmp_path: Path) -> None:
    """Also what it writes to the page cache, on a volume: its own root is volatile, nothing of it is ever synced."""
    number = tmp_path.stat().st_dev
    disk = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not disk.exists() or (disk / "partition").exists():
        pytest.skip("the temporary directory is on no whole disk of its own")
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    # A file each: written pages are charged to the cgroup that wrote to the file first.
    write = "dd if=/dev/zero of=/data/{} bs=64k count=48 conv=fsync 2>/dev/null"
    mounts = (Mount("/data", str(tmp_path)),)

    async def seconds(name: str, *limits: IoLimit) -> float:
        config = shell(write.format(name), name, resources=CgroupResources(io_limits=limits), mounts=mounts)
        id = await started(runtime, sandbox, config)
        status = await ended(runtime, id, 60)
        assert status.exit_code == 0
        return (status.finished_ns - status.started_ns) / 1e9

    free = await seconds("free")
    bound = await seconds("bound", IoLimit(os.major(number), os.minor(number), write_bytes_per_second=MI))
    assert free < 1.5 < 2.0 < bound < 8


async def test_huge_pages_and_devices(runtime: Runtime, tmp_path: Path) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    limits = CgroupResources(hugepage_limits=(HugepageLimit("2MB", 2 * MI),))
    look = "cat /sys/fs/cgroup/hugetlb.2MB.max; mknod /kmsg c 1 11 && cat </kmsg; cat </dev/null && echo null"
    lines = await say(runtime, sandbox, look, resources=limits)
    assert {str(2 * MI), "null"} <= set(lines) and any("not permitted" in line for line in lines), lines


async def test_frozen_and_pressed(runtime: Runtime, host: Host, tmp_path: Path) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    id = await started(runtime, sandbox, shell("while :; do :; done", resources=CgroupResources(cpu_quota_us=10_000)))
    path = runtime.container_status(id).cgroup_path
    await asyncio.sleep(0.5)
    stats = runtime.container_stats(id)
    assert stats.pressure["cpu"].some_total_us > 0 and stats.cpu_throttled_periods
    host.cgroups.freeze(path)
    before = runtime.container_stats(id).cpu_usage_ns
    await asyncio.sleep(0.3)
    assert runtime.container_stats(id).cpu_usage_ns == before
    await runtime.stop_container(id, 0)  # also what is frozen ends
    assert runtime.container_status(id).exit_code == 137
