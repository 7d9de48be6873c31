"""Results of experiments that nobody ran, for the tests of what is made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sandbox.experiments.declaration import find
from sandbox.experiments.result import Result
from sandbox.experiments.sweep import Sample, plan

KERNEL = {"one": {"cpu.shares": "512"}}


def made_up(name: str, mode: str = "v2", *, load: float = 0.1, refused: str = "") -> Result:
    """Two repetitions of two cases: 8 % under what is expected, and exactly that."""
    experiment = replace(find(name), repetitions=2)
    limits = experiment.sweep.values[:2] if experiment.sweep else ()
    cases = experiment.cases(limits)[:2]
    points = plan([series.name for series in experiment.series], cases, 2, seed=1)
    samples = []
    for point in points:
        expected = 0.5 if point.case.expected is None else point.case.expected
        value = expected * (0.92 if point.repetition == 1 else 1.0)
        samples.append(Sample(point, value, {"n": point.repetition, "kernel": KERNEL}, expected))
    facts: dict[str, Any] = {"disk": "a file on sda (8:0)", "device": "8:0"} if experiment.disk_bytes else {}
    return Result(
        experiment=experiment,
        limits=limits,
        host={
            "kernel": "6.1.0-test",
            "cgroups": mode,
            "cpus": 2,
            "memoryBytes": 1 << 31,
            "sandbox": "0.1.0",
        },
        began=1_800_000_000.0,
        load=(load, 1.0),
        facts=facts,
        samples=() if refused else tuple(samples),
        seconds=1.0,
        refused=refused,
    )
