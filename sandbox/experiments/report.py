"""What an experiment has found: facts of the host, raw samples, summaries; as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sandbox
from sandbox.cli.style import table, width
from sandbox.errors import SandboxError
from sandbox.experiments.experiment import Experiment, Settings
from sandbox.experiments.sweep import Sample, Summary, summarize


def host_facts(cgroups: str) -> dict[str, Any]:
    """What the numbers depend on. `cgroups` is the daemon's word: v1, v2 or hybrid."""
    uname = os.uname()
    return {
        "kernel": uname.release,
        "machine": uname.machine,
        "cgroups": cgroups,
        "cpus": len(os.sched_getaffinity(0)),
        "memoryBytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
        "sandbox": sandbox.__version__,
    }


def load_average() -> float:
    """Of the last minute: what else the host was doing."""
    return round(os.getloadavg()[0], 2)


@dataclass(frozen=True)
class Report:
    experiment: Experiment
    settings: Settings
    host: dict[str, Any]
    facts: dict[str, Any]
    samples: tuple[Sample, ...]
    began: float
    seconds: float
    load: tuple[float, float]
    """Load average at the beginning and at the end; the experiment's own load is in the latter."""

    @property
    def summaries(self) -> list[Summary]:
        return summarize(self.samples)

    def to_json(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment.name,
            "title": self.experiment.title,
            "method": self.experiment.method,
            "unit": {"limit": self.experiment.limit_label, "measured": self.experiment.measured_label},
            "scale": self.experiment.scale,
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.began)),
            "seconds": round(self.seconds, 3),
            "host": {**self.host, "loadAverage": list(self.load)},
            "settings": {
                "repetitions": self.settings.repetitions,
                "seed": self.settings.seed,
                "limits": list(self.settings.limits),
                **self.facts,
            },
            "summary": [summary.to_json() for summary in self.summaries],
            "samples": [sample.to_json() for sample in self.samples],
        }

    def footer(self) -> str:
        host = self.host
        words = [
            f"Linux {host['kernel']}",
            f"cgroup {host['cgroups']}",
            f"{host['cpus']} CPUs",
            f"median and range of {self.settings.repetitions}",
            f"seed {self.settings.seed}",
        ]
        words.append(f"load {self.load[0]:g} before")
        if "disk" in self.facts:
            words.append(str(self.facts["disk"]))
        return " · ".join(words)

    def lines(self) -> list[str]:
        """The table, a line a limit, and under it what it was measured on."""
        experiment = self.experiment
        header = ["LIMIT", "MEDIAN", "ERROR", "BAND"]
        several = len(experiment.series) > 1
        rows = []
        for summary in self.summaries:
            row = [
                experiment.text(summary.limit),
                experiment.text(summary.median),
                f"{summary.error_percent:+.1f}%",
                f"{experiment.text(summary.low)} - {experiment.text(summary.high)}",
            ]
            rows.append([summary.series, *row] if several else row)
        if several:
            header.insert(0, "DIRECTION")
        units = f"limit: {experiment.limit_label}; median: {experiment.measured_label}"
        lines = [experiment.title, units, "", *table(header, rows, columns=width()), "", self.footer()]
        return [*lines, *self.notes()]

    def notes(self) -> list[str]:
        """What makes the numbers worth less than they look."""
        cpus = self.host["cpus"]
        if self.experiment.name == "cpu" and self.load[0] > 0.75 * cpus:
            return [f"note: the host was busy (load {self.load[0]:g} on {cpus} CPUs): a limit gives what others leave"]
        return []


def write_json(report: Report, path: Path) -> None:
    """Whole or not at all: a reader never sees half of it."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> SandboxError:
    return SandboxError(
        f"cannot write {str(path)!r}",
        operation="write the report",
        subject=str(path),
        errno=error.errno or 0,
        hint="choose another --directory",
    )


def prepare_directory(path: Path) -> None:
    """Made before anything is measured: a sweep of minutes must not end at a directory that cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    if not os.access(path, os.W_OK):
        raise SandboxError(f"cannot write into {str(path)!r}", subject=str(path), hint="choose another --directory")


def path_of(report: Report, directory: Path) -> Path:
    """Where its raw data go: the mode of the cgroups is in the name, so that those of two kernels lie side by side."""
    return directory / f"{report.experiment.name}-{report.host['cgroups']}.json"
