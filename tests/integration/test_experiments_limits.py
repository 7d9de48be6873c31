"""Each experiment, briefly, on a real daemon: what it measures is what the kernel gave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_harness import Daemon, pod_manifest, running

from sandbox.cli.client import target
from sandbox.experiments import plot
from sandbox.experiments.declaration import find
from sandbox.experiments.disk import disk_below
from sandbox.experiments.experiment import MIB, Settings
from sandbox.experiments.result import Result
from sandbox.experiments.run import run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as one:
        # Its cgroup is made with the first pod; then it goes before everything else that this host is busy with.
        run(find("pids"), Settings(repetitions=1, limits=("4",)), one.client, lambda _: None)
        for mount, file, weight in (("cpu", "cpu.shares", 8192), ("", "cpu.weight", 800)):
            path = Path("/sys/fs/cgroup", mount, one.cgroup_parent, file)
            if path.exists():
                path.write_text(str(weight))
        yield one


def measure(daemon: Daemon, name: str, *limits: str, **settings: Any) -> Result:
    """One repetition; afterwards no pod of it is left."""
    said: list[str] = []
    result = run(find(name), Settings(repetitions=1, limits=limits, **settings), daemon.client, said.append)
    if not result.refused:
        assert len(said) == 1 + len(result.samples), "progress is told before each measurement"
    assert daemon.get("pods", all=1)["items"] == []
    return result


def values(result: Result, series: str = "") -> list[float]:
    return [s.median for s in result.summaries if s.series == series]


def assert_throttled(measured: list[float], limits: list[float]) -> None:
    """Nothing is faster than its limit; a busy host may be slower, but not by far."""
    assert all(0.55 * limit <= value <= 1.15 * limit for value, limit in zip(measured, limits, strict=True)), measured


def _busy_share(seconds: float) -> float:
    """Of all CPUs, used by anybody, over `seconds`."""

    def read() -> tuple[int, int]:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)

    idle, total = read()
    time.sleep(seconds)
    idle_then, total_then = read()
    return 1 - (idle_then - idle) / max(1, total_then - total)


@pytest.fixture
def quiet_host() -> None:
    """What pods do to each other can be measured only where nobody else wants the CPUs."""
    busy = _busy_share(0.5)
    if busy > 0.25:
        pytest.skip(f"others use {busy:.0%} of this host's CPUs: contention cannot be measured")


def told(result: Result) -> dict[str, str]:
    """What the kernel was told, by file."""
    return {
        file: text
        for sample in result.samples
        for files in sample.details.get("kernel", {}).values()
        for file, text in files.items()
    }


def test_cpu(daemon: Daemon) -> None:
    result = measure(daemon, "cpu", "100m", "400m", window_s=1.0)
    low, high = values(result)
    assert 0.06 <= low <= 0.11
    assert 0.25 <= high <= 0.43, "others may have used the CPU too, but nobody gets more than the limit"
    assert all(s.details["throttledPeriods"] > 0 for s in result.samples)


@pytest.mark.usefixtures("quiet_host")
def test_a_weight_is_a_share_of_what_two_pods_fight_for(daemon: Daemon) -> None:
    result = measure(daemon, "cpu-weight", "250m", "4", window_s=1.5)
    small, large = result.summaries
    assert small.median == pytest.approx(small.expected, rel=0.25)
    assert large.median == pytest.approx(large.expected, rel=0.15)
    assert small.median < 0.33 < 0.67 < large.median


@pytest.mark.usefixtures("quiet_host")
def test_512_shares_are_no_half_of_a_core(daemon: Daemon) -> None:
    result = measure(daemon, "shares-512", window_s=1.5)
    alone, beside, limited = values(result)
    assert alone > 1.6 * beside, "a limit would give the same to both"
    assert beside < 0.45, "less than the half that is claimed"
    assert 0.3 < limited < 0.55
    assert told(result).get("cpu.shares", "512") == "512"


@pytest.mark.usefixtures("quiet_host")
def test_a_neighbour_with_a_limit_leaves_more(daemon: Daemon) -> None:
    result = measure(daemon, "noisy-neighbour", window_s=1.0)
    alone, equal, _, limited, modest = values(result)
    assert alone == 1.0
    assert 0.15 < equal < 0.75
    assert limited > equal + 0.1
    assert modest > equal + 0.1
    assert all(s.details["p99Milliseconds"] >= s.details["p50Milliseconds"] > 0 for s in result.samples)


def test_memory(daemon: Daemon) -> None:
    result = measure(daemon, "memory", "8Mi", "24Mi")
    assert values(result) == [pytest.approx(8 * MIB, rel=0.05), pytest.approx(24 * MIB, rel=0.03)]


def test_memory_high_is_had_or_refused(daemon: Daemon) -> None:
    result = measure(daemon, "memory-high", "16Mi")
    if daemon.get("version")["cgroups"] == "v2":
        assert values(result) == [pytest.approx(16 * MIB, rel=0.3)]
        assert result.summaries[0].also["oomKills"] == 0
    else:
        assert "memory.high needs cgroup v2" in result.refused
        assert result.samples == ()


def test_pids(daemon: Daemon) -> None:
    result = measure(daemon, "pids", "5", "30")
    assert values(result) == [5, 30]
    assert all("fork" in s.details["message"] for s in result.samples)


def test_a_fork_bomb_fills_its_limit(daemon: Daemon) -> None:
    (most,) = values(measure(daemon, "pids-bomb", "32", window_s=1.0))
    assert 29 <= most <= 32
    assert daemon.run(pod_manifest("beside", "exit 0"), wait="done"), "others still fork"
    daemon.delete("beside")


@pytest.mark.parametrize("loop", [False, True], ids=["disk", "loop"])
def test_io(daemon: Daemon, loop: bool) -> None:
    try:
        result = measure(daemon, "io", "2Mi", "6Mi", window_s=1.0, loop=loop)
    finally:
        assert _loop_devices(daemon) == []
        assert not list(daemon.root.glob("experiment-*"))
    on_loop = loop or not disk_below(daemon.root)
    assert result.facts["disk"].startswith("loop device" if on_loop else "a file on")
    for series in ("read", "write"):
        assert_throttled(values(result, series), [2 * MIB, 6 * MIB])


def test_io_operations(daemon: Daemon) -> None:
    result = measure(daemon, "io-operations", "100", window_s=1.0)
    assert_throttled(values(result, "read") + values(result, "write"), [100, 100])


def _loop_devices(daemon: Daemon) -> list[str]:
    """Those over files of this daemon: others test here too."""
    found = Path("/sys/block").glob("loop*/loop")
    return sorted(p.parent.name for p in found if _backing(p).startswith(f"{daemon.root}/"))


def _backing(loop: Path) -> str:
    try:
        return (loop / "backing_file").read_text()
    except OSError:
        return ""


def command(daemon: Daemon, *arguments: str) -> list[str]:
    config = daemon.config
    places = [f"--root={config.root}", f"--run-dir={config.run_dir}"]
    return [sys.executable, "-m", "sandbox.cli", *places, "experiment", *arguments]


def test_the_command_prints_a_table_and_writes_raw_data_and_a_plot(daemon: Daemon, tmp_path: Path) -> None:
    line = command(daemon, "pids", "--limits", "4,9", "--repetitions", "2", "-d", str(tmp_path / "out"))
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [row.split() for row in done.stdout.splitlines()]
    assert ["4", "4", "+0.0%", "4", "-", "4"] in rows
    assert ["9", "9", "+0.0%", "9", "-", "9"] in rows
    mode = daemon.get("version")["cgroups"]
    raw = json.loads((tmp_path / f"out/pids-{mode}.json").read_text())
    assert sorted(s["value"] for s in raw["samples"]) == [4, 4, 9, 9]
    assert raw["host"]["kernel"] == os.uname().release
    assert raw["host"]["cgroups"] == mode
    if plot.available():
        assert done.stderr == "", "progress is for terminals"
        assert (tmp_path / f"out/pids-{mode}.png").read_bytes().startswith(b"\x89PNG")


def test_a_declaration_of_ones_own_runs_and_is_reported(daemon: Daemon, tmp_path: Path) -> None:
    shown = subprocess.run(command(daemon, "show", "pids"), cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    own = shown.stdout.replace("name: pids", "name: my-own", 1).replace("[8, 16, 32, 64, 128, 256]", "[6]")
    (tmp_path / "own.yaml").write_text(own)
    line = command(daemon, "run", str(tmp_path / "own.yaml"), "-d", str(tmp_path / "out"), "-o", "json")
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"][0]["median"] == 6
    done = subprocess.run(command(daemon, "report", str(tmp_path / "out")), cwd=REPOSITORY, timeout=60)
    assert done.returncode == 0
    assert "sandbox experiment run my-own" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["memory", "--limits", "lots"], 2, "lots"),
        (["run", "memroy"], 3, "did you mean 'memory'"),
        (["run"], 2, "name experiments, or give --all"),
        (["run", "--all", "cpu"], 2, "name experiments, or give --all"),
        (["run", "cpu", "pids", "--window", "1"], 2, "'pids' measures no rate"),
        (["run", "cpu", "--loop"], 2, "'cpu' uses no disk"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_made(
    daemon: Daemon, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    line = command(daemon, *words, "-d", str(tmp_path / "out"))
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupt_cleans_up(daemon: Daemon, tmp_path: Path, number: signal.Signals) -> None:
    line = command(daemon, "io", "--loop", "--window", "30", "-d", str(tmp_path))
    process = subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not (daemon.get("stats")["pods"] and _loop_devices(daemon)):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    assert daemon.get("pods", all=1)["items"] == []
    assert _loop_devices(daemon) == []
    assert not list(daemon.root.glob("experiment-*"))
    assert list(tmp_path.iterdir()) == []


def test_pods_of_others_are_left_alone(daemon: Daemon) -> None:
    daemon.run(pod_manifest("bystander", "sleep 60"))
    try:
        run(find("pids"), Settings(repetitions=1, limits=("4",)), daemon.client, lambda _: None)
        items = daemon.client.get(target("v1", "pods", query=[("all", 1)]))["items"]
        assert [(p["metadata"]["name"], p["status"]["phase"]) for p in items] == [("bystander", "Running")]
    finally:
        daemon.delete("bystander")
