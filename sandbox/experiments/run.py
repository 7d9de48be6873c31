"""Runs one experiment from its plan to its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from sandbox.cli.client import Client
from sandbox.experiments.cpu import CPU
from sandbox.experiments.disk_io import IO
from sandbox.experiments.experiment import Experiment, Settings
from sandbox.experiments.interrupts import interruptible
from sandbox.experiments.memory import MEMORY
from sandbox.experiments.pids import PIDS
from sandbox.experiments.pods import PodFactory
from sandbox.experiments.report import Report, host_facts, load_average
from sandbox.experiments.sweep import Point, Sample, plan

EXPERIMENTS: dict[str, Experiment] = {e.name: e for e in (CPU, MEMORY, IO, PIDS)}

Progress = Callable[[str], None]


def run(experiment: Experiment, settings: Settings, client: Client, progress: Progress) -> Report:
    """Measures every point of the plan, one pod each. Everything it made is gone when it returns or raises.

    Raises KeyboardInterrupt for SIGTERM too; UnsupportedByHost where the host has no such limit.
    """
    settings = replace(settings, limits=settings.limits or experiment.limits)
    pods = PodFactory(client, experiment.name)
    host = host_facts(str(pods.daemon()["cgroups"]))
    points = plan(experiment.series, settings.limits, settings.repetitions, settings.seed)
    began, start, load = time.time(), time.monotonic(), load_average()
    samples: list[Sample] = []
    with interruptible():
        progress(f"{experiment.name}: preparing")
        with experiment.open(pods, settings) as bench:
            for number, point in enumerate(points):
                progress(_sentence(experiment, point, number, len(points), time.monotonic() - start))
                samples.append(bench.measure(point))
            facts = dict(bench.facts)
    return Report(
        experiment=experiment,
        settings=settings,
        host=host,
        facts=facts,
        samples=tuple(samples),
        began=began,
        seconds=time.monotonic() - start,
        load=(load, load_average()),
    )


def _sentence(experiment: Experiment, point: Point, done: int, total: int, seconds: float) -> str:
    left = f", {seconds / done * (total - done):.0f} s left" if done else ""
    what = " ".join(word for word in (experiment.name, point.series, experiment.text(point.limit)) if word)
    return f"{what}: measurement {done + 1} of {total}{left}"
