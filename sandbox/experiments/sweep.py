"""The plan of an experiment and the statistics of what was measured. Pure: no daemon, no clock."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """One situation that is measured: a limit of a sweep, or one that a declaration spells out.

    Numbers are in the kernel's unit. `expected` is what the limit promises, `claim` what somebody else says it does.
    """

    name: str
    limit: float | None = None
    expected: float | None = None
    claim: float | None = None
    variables: tuple[tuple[str, str], ...] = ()
    pods: tuple[str, ...] = ()
    """Which of the declared pods run; empty: all."""


@dataclass(frozen=True)
class Point:
    """One measurement to be made: `repetition` counts from 1."""

    series: str
    case: Case
    repetition: int


@dataclass(frozen=True)
class Sample:
    """One measurement that was made. `details` say how it came about; `expected` when only the kernel could tell."""

    point: Point
    value: float
    details: Mapping[str, Any] = field(default_factory=dict)
    expected: float | None = None

    def to_json(self) -> dict[str, Any]:
        case = self.point.case
        expected = case.expected if self.expected is None else self.expected
        named = {"series": self.point.series, "case": case.name, "limit": case.limit}
        measured = {"repetition": self.point.repetition, "value": self.value, "expected": expected}
        return {key: value for key, value in (named | measured).items() if value is not None} | {
            "details": dict(self.details)
        }


@dataclass(frozen=True)
class Summary:
    """All repetitions of one case: the median, and the band from the lowest to the highest."""

    series: str
    case: Case
    expected: float | None
    median: float
    low: float
    high: float
    count: int
    also: Mapping[str, float] = field(default_factory=dict)
    """Medians of the details that are numbers."""

    @property
    def error_percent(self) -> float | None:
        """How far the median is from what was expected, in percent of that."""
        return self.error_of(self.median)

    def error_of(self, value: float) -> float | None:
        return 100.0 * (value - self.expected) / self.expected if self.expected else None

    def to_json(self) -> dict[str, Any]:
        error = self.error_percent
        values = {
            "series": self.series,
            "case": self.case.name,
            "limit": self.case.limit,
            "expected": self.expected,
            "claim": self.case.claim,
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "count": self.count,
            "errorPercent": None if error is None else round(error, 3),
        }
        return {key: value for key, value in values.items() if value is not None}


def plan(series: Sequence[str], cases: Sequence[Case], repetitions: int, seed: int) -> list[Point]:
    """Every case of every series once a round, each round in another order.

    The order is drawn so that a host that grows busier meanwhile does not bend the curve; the same seed gives the same
    order.
    """
    # Not for secrets: the order only has to be another one each round, and the same one for the same seed.
    generator = random.Random(seed)  # noqa: S311
    points: list[Point] = []
    for repetition in range(1, repetitions + 1):
        one = [Point(name, case, repetition) for name in series for case in cases]
        generator.shuffle(one)
        points += one
    return points


def summarize(samples: Sequence[Sample], series: Sequence[str], cases: Sequence[Case]) -> list[Summary]:
    """One summary for each case that was measured, in the order of `series` and `cases`."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.point.series, sample.point.case.name), []).append(sample)
    return [_summary(found) for name in series for case in cases if (found := groups.get((name, case.name)))]


def _summary(samples: list[Sample]) -> Summary:
    values = [sample.value for sample in samples]
    told = [sample.expected for sample in samples if sample.expected is not None]
    point = samples[0].point
    numbers: dict[str, list[float]] = {}
    for sample in samples:
        for key, detail in sample.details.items():
            if isinstance(detail, int | float):
                numbers.setdefault(key, []).append(detail)
    return Summary(
        series=point.series,
        case=point.case,
        expected=statistics.median(told) if told else point.case.expected,
        median=statistics.median(values),
        low=min(values),
        high=max(values),
        count=len(values),
        also={key: statistics.median(found) for key, found in numbers.items()},
    )


def relative(samples: Sequence[Sample], baseline: str) -> list[Sample]:
    """Values as parts of the median of the case `baseline` in the same series; the measured one stays as a detail.

    Raises ZeroDivisionError when the baseline did nothing.
    """
    bases = {
        name: statistics.median(s.value for s in samples if s.point.series == name and s.point.case.name == baseline)
        for name in {s.point.series for s in samples}
    }
    return [
        replace(s, value=s.value / bases[s.point.series], details={**s.details, "measured": s.value}) for s in samples
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]
