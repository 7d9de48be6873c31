"""What an experiment has found: facts of the host, raw samples, summaries; as JSON (there and back) and as a table."""

from __future__ import annotations

import calendar
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sandbox
from sandbox.cli.style import table, width
from sandbox.errors import InvalidInput, NotFound, SandboxError
from sandbox.experiments.declaration import read
from sandbox.experiments.experiment import Experiment
from sandbox.experiments.sweep import Case, Point, Sample, Summary, summarize

KIND = "sandbox experiment result"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MODES = ("v1", "hybrid", "v2")


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
class Result:
    """What one run of one experiment on one host has found, or why the host `refused`."""

    experiment: Experiment
    """With the repetitions, the seed and the window of this run."""
    limits: tuple[str, ...]
    host: dict[str, Any]
    began: float
    load: tuple[float, float]
    """Load average at the beginning and at the end; the experiment's own load is in the latter."""
    facts: dict[str, Any] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    seconds: float = 0.0
    refused: str = ""

    @property
    def mode(self) -> str:
        return str(self.host["cgroups"])

    @property
    def cases(self) -> tuple[Case, ...]:
        return self.experiment.cases(self.limits)

    @property
    def summaries(self) -> list[Summary]:
        return summarize(self.samples, [series.name for series in self.experiment.series], self.cases)

    def to_json(self) -> dict[str, Any]:
        experiment = self.experiment
        return {
            "kind": KIND,
            "experiment": experiment.name,
            "title": experiment.title,
            "measured": experiment.measured.label,
            "began": time.strftime(TIME_FORMAT, time.gmtime(self.began)),
            "seconds": round(self.seconds, 3),
            "host": {**self.host, "loadAverage": list(self.load)},
            "settings": {
                "repetitions": experiment.repetitions,
                "seed": experiment.seed,
                "windowSeconds": experiment.measure.window_s,
                "limits": list(self.limits),
                **self.facts,
            },
            "refused": self.refused,
            "summary": [summary.to_json() for summary in self.summaries],
            "samples": [sample.to_json() for sample in self.samples],
            "declaration": experiment.declaration,
        }

    def footer(self) -> str:
        host, experiment = self.host, self.experiment
        words = [f"Linux {host['kernel']}", f"cgroup {host['cgroups']}", f"{host['cpus']} CPUs"]
        if not self.refused:
            words += [f"median and range of {experiment.repetitions}", f"seed {experiment.seed}"]
            if experiment.measure.window_s:
                words.append(f"{experiment.measure.window_s:g} s each")
            words.append(f"load {self.load[0]:g} before")
        if "disk" in self.facts:
            words.append(str(self.facts["disk"]))
        return " · ".join(words)

    def header(self) -> list[str]:
        experiment = self.experiment
        first = "limit" if experiment.sweep else experiment.cases_label
        expected = ["expected"] if self._tells_expected else []
        claim = ["claim"] if any(case.claim is not None for case in self.cases) else []
        series = ["series"] if len(experiment.series) > 1 else []
        return [*series, first, *claim, *expected, "median", "error", "band", *(title for _, title in experiment.also)]

    @property
    def _tells_expected(self) -> bool:
        return self.experiment.sweep is None or self.experiment.expects_weights

    def rows(self) -> list[list[str]]:
        """A line for each case; its cells are those of `header`."""
        experiment = self.experiment
        text, several = experiment.measured.text, len(experiment.series) > 1
        claims = any(case.claim is not None for case in self.cases)
        rows = []
        for summary in self.summaries:
            case, error = summary.case, summary.error_percent
            limit = experiment.sweep.axis.text(case.limit) if experiment.sweep and case.limit is not None else case.name
            row = [summary.series] if several else []
            row.append(limit)
            row += [_or_dash(case.claim, text)] if claims else []
            row += [_or_dash(summary.expected, text)] if self._tells_expected else []
            row += [text(summary.median), _or_dash(error, lambda e: f"{e:+.1f}%")]
            row.append(f"{text(summary.low)} - {text(summary.high)}")
            rows.append(row + [_or_dash(summary.also.get(key), lambda n: f"{n:.6g}") for key, _ in experiment.also])
        return rows

    def units(self) -> str:
        experiment = self.experiment
        first = f"limit: {experiment.sweep.axis.label}; " if experiment.sweep else ""
        return f"{first}median: {experiment.measured.label}"

    def lines(self) -> list[str]:
        """The table, and under it what it was measured on."""
        if self.refused:
            return [self.experiment.title, f"refused: {self.refused}", "", self.footer()]
        rows = table([title.upper() for title in self.header()], self.rows(), columns=width())
        return [self.experiment.title, self.units(), "", *rows, "", self.footer(), *self.notes()]

    def notes(self) -> list[str]:
        """What makes the numbers worth less than they look."""
        cpus = self.host["cpus"]
        if self.experiment.measure.counter == "cpu" and self.load[0] > 0.75 * cpus:
            return [f"note: the host was busy (load {self.load[0]:g} on {cpus} CPUs): a limit gives what others leave"]
        return []


def _or_dash(value: float | None, text: Callable[[float], str]) -> str:
    return "-" if value is None else text(value)


def from_json(file: str, raw: Mapping[str, Any]) -> Result:
    """What `to_json` wrote. Raises InvalidInput."""
    try:
        declared, settings = read(f"{file} (declaration)", str(raw["declaration"])), raw["settings"]
        window_s = settings.get("windowSeconds")
        experiment = replace(
            declared,
            repetitions=int(settings["repetitions"]),
            seed=int(settings["seed"]),
            measure=replace(declared.measure, window_s=window_s),
        )
        limits = tuple(map(str, settings["limits"]))
        cases = {case.name: case for case in experiment.cases(limits)}
        if raw["host"]["cgroups"] not in MODES:
            raise ValueError(f"cgroups {raw['host']['cgroups']!r}")
        known = {key: settings[key] for key in ("disk", "device") if key in settings}
        return Result(
            experiment=experiment,
            limits=limits,
            host=dict(raw["host"]),
            began=float(calendar.timegm(time.strptime(str(raw["began"]), TIME_FORMAT))),
            load=tuple(raw["host"]["loadAverage"]),
            facts=known,
            samples=tuple(_sample(one, cases) for one in raw["samples"]),
            seconds=float(raw["seconds"]),
            refused=str(raw["refused"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(
            f"{file!r} is no result of an experiment: {error!r}", operation="read a result", subject=file
        ) from error


def _sample(raw: Mapping[str, Any], cases: Mapping[str, Case]) -> Sample:
    case = cases[raw["case"]]
    expected = raw.get("expected")
    told = None if expected is None or expected == case.expected else float(expected)
    point = Point(str(raw["series"]), case, int(raw["repetition"]))
    return Sample(point, float(raw["value"]), dict(raw["details"]), told)


def results_in(directory: Path) -> list[Result]:
    """The results in a directory: by experiment, then v1, hybrid, v2. Other JSON files are passed over.

    Raises NotFound when there is none, InvalidInput for a broken one.
    """
    found = []
    try:
        for path in sorted(directory.glob("*.json")):
            raw = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(raw, dict) and raw.get("kind") == KIND:
                found.append(from_json(path.name, raw))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {str(path)!r}: {error}", operation="read results") from error
    if not found:
        raise NotFound(
            f"there is no result of an experiment in {str(directory)!r}",
            operation="read results",
            hint=f"sandbox experiment run --all -d {directory}",
        )
    return sorted(found, key=lambda result: (result.experiment.name, MODES.index(result.mode)))


def write_json(result: Result, path: Path) -> None:
    """Whole or not at all: a reader never sees half of it."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_text(json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
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


def path_of(result: Result, directory: Path) -> Path:
    """Where its raw data go: the mode of the cgroups is in the name, so that those of two kernels lie side by side."""
    return directory / f"{result.experiment.name}-{result.mode}.json"
