"""The plan of a sweep and the statistics of what was measured. Pure: no daemon, no clock."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Point:
    """One measurement to be made: `repetition` counts from 1."""

    series: str
    limit: float
    repetition: int


@dataclass(frozen=True)
class Sample:
    """One measurement that was made. `details` say how it came about."""

    point: Point
    value: float
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.point), "value": self.value, "details": self.details}


@dataclass(frozen=True)
class Summary:
    """All repetitions of one limit: the median, and the band from the lowest to the highest."""

    series: str
    limit: float
    median: float
    low: float
    high: float
    count: int

    @property
    def error_percent(self) -> float:
        """How far the median is from the limit, in percent of the limit."""
        return 100.0 * (self.median - self.limit) / self.limit

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "errorPercent": round(self.error_percent, 3)}


def plan(series: Sequence[str], limits: Sequence[float], repetitions: int, seed: int) -> list[Point]:
    """Every limit of every series once a round, each round in another order.

    The order is drawn so that a host that grows busier meanwhile does not bend the curve; the same seed gives the same
    order.
    """
    # Not for secrets: the order only has to be another one each round, and the same one for the same seed.
    generator = random.Random(seed)  # noqa: S311
    points: list[Point] = []
    for repetition in range(1, repetitions + 1):
        one = [Point(name, limit, repetition) for name in series for limit in limits]
        generator.shuffle(one)
        points += one
    return points


def summarize(samples: Sequence[Sample]) -> list[Summary]:
    """One summary for each limit that was measured, ordered by series (as first seen in name order) and limit."""
    groups: dict[tuple[str, float], list[float]] = {}
    for sample in samples:
        groups.setdefault((sample.point.series, sample.point.limit), []).append(sample.value)
    return [
        Summary(series, limit, statistics.median(values), min(values), max(values), len(values))
        for (series, limit), values in sorted(groups.items())
    ]
