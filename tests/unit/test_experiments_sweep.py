"""The plan of an experiment and the arithmetic of what was measured."""

from __future__ import annotations

import pytest

from sandbox.errors import InvalidInput, UnsupportedByHost
from sandbox.experiments.declaration import find
from sandbox.experiments.disk import block_size
from sandbox.experiments.experiment import MIB
from sandbox.experiments.pods import slope
from sandbox.experiments.run import weight_of
from sandbox.experiments.sweep import Case, Point, Sample, percentile, plan, relative, summarize

CASES = [Case(str(n), n, n) for n in (1, 2, 4)]


def test_a_plan_measures_every_case_once_a_round() -> None:
    points = plan(("read", "write"), CASES, 3, seed=7)
    assert len(points) == 18
    for number in (1, 2, 3):
        one = points[6 * (number - 1) : 6 * number]
        assert {p.repetition for p in one} == {number}
        assert {(p.series, p.case.name) for p in one} == {(s, n) for s in ("read", "write") for n in "124"}


def test_the_seed_decides_the_order_and_rounds_differ() -> None:
    cases = [Case(str(n)) for n in range(10)]
    assert plan(("",), cases, 2, seed=3) == plan(("",), cases, 2, seed=3)
    assert plan(("",), cases, 2, seed=3) != plan(("",), cases, 2, seed=4)
    names = [p.case.name for p in plan(("",), cases, 2, seed=3)]
    assert names[:10] != names[10:]


def test_a_summary_has_median_band_and_error() -> None:
    wide, narrow = Case("100", 100, 100), Case("50", 50, 50)
    samples = [Sample(Point("", wide, n), value, {"kills": n}) for n, value in enumerate((90, 140, 97))]
    samples.append(Sample(Point("", narrow, 1), 50))
    low, high = summarize(samples, [""], [narrow, wide])
    assert (low.case, low.median, low.error_percent) == (narrow, 50, 0)
    assert (high.median, high.low, high.high, high.count) == (97, 90, 140, 3)
    assert high.error_percent == pytest.approx(-3.0)
    assert high.also == {"kills": 1}


def test_what_the_kernel_tells_goes_before_what_was_declared() -> None:
    case = Case("weight", expected=0.5)
    (summary,) = summarize([Sample(Point("", case, n), 0.4, {}, 0.4) for n in (1, 2)], [""], [case])
    assert summary.expected == 0.4
    assert summary.error_percent == 0


def test_without_an_expectation_there_is_no_error() -> None:
    (summary,) = summarize([Sample(Point("", Case("free"), 1), 7.0)], [""], [Case("free")])
    assert summary.error_percent is None
    assert "errorPercent" not in summary.to_json()


def test_values_are_told_as_parts_of_the_median_of_the_baseline() -> None:
    alone, beside = Case("alone"), Case("beside")
    samples = [Sample(Point("", alone, n), value) for n, value in enumerate((190, 200, 230))]
    samples.append(Sample(Point("", beside, 1), 100))
    found = relative(samples, "alone")
    assert [s.value for s in found] == [0.95, 1.0, 1.15, 0.5]
    assert found[-1].details["measured"] == 100
    with pytest.raises(ZeroDivisionError):
        relative([Sample(Point("", alone, 1), 0.0)], "alone")


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = list(range(1, 101))
    assert [percentile(values, p) for p in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([5.0], 50) == 5.0


def test_the_slope_of_a_staircase_is_its_mean_rate() -> None:
    stairs = [(t / 50, 1000 * ((t / 50) // 0.1 + 1)) for t in range(100)]  # 1000 each 100 ms, read every 20 ms
    assert slope(stairs) == pytest.approx(10_000, rel=0.01)
    ends = (stairs[-1][1] - stairs[0][1]) / (stairs[-1][0] - stairs[0][0])
    assert abs(ends - 10_000) > 2 * abs(slope(stairs) - 10_000), "why not the two ends"


def test_limits_are_quantities() -> None:
    assert find("cpu").parse_limits("1, 250m,250m") == ("250m", "1")
    assert find("memory").parse_limits("16Mi") == ("16Mi",)
    assert find("pids").parse_limits("64,8") == ("8", "64")
    assert [c.limit for c in find("memory").cases(("16Mi",))] == [16 * MIB]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("cpu", text) for text in ("2", "1m", "", ",", "fast")),
        ("pids", "1"), ("pids", "8.5"), ("memory", "1Ki"), ("noisy-neighbour", "1"),
    ],
)  # fmt: skip
def test_a_limit_that_says_nothing_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        find(name).parse_limits(text)
    assert caught.value.exit_code == 2


def test_blocks_are_aligned_and_small_beside_a_second() -> None:
    for rate in (1024, 64 << 10, MIB, 3 * MIB, 16 * MIB, 1 << 33):
        size = block_size(rate)
        assert size & (size - 1) == 0
        assert 4096 <= size <= MIB
        assert size == 4096 or size <= rate / 64


def test_the_weight_is_what_the_kernel_was_told() -> None:
    assert weight_of({"cpu.shares": "512"}) == 512
    assert weight_of({"cpu.weight": "59"}) == 59
    with pytest.raises(UnsupportedByHost):
        weight_of({})
