"""What the drivers do to real processes. Runs on whatever hierarchies the host has; says what it skips and why."""

import asyncio
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.cgroups.detect import detect
from sandbox.cgroups.driver import CgroupDriver
from sandbox.cgroups.hybrid import HybridDriver
from sandbox.cgroups.resources import CgroupResources, DeviceRule, HugepageLimit, IoLimit
from sandbox.cgroups.values import hugepage_sizes
from sandbox.errors import DeadlineExceeded, InvalidInput, KernelError, NotFound, SandboxError, UnsupportedByHost

pytestmark = pytest.mark.root

MI = 1 << 20
NOTHING = CgroupResources()
SPIN = "while :; do :; done"

Run = Callable[..., subprocess.Popen[str]]


def drivers() -> list[CgroupDriver]:
    """The host's driver; on a hybrid host also each half alone."""
    whole = detect()
    return [whole, whole.v1, whole.v2] if isinstance(whole, HybridDriver) else [whole]


@pytest.fixture(params=drivers(), ids=lambda d: f"{type(d).__name__}")
def driver(request: pytest.FixtureRequest) -> CgroupDriver:
    chosen: CgroupDriver = request.param
    return chosen


@pytest.fixture
def name(driver: CgroupDriver) -> Iterator[str]:
    path = f"sandbox-test-{os.getpid()}"
    yield path
    driver.kill(path)
    asyncio.run(driver.remove(path))
    assert not driver.exists(path)


@pytest.fixture
def run(driver: CgroupDriver) -> Iterator[Run]:
    """run(path, shell command): a shell that enters the cgroup and then does the command."""
    started: list[subprocess.Popen[str]] = []

    def start(path: str, command: str) -> subprocess.Popen[str]:
        entry = driver.entry(path)
        files = [*entry.join_paths, *([f"{entry.directory}/cgroup.procs"] if entry.directory else [])]
        join = "".join(f"echo 0 > {file} || exit 99; " for file in files)
        child = subprocess.Popen(
            ["sh", "-c", f"{join}echo in; {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        assert child.stdout is not None
        # Not readline: it would buffer, and communicate() would miss, what the command has said by then.
        assert os.read(child.stdout.fileno(), 3) == b"in\n", child.communicate()
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate()


def needs(driver: CgroupDriver, *controllers: str) -> None:
    missing = set(controllers) - driver.controllers
    if missing:
        pytest.skip(f"{driver.mode} hierarchy here has no controller {', '.join(sorted(missing))}")


def io_controller(driver: CgroupDriver) -> str:
    return "io" if "io" in driver.controllers else "blkio"


def cpu_ns(driver: CgroupDriver, path: str) -> int:
    used = driver.stats(path).cpu_usage_ns
    assert used is not None
    return used


async def test_make_list_and_remove(driver: CgroupDriver, name: str) -> None:
    leaf = f"{name}/burstable/pod1/c"
    driver.create(leaf, NOTHING)
    driver.create(leaf, NOTHING)
    assert driver.exists(leaf) and driver.children(f"{name}/burstable") == ["pod1"]
    assert driver.processes(leaf) == []
    entry = driver.entry(leaf)
    assert all(Path(p).is_file() for p in entry.join_paths)
    assert bool(entry.directory) == (driver.mode != "v1")
    await driver.remove(name)
    assert not driver.exists(name) and driver.children(name) == []
    await driver.remove(name)
    driver.kill(name)
    for action in (driver.stats, driver.freeze, driver.thaw):
        with pytest.raises(NotFound):
            action(leaf)
    with pytest.raises(NotFound):
        driver.update(leaf, NOTHING)


def test_a_create_that_fails_leaves_nothing(driver: CgroupDriver, name: str) -> None:
    driver.create(name, NOTHING)
    with pytest.raises(SandboxError):
        driver.create(f"{name}/a/b", CgroupResources(unified=(("cgroup.max.depth", "many"),)))
    if isinstance(driver, HybridDriver) or driver.mode == "v1":
        # v1 refuses a child more bandwidth than its parent has: the last of eight hierarchies to be asked is not told.
        driver.update(name, CgroupResources(cpu_quota_us=10_000, cpu_period_us=100_000))
        with pytest.raises(KernelError, match="cfs_quota"):
            driver.create(f"{name}/a/b", CgroupResources(pids_limit=5, cpu_quota_us=50_000, cpu_period_us=100_000))
    assert driver.exists(name)
    assert driver.children(name) == []


def test_a_path_that_leaves_the_hierarchy_is_refused(driver: CgroupDriver) -> None:
    for path in ("..", "a/../../b", ""):
        with pytest.raises(InvalidInput):
            driver.create(path, NOTHING)
        with pytest.raises(InvalidInput):
            driver.kill(path)


def test_what_the_host_lacks_is_named(driver: CgroupDriver) -> None:
    asked = {
        "cpu": CgroupResources(cpu_shares=2),
        "memory": CgroupResources(memory_limit_bytes=MI),
        "pids": CgroupResources(pids_limit=1),
        "cpuset": CgroupResources(cpuset_cpus="0"),
    }
    for controller, resources in asked.items():
        if controller in driver.controllers:
            driver.check(resources)
        else:
            with pytest.raises(UnsupportedByHost, match=controller):
                driver.check(resources)
    unified = driver.v2 if isinstance(driver, HybridDriver) else driver
    if driver.mode == "v1" or "memory" not in unified.controllers:
        with pytest.raises(UnsupportedByHost, match="memory"):
            driver.check(CgroupResources(memory_high_bytes=MI))


def test_cpu_quota_is_what_a_busy_process_gets(driver: CgroupDriver, name: str, run: Run) -> None:
    needs(driver, "cpu")
    driver.create(name, CgroupResources(cpu_quota_us=20_000, cpu_period_us=100_000))
    run(name, SPIN)
    before, began = cpu_ns(driver, name), time.monotonic_ns()
    time.sleep(1.0)
    share = (cpu_ns(driver, name) - before) / (time.monotonic_ns() - began)
    assert 0.1 < share < 0.3
    stats = driver.stats(name)
    assert stats.cpu_throttled_periods and stats.cpu_throttled_ns
    driver.update(name, CgroupResources(cpu_quota_us=-1))
    before, began = cpu_ns(driver, name), time.monotonic_ns()
    time.sleep(0.5)
    assert (cpu_ns(driver, name) - before) / (time.monotonic_ns() - began) > 0.3


def test_cpu_shares_are_a_weight(driver: CgroupDriver, name: str, run: Run) -> None:
    needs(driver, "cpu")
    for leaf, shares in (("small", 512), ("large", 2048)):
        driver.create(f"{name}/{leaf}", CgroupResources(cpu_shares=shares))
        run(f"{name}/{leaf}", f"exec taskset -c 0 sh -c '{SPIN}'")
    time.sleep(0.3)
    before = {leaf: cpu_ns(driver, f"{name}/{leaf}") for leaf in ("small", "large")}
    time.sleep(1.5)
    used = {leaf: cpu_ns(driver, f"{name}/{leaf}") - before[leaf] for leaf in before}
    assert used["small"] > 0  # a share is a weight, not a part of a core: the rest is divided too
    assert 2 < used["large"] / used["small"] < 8


def test_cpu_burst(driver: CgroupDriver, name: str) -> None:
    needs(driver, "cpu")
    driver.create(name, CgroupResources(cpu_quota_us=50_000, cpu_period_us=100_000, cpu_burst_us=50_000))
    # Lowering the quota below the old burst works when the new burst comes with it.
    driver.update(name, CgroupResources(cpu_quota_us=10_000, cpu_burst_us=5_000))


def test_cpuset(driver: CgroupDriver, name: str, run: Run) -> None:
    needs(driver, "cpuset")
    driver.create(f"{name}/pod/c", CgroupResources(cpuset_cpus="0", cpuset_mems="0"))
    child = run(f"{name}/pod/c", "exec sleep 30")
    assert os.sched_getaffinity(child.pid) == {0}
    driver.create(f"{name}/pod/d", NOTHING)
    assert os.sched_getaffinity(run(f"{name}/pod/d", "exec sleep 30").pid) == os.sched_getaffinity(0)


def test_out_of_memory_kills_counts_and_tells(driver: CgroupDriver, name: str, run: Run) -> None:
    needs(driver, "memory")
    leaf = f"{name}/pod/c"
    driver.create(leaf, CgroupResources(memory_limit_bytes=16 * MI, memory_swap_limit_bytes=16 * MI))
    assert driver.oom_kills(leaf) == 0
    watch = driver.watch_oom(leaf)
    try:
        assert watch.read() == 0
        assert not select.select([watch.fileno()], [], [], 0)[0]
        child = run(leaf, "exec tail /dev/zero")
        assert select.select([watch.fileno()], [], [], 10)[0]
        assert child.wait(10) == -signal.SIGKILL
        assert sum(_reads(watch)) >= 1
    finally:
        watch.close()
        watch.close()
    assert driver.oom_kills(leaf) == 1
    stats = driver.stats(leaf)
    assert stats.oom_kills == 1 and stats.memory_limit_bytes == 16 * MI
    assert stats.memory_peak_bytes is not None and 12 * MI < stats.memory_peak_bytes <= 16 * MI


def _reads(watch: object) -> Iterator[int]:
    # v2's counter is raised after the first change of the file: look until it has been.
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        count = watch.read()  # type: ignore[attr-defined]
        yield count
        if count:
            return
        select.select([watch.fileno()], [], [], 0.2)  # type: ignore[attr-defined]


def test_a_limit_above_kills_and_the_cgroup_of_the_victim_counts(driver: CgroupDriver, name: str, run: Run) -> None:
    needs(driver, "memory")
    driver.create(name, CgroupResources(memory_limit_bytes=16 * MI, memory_swap_limit_bytes=16 * MI))
    driver.create(f"{name}/c", NOTHING)
    assert run(f"{name}/c", "exec tail /dev/zero").wait(10) == -signal.SIGKILL
    assert driver.oom_kills(f"{name}/c") == 1


def test_memory_limits_go_up_and_down(driver: CgroupDriver, name: str) -> None:
    needs(driver, "memory")
    driver.create(name, CgroupResources(memory_limit_bytes=64 * MI, memory_swap_limit_bytes=64 * MI))
    for limit, swap in ((128, 128), (32, 32), (32, 64), (16, 64), (256, None), (-1, -1), (48, 48)):
        amount = limit * MI if limit > 0 else -1
        both = swap if swap is None or swap < 0 else swap * MI
        driver.update(name, CgroupResources(memory_limit_bytes=amount, memory_swap_limit_bytes=both))
        assert driver.stats(name).memory_limit_bytes == (None if amount < 0 else amount)
    driver.update(name, CgroupResources(memory_low_bytes=8 * MI))


def test_pids_limit_stops_forks(driver: CgroupDriver, name: str, run: Run) -> None:
    needs(driver, "pids")
    driver.create(name, CgroupResources(pids_limit=4))
    child = run(name, "for i in 1 2 3 4 5 6 7 8; do sleep 30 >/dev/null 2>&1 & done; wait")
    _, errors = child.communicate(timeout=20)  # dash gives up when it cannot fork
    assert "fork" in errors
    stats = driver.stats(name)
    assert stats.pids_limit == 4
    assert 1 <= len(driver.processes(name)) <= 4
    driver.kill(name)


async def test_frozen_processes_stand_still_and_can_be_killed(driver: CgroupDriver, name: str, run: Run) -> None:
    if driver.mode == "v1":
        needs(driver, "freezer")
    driver.create(f"{name}/c", NOTHING)
    child = run(f"{name}/c", SPIN)
    driver.freeze(name)
    before = _ticks(child.pid)
    time.sleep(0.3)
    assert _ticks(child.pid) == before
    driver.thaw(name)
    time.sleep(0.5)
    assert _ticks(child.pid) > before
    driver.freeze(f"{name}/c")
    driver.kill(name)
    assert child.wait(10) == -signal.SIGKILL
    await driver.remove(name, timeout=5)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def test_kill_leaves_nobody_not_even_those_that_fork(driver: CgroupDriver, name: str, run: Run) -> None:
    driver.create(f"{name}/a/b", NOTHING)
    driver.create(f"{name}/a/c", NOTHING)  # a leaf: on v2 a cgroup that hands controllers down has no processes
    run(f"{name}/a/c", "while :; do sleep 0.01 & done")
    run(f"{name}/a/b", "sleep 100 & sleep 100 & wait")
    time.sleep(0.2)
    pids = driver.processes(name)
    assert len(pids) >= 4
    driver.kill(name)
    await driver.remove(name, timeout=10)
    assert not driver.exists(name)
    for pid in pids:
        assert not _runs(pid)
    driver.kill(name)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_remove_waits_for_the_last_process(driver: CgroupDriver, name: str, run: Run) -> None:
    driver.create(f"{name}/c", NOTHING)
    child = run(f"{name}/c", "exec sleep 100")
    with pytest.raises(DeadlineExceeded, match=str(child.pid)):
        await driver.remove(name, timeout=0.2)
    assert driver.processes(name) == [child.pid]
    removal = asyncio.create_task(driver.remove(name, timeout=10))
    await asyncio.sleep(0.2)
    assert not removal.done()
    began = time.monotonic()
    child.kill()
    await removal
    assert time.monotonic() - began < 1
    assert not driver.exists(name)


def test_devices(driver: CgroupDriver, name: str, run: Run) -> None:
    needs(driver, "devices")
    rules = (
        DeviceRule(False),
        DeviceRule(True, "c", 1, 3, "rwm"),
        DeviceRule(True, "c", 1, 5, "r"),
        DeviceRule(True, "c", None, None, "m"),
    )
    driver.create(name, CgroupResources(device_rules=rules))
    script = """
        for what in '</dev/null' '>/dev/null' '</dev/zero' '>/dev/zero' '</dev/urandom'; do
            (eval ": $what") 2>/dev/null && echo yes || echo no
        done
        mknod $0.node c 1 9 2>/dev/null && echo yes || echo no; rm -f $0.node
    """
    script = script.replace("$0.node", f"/tmp/{name}-node")
    out, _ = run(name, script).communicate(timeout=10)
    assert out.split() == ["yes", "yes", "yes", "no", "no", "yes"]
    driver.update(name, CgroupResources(device_rules=(*rules, DeviceRule(True, "c", 1, 9, "r"))))
    out, _ = run(name, script).communicate(timeout=10)
    assert out.split() == ["yes", "yes", "yes", "no", "yes", "yes"]


def test_hugetlb(driver: CgroupDriver, name: str) -> None:
    needs(driver, "hugetlb")
    sizes = hugepage_sizes()
    driver.create(f"{name}/c", CgroupResources(hugepage_limits=tuple(HugepageLimit(s, 0) for s in sizes)))
    files = [
        *Path("/sys/fs/cgroup").glob(f"**/{name}/c/hugetlb.*.max"),
        *Path("/sys/fs/cgroup").glob(f"**/{name}/c/hugetlb.*.limit_in_bytes"),
    ]
    assert {f.name.split(".")[1] for f in files} == set(sizes)
    assert all(f.read_text().strip() == "0" for f in files)


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[tuple[str, int, int]]:
    image = tmp_path / "disk"
    image.write_bytes(b"\1" * (8 * MI))
    made = subprocess.run(["losetup", "-f", "--show", str(image)], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no loop device to be had: {made.stderr.strip()}")
    device = made.stdout.strip()
    number = Path(device).stat().st_rdev
    try:
        yield device, os.major(number), os.minor(number)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_io_throttle(driver: CgroupDriver, name: str, run: Run, loop_device: tuple[str, int, int]) -> None:
    needs(driver, io_controller(driver))
    device, major, minor = loop_device
    read = f"dd if={device} of=/dev/null iflag=direct bs=64k count=48 2>/dev/null"  # 3 MiB
    driver.create(name, NOTHING)
    fast = _seconds(run, name, read)
    driver.update(name, CgroupResources(io_limits=(IoLimit(major, minor, read_bytes_per_second=MI),)))
    slow = _seconds(run, name, read)
    assert 2.5 < slow < 5.0 and fast < slow / 2
    driver.update(name, CgroupResources(io_limits=(IoLimit(major, minor, -1, -1, -1, -1),)))
    assert _seconds(run, name, read) < slow / 2
    counted = {(s.major, s.minor): s for s in driver.stats(name).io}
    # v1 counts a device from its first throttle on: two of the three reads at least.
    assert counted[major, minor].read_bytes in (6 * MI, 9 * MI)
    write = f"dd if=/dev/zero of={device} oflag=direct bs=4k count=10 2>/dev/null"
    driver.update(name, CgroupResources(io_limits=(IoLimit(major, minor, write_operations_per_second=10),)))
    assert 0.5 < _seconds(run, name, write) < 3.0


def _seconds(run: Run, path: str, command: str) -> float:
    child = run(path, command)
    began = time.monotonic()
    child.communicate(timeout=30)
    assert child.returncode == 0
    return time.monotonic() - began


def test_io_weight(driver: CgroupDriver, name: str) -> None:
    needs(driver, io_controller(driver))
    try:
        driver.create(name, CgroupResources(io_weight=5000))
    except UnsupportedByHost as e:
        assert not driver.exists(name)
        pytest.skip(str(e))
    driver.update(name, CgroupResources(io_weight=1))


def test_one_update_changes_only_what_it_names(driver: CgroupDriver, name: str) -> None:
    needs(driver, "memory", "pids")
    both = CgroupResources(memory_limit_bytes=32 * MI, memory_swap_limit_bytes=32 * MI, pids_limit=10)
    driver.create(name, both)
    driver.update(name, replace(NOTHING, pids_limit=20))
    stats = driver.stats(name)
    assert (stats.pids_limit, stats.memory_limit_bytes) == (20, 32 * MI)


def test_raw_v2_files(driver: CgroupDriver, name: str) -> None:
    asked = CgroupResources(unified=(("cgroup.max.depth", "3"),))
    if driver.mode == "v1":
        with pytest.raises(UnsupportedByHost, match="cgroup v2"):
            driver.check(asked)
        return
    driver.create(name, asked)
    directory = driver.entry(name).directory
    assert directory and Path(directory, "cgroup.max.depth").read_text() == "3\n"
    for bad in ("../escape.x", "cgroup/x.y", "", "nodot", "a.b\n"):
        with pytest.raises(InvalidInput):
            driver.check(CgroupResources(unified=((bad, "1"),)))
