"""The plan of a sweep, its statistics, its report and its plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.errors import InvalidInput, SandboxError, UnsupportedByHost
from sandbox.experiments import plot
from sandbox.experiments.disk_io import READ, WRITE, block_size, script
from sandbox.experiments.experiment import MIB, Experiment, Settings
from sandbox.experiments.pods import slope
from sandbox.experiments.report import Report, path_of, prepare_directory, write_json
from sandbox.experiments.run import EXPERIMENTS
from sandbox.experiments.sweep import Point, Sample, plan, summarize

CPU, IO, MEMORY, PIDS = (EXPERIMENTS[name] for name in ("cpu", "io", "memory", "pids"))


def report(experiment: Experiment, *, load: float = 0.1) -> Report:
    """Two repetitions of two limits: 4 % under and exactly at the limit."""
    limits = experiment.limits[:2]
    points = plan(experiment.series, limits, 2, seed=1)
    samples = tuple(Sample(p, p.limit * (0.92 if p.repetition == 1 else 1.0), {"n": 1}) for p in points)
    return Report(
        experiment=experiment,
        settings=Settings(repetitions=2, limits=limits),
        host={"kernel": "6.1.0-test", "cgroups": "v2", "cpus": 2},
        facts={"disk": "a file on sda (8:0)"} if experiment is IO else {},
        samples=samples,
        began=0.0,
        seconds=1.0,
        load=(load, 1.0),
    )


def test_a_plan_measures_every_limit_once_a_round() -> None:
    points = plan(("read", "write"), (1, 2, 4), 3, seed=7)
    assert len(points) == 18
    for round_number in (1, 2, 3):
        one = points[6 * (round_number - 1) : 6 * round_number]
        assert {p.repetition for p in one} == {round_number}
        assert {(p.series, p.limit) for p in one} == {(s, n) for s in ("read", "write") for n in (1, 2, 4)}


def test_the_seed_decides_the_order_and_rounds_differ() -> None:
    limits = tuple(range(10))
    assert plan(("",), limits, 2, seed=3) == plan(("",), limits, 2, seed=3)
    assert plan(("",), limits, 2, seed=3) != plan(("",), limits, 2, seed=4)
    points = [p.limit for p in plan(("",), limits, 2, seed=3)]
    assert points[:10] != points[10:]


def test_a_summary_has_median_band_and_error() -> None:
    samples = [Sample(Point("", 100, n), value) for n, value in enumerate((90, 140, 97))]
    samples.append(Sample(Point("", 50, 1), 50))
    low, high = summarize(samples)
    assert (low.limit, low.median, low.error_percent) == (50, 50, 0)
    assert (high.median, high.low, high.high, high.count) == (97, 90, 140, 3)
    assert high.error_percent == pytest.approx(-3.0)


def test_the_slope_of_a_staircase_is_its_mean_rate() -> None:
    stairs = [(t / 50, 1000 * ((t / 50) // 0.1 + 1)) for t in range(100)]  # 1000 each 100 ms, read every 20 ms
    assert slope(stairs) == pytest.approx(10_000, rel=0.01)
    ends = (stairs[-1][1] - stairs[0][1]) / (stairs[-1][0] - stairs[0][0])
    assert abs(ends - 10_000) > 2 * abs(slope(stairs) - 10_000), "why not the two ends"


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=list(EXPERIMENTS))
def test_usual_limits_are_allowed_limits(experiment: Experiment) -> None:
    assert list(experiment.limits) == sorted(set(experiment.limits))
    assert experiment.lowest <= experiment.limits[0]
    assert experiment.limits[-1] <= experiment.highest


def test_limits_are_quantities() -> None:
    assert CPU.parse_limits("1, 250m,250m") == (0.25, 1.0)
    assert MEMORY.parse_limits("16Mi") == (16 * MIB,)
    assert PIDS.parse_limits("64,8") == (8, 64)


@pytest.mark.parametrize(
    ("experiment", "text"),
    [(CPU, "2"), (CPU, "1m"), (CPU, ""), (CPU, ","), (CPU, "fast"), (PIDS, "1"), (PIDS, "8.5"), (MEMORY, "1Ki")],
)
def test_a_limit_that_says_nothing_is_refused(experiment: Experiment, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        experiment.parse_limits(text)
    assert caught.value.exit_code == 2


def test_blocks_are_aligned_and_small_beside_a_second() -> None:
    for rate in (64 << 10, MIB, 3 * MIB, 16 * MIB, 1 << 33):
        size = block_size(rate)
        assert size & (size - 1) == 0
        assert 4096 <= size <= MIB
        assert size == 4096 or size <= rate / 64


def test_the_report_as_json_has_everything_raw() -> None:
    found = json.loads(json.dumps(report(IO).to_json()))
    assert found["experiment"] == "io"
    assert found["host"]["kernel"] == "6.1.0-test"
    assert found["settings"] | {"limits": 0} == {
        "repetitions": 2,
        "seed": 1,
        "limits": 0,
        "disk": "a file on sda (8:0)",
    }
    assert len(found["samples"]) == 8
    assert {s["series"] for s in found["summary"]} == {READ, WRITE}
    assert found["summary"][0]["errorPercent"] == pytest.approx(-4.0)


def test_the_table_has_a_line_a_limit() -> None:
    lines = report(CPU).lines()
    assert lines[3].split() == ["LIMIT", "MEDIAN", "ERROR", "BAND"]
    assert lines[4].split() == ["100", "96", "-4.0%", "92", "-", "100"]
    assert "6.1.0-test" in lines[-1]
    assert "cgroup v2" in lines[-1]
    assert report(IO).lines()[3].startswith("DIRECTION")


def test_a_busy_host_is_mentioned() -> None:
    assert not report(CPU).notes()
    assert "busy" in report(CPU, load=3.0).notes()[0]
    assert not report(PIDS, load=3.0).notes(), "forks do not depend on it"


def test_raw_data_are_written_whole(tmp_path: Path) -> None:
    path = path_of(report(MEMORY), tmp_path)
    write_json(report(MEMORY), path)
    assert path.name == "memory-v2.json"
    assert json.loads(path.read_text())["experiment"] == "memory"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SandboxError, match="cannot write"):
        prepare_directory(tmp_path / "file" / "below")


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=list(EXPERIMENTS))
def test_the_plot_is_a_picture(experiment: Experiment, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(report(experiment), tmp_path / "plot.png")
    data = (tmp_path / "plot.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert width > 800
    assert height > 600


def test_without_matplotlib_the_plot_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "available", lambda: False)
    with pytest.raises(UnsupportedByHost) as caught:
        plot.draw(report(CPU), tmp_path / "plot.png")
    assert "plots" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_commands_of_dd_pass_the_page_cache() -> None:
    class Place:
        target, size_bytes = "/experiment/data", 64 * MIB

    assert "iflag=direct" in script(READ, Place, MIB)  # type: ignore[arg-type]
    assert "oflag=direct conv=notrunc" in script(WRITE, Place, MIB)  # type: ignore[arg-type]
    assert "count=64" in script(WRITE, Place, MIB)  # type: ignore[arg-type]
