"""The sampler tells what the driver tells, with one read a file."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cgroups import sampler as module
from sandbox.cgroups.detect import detect
from sandbox.cgroups.driver import CgroupDriver
from sandbox.cgroups.resources import CgroupResources
from sandbox.cgroups.sampler import Sampler
from sandbox.errors import NotFound

MIB = 1 << 20
WORK = """
import os, time
while time.process_time() < 0.1: pass
held = bytearray(8 << 20)
print("ready", flush=True)
os.read(0, 1)
"""


@pytest.fixture
def driver() -> CgroupDriver:
    return detect()


@pytest.fixture
def path(driver: CgroupDriver) -> Iterator[str]:
    name = f"sandbox-test-{secrets.token_hex(4)}/pod"
    driver.create(
        name,
        CgroupResources(cpu_quota_us=10_000, cpu_period_us=100_000, memory_limit_bytes=64 * MIB, pids_limit=20),
    )
    yield name
    driver.kill(name)
    asyncio.run(driver.remove(name.partition("/")[0]))


@pytest.fixture
def busy(driver: CgroupDriver, path: str) -> Iterator[None]:
    """A process that has used its CPU quota up several times and now holds memory."""
    entry = driver.entry(path)
    joins = [*entry.join_paths, *([f"{entry.directory}/cgroup.procs"] if entry.directory else [])]

    def join() -> None:
        for file in joins:
            Path(file).write_text("0")

    with subprocess.Popen(
        [sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=join
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield
        process.kill()


EXACT = (
    "cpu_usage_ns",
    "cpu_periods",
    "cpu_throttled_periods",
    "cpu_throttled_ns",
    "memory_usage_bytes",
    "memory_working_set_bytes",
    "memory_peak_bytes",
    "memory_rss_bytes",
    "memory_cache_bytes",
    "memory_limit_bytes",
    "memory_page_faults",
    "memory_major_page_faults",
    "swap_usage_bytes",
    "oom_kills",
    "pids_current",
    "pids_limit",
    "io",
)


@pytest.mark.usefixtures("busy")
def test_it_tells_what_the_driver_tells(driver: CgroupDriver, path: str) -> None:
    driver.freeze(path)
    sampler = Sampler(driver)
    theirs = driver.stats(path)
    for _ in range(2):
        ours = sampler.sample(path)
        assert {name: getattr(ours, name) for name in EXACT} == {name: getattr(theirs, name) for name in EXACT}
        assert ours.cpu_user_ns is not None and ours.cpu_system_ns is not None and theirs.cpu_user_ns is not None
        assert abs(ours.cpu_user_ns - theirs.cpu_user_ns) <= 10_000_000
        assert ours.pressure.keys() == theirs.pressure.keys()
    assert ours.cpu_throttled_ns and ours.memory_usage_bytes and ours.memory_usage_bytes > 8 * MIB
    driver.thaw(path)


@pytest.mark.usefixtures("busy")
def test_pressure_where_the_kernel_has_it(driver: CgroupDriver, path: str) -> None:
    if not Path("/proc/pressure/cpu").exists() or driver.entry(path).directory is None:
        pytest.skip("no pressure on this host")
    pressure = Sampler(driver).sample(path).pressure
    assert set(pressure) == {"cpu", "memory", "io"}
    assert pressure["cpu"].some_total_us > 0, "it was throttled"


def test_one_read_a_file_and_descriptors_only_while_watched(
    driver: CgroupDriver, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(driver)
    opened, reads = [], []
    real_open, real_read = os.open, os.pread
    monkeypatch.setattr(module.os, "open", lambda *a: opened.append(a[0]) or real_open(*a))
    monkeypatch.setattr(module.os, "pread", lambda *a: reads.append(a[0]) or real_read(*a))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with sampler.watched():
        sampler.sample(path)
        files = len(opened)
        assert files == len(module.sources_of(driver)) >= 10
        opened.clear()
        reads.clear()
        for _ in range(5):
            sampler.sample(path)
        assert not opened
        assert len(reads) <= 5 * files and max(map(reads.count, reads)) == 5
        with sampler.watched():
            pass
        assert sampler.kept, "somebody still watches"
    assert sampler.kept == 0 and len(list(Path("/proc/self/fd").iterdir())) == before
    sampler.sample(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_beyond_its_budget_it_opens_each_time(driver: CgroupDriver, path: str) -> None:
    sampler = Sampler(driver)
    sampler._budget = 3
    with sampler.watched():
        assert sampler.sample(path).pids_limit == 20
        assert sampler.kept == 0


def test_a_cgroup_that_goes_is_let_go(driver: CgroupDriver, path: str) -> None:
    sampler = Sampler(driver)
    gone = f"{path}/gone"
    driver.create(gone, CgroupResources())
    with sampler.watched():
        sampler.sample(gone)
        asyncio.run(driver.remove(gone))
        with pytest.raises(NotFound):
            sampler.sample(gone)
        assert sampler.kept == 0
    with pytest.raises(NotFound):
        sampler.sample("sandbox-test-nothing/here")


def test_an_answer_longer_than_a_page_is_read_to_its_end(tmp_path: Path) -> None:
    text = b"".join(b"8:%d Read %d\n" % (n, n) for n in range(5000))
    file = tmp_path / "long"
    file.write_bytes(text)
    fd = os.open(file, os.O_RDONLY)
    assert module._read(fd) == text
    os.close(fd)
