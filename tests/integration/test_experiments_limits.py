"""Each experiment, briefly, on a real daemon: what it measures is what the kernel gave."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_harness import Daemon, running

from sandbox.cli.client import target
from sandbox.experiments.disk import disk_below
from sandbox.experiments.experiment import MIB, Settings
from sandbox.experiments.report import Report
from sandbox.experiments.run import EXPERIMENTS, run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as one:
        yield one


def measure(daemon: Daemon, name: str, *limits: float, **settings: object) -> Report:
    """One repetition; afterwards no pod of it is left."""
    said: list[str] = []
    chosen = Settings(repetitions=1, limits=limits, **settings)  # type: ignore[arg-type]
    report = run(EXPERIMENTS[name], chosen, daemon.client, said.append)
    assert len(said) == 1 + len(report.samples), "progress is told before each measurement"
    assert daemon.get("pods", all=1)["items"] == []
    return report


def values(report: Report, series: str = "") -> list[float]:
    return [s.median for s in report.summaries if s.series == series]


def test_cpu(daemon: Daemon) -> None:
    report = measure(daemon, "cpu", 0.1, 0.4, window_s=1.0)
    low, high = values(report)
    assert 0.08 <= low <= 0.11
    assert 0.30 <= high <= 0.43, "others may have used the CPU too, but nobody gets more than the limit"
    assert all(s.details["throttledPeriods"] > 0 for s in report.samples)


def test_memory(daemon: Daemon) -> None:
    report = measure(daemon, "memory", 8 * MIB, 24 * MIB)
    assert values(report) == [pytest.approx(8 * MIB, rel=0.05), pytest.approx(24 * MIB, rel=0.03)]


def test_pids(daemon: Daemon) -> None:
    report = measure(daemon, "pids", 5, 30)
    assert values(report) == [5, 30]
    assert all("fork" in s.details["message"] for s in report.samples)


@pytest.mark.parametrize("loop", [False, True], ids=["disk", "loop"])
def test_io(daemon: Daemon, loop: bool) -> None:
    before = _loop_devices()
    try:
        report = measure(daemon, "io", 2 * MIB, 6 * MIB, window_s=1.0, loop=loop)
    finally:
        assert _loop_devices() == before
        assert not list(daemon.root.glob("experiment-*"))
    on_loop = loop or not disk_below(daemon.root)
    assert report.facts["disk"].startswith("loop device" if on_loop else "a file on")
    for series in ("read", "write"):
        assert values(report, series) == [pytest.approx(2 * MIB, rel=0.15), pytest.approx(6 * MIB, rel=0.15)]


def _loop_devices() -> list[str]:
    return sorted(p.parent.name for p in Path("/sys/block").glob("loop*/loop") if "experiment-" in _backing(p))


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
    assert done.stderr == "", "progress is for terminals"
    rows = [row.split() for row in done.stdout.splitlines()]
    assert ["4", "4", "+0.0%", "4", "-", "4"] in rows
    assert ["9", "9", "+0.0%", "9", "-", "9"] in rows
    mode = daemon.get("version")["cgroups"]
    raw = json.loads((tmp_path / f"out/pids-{mode}.json").read_text())
    assert statistics.median(s["value"] for s in raw["samples"]) in (4, 6.5, 9)
    assert raw["host"]["kernel"] == os.uname().release
    assert raw["host"]["cgroups"] == mode
    assert (tmp_path / f"out/pids-{mode}.png").read_bytes().startswith(b"\x89PNG")


def test_wrong_limits_are_refused_before_anything_is_made(daemon: Daemon, tmp_path: Path) -> None:
    line = command(daemon, "memory", "--limits", "lots", "-d", str(tmp_path / "out"))
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "lots" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupt_cleans_up(daemon: Daemon, tmp_path: Path, number: signal.Signals) -> None:
    line = command(daemon, "io", "--loop", "--window", "30", "-d", str(tmp_path))
    process = subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not daemon.get("stats")["pods"]:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    assert daemon.get("pods", all=1)["items"] == []
    assert _loop_devices() == []
    assert not list(daemon.root.glob("experiment-*"))
    assert list(tmp_path.iterdir()) == []


def test_pods_of_others_are_left_alone(daemon: Daemon) -> None:
    from daemon_harness import pod_manifest

    daemon.run(pod_manifest("bystander", "sleep 60"))
    try:
        run(EXPERIMENTS["pids"], Settings(repetitions=1, limits=(4,)), daemon.client, lambda _: None)
        items = daemon.client.get(target("v1", "pods", query=[("all", 1)]))["items"]
        assert [(p["metadata"]["name"], p["status"]["phase"]) for p in items] == [("bystander", "Running")]
    finally:
        daemon.delete("bystander")
