"""Reads a declaration (docs/experiments.md) into an Experiment. Wrong ones are refused before anything is made."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from sandbox.errors import InvalidInput, ManifestError, NotFound
from sandbox.experiments import template
from sandbox.experiments.experiment import Axis, Experiment, Measure, Series, Sweep
from sandbox.experiments.fields import Fields
from sandbox.experiments.readings import COUNTERS, GAUGES, KINDS
from sandbox.experiments.sweep import Case
from sandbox.manifest.kinds import nearest
from sandbox.manifest.parse import parse

DIRECTORY = Path(__file__).parent / "declared"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
MAX_BYTES = 256 << 10
DISK_VARIABLES = ("device", "disk", "diskBytes")
SWEEP_VARIABLES = ("limit", "number", "block")


def declared_names() -> list[str]:
    """The experiments that come with the package."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml"))


def find(reference: str) -> Experiment:
    """By name, or by the path of a file (which has a `/` or ends in .yaml). Raises NotFound, ManifestError."""
    names = declared_names()
    if reference in names:
        return load(DIRECTORY / f"{reference}.yaml")
    if "/" in reference or reference.endswith((".yaml", ".yml")):
        return load(Path(reference))
    guess = nearest(reference, names)
    raise NotFound(
        f"there is no experiment {reference!r}" + (f", did you mean {guess!r}?" if guess else ""),
        operation="find an experiment",
        hint="sandbox experiment list; a file needs a / or .yaml in its name",
    )


def load(path: Path) -> Experiment:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            f"cannot read {str(path)!r}", operation="read a declaration", subject=str(path), errno=error.errno or 0
        ) from error
    if len(content) > MAX_BYTES:
        raise ManifestError(f"the file is longer than {MAX_BYTES} bytes", file=str(path))
    return read(str(path), content.decode("utf-8", "replace"))


def read(file: str, text: str) -> Experiment:
    """Raises ManifestError with line and column."""
    documents = parse(file, text.encode())
    if len(documents) != 1:
        raise ManifestError(f"expected one declaration, got {len(documents)} documents", file=file)
    top = Fields(file, documents[0])
    name = top.text("name")
    if not NAME.fullmatch(name):
        raise top.error("expected at most 40 of a-z, 0-9 and -", "name")
    sweep, cases = _sweep(top.mapping("limit")), tuple(map(_case, top.mappings("cases")))
    if (sweep is None) == (not cases):
        raise top.error("expected either limit (a sweep) or cases")
    measured = top.mapping("measured")
    measure = top.mapping("measure")
    if measured is None or measure is None:
        raise top.error("measured and measure are both needed")
    pods = tuple(_pod(fields) for fields in top.mappings("pods"))
    experiment = Experiment(
        name=name,
        title=top.text("title"),
        method=top.text("method"),
        lesson=top.text("lesson", ""),
        sweep=sweep,
        declared_cases=cases,
        cases_label=top.text("casesLabel", "case"),
        series=tuple(map(_series, top.mappings("series"))) or (Series(),),
        measured=_axis(measured),
        measure=_measure(measure),
        pods=pods,
        disk_bytes=int(top.quantity("disk", Decimal(0)) or 0),
        repetitions=top.integer("repetitions", 3, least=1, most=1000),
        seed=top.integer("seed", 1),
        tolerance_percent=top.number("tolerance", 5.0, most=100),
        expects_weights=top.choice("expect", ("limit", "weights"), "limit") == "weights",
        baseline=top.text("baseline", ""),
        also=top.pairs("also"),
        files=top.texts("files", ()),
        declaration=text,
    )
    top.done()
    measured.done()
    _check(experiment, top, measure)
    return experiment


def _axis(fields: Fields) -> Axis:
    return Axis(
        label=fields.text("label"),
        scale=fields.number("scale", 1.0, least=1e-12),
        digits=fields.integer("digits", 0, most=6),
        logarithmic=fields.flag("logarithmic"),
    )


def _sweep(fields: Fields | None) -> Sweep | None:
    if fields is None:
        return None
    sweep = Sweep(
        axis=_axis(fields),
        values=fields.texts("values"),
        lowest=fields.quantity("least", Decimal(0)) or Decimal(0),
        highest=fields.quantity("most", Decimal(1 << 62)) or Decimal(0),
        whole=fields.flag("whole"),
    )
    fields.done()
    try:
        numbers = [sweep.number(value) for value in sweep.values]
    except InvalidInput as error:
        raise fields.error(str(error), "values") from error
    if not numbers or numbers != sorted(set(numbers)):
        raise fields.error("expected at least one limit, each once, the smallest first", "values")
    return sweep


def _case(fields: Fields) -> Case:
    def number(key: str) -> float | None:
        value = fields.quantity(key, None)
        return None if value is None else float(value)

    case = Case(
        name=fields.text("name"),
        expected=number("expect"),
        claim=number("claim"),
        variables=fields.pairs("set"),
        pods=fields.texts("pods", ()),
    )
    fields.done()
    return case


def _series(fields: Fields) -> Series:
    series = Series(fields.text("name"), fields.pairs("set"))
    fields.done()
    return series


def _measure(fields: Fields) -> Measure:
    measure = Measure(
        kind=fields.choice("kind", KINDS),
        of=fields.text("of"),
        counter=fields.text("counter", ""),
        against=fields.texts("against", ()),
        keeper=fields.text("keeper", ""),
        plus=fields.integer("plus", 0),
        window_s=fields.number("window", 0.0, least=0.1, most=3600) or None,
        warm_up_s=fields.number("warmUp", 0.25, most=3600),
    )
    fields.done()
    if KINDS[measure.kind].has_window and measure.window_s is None:
        raise fields.error(f"window is missing: {measure.kind} is measured for some seconds")
    return measure


def _pod(fields: Fields) -> dict[str, Any]:
    pod = fields.plain()
    metadata, spec = pod.get("metadata"), pod.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    if (
        not isinstance(metadata, dict)
        or not isinstance(metadata.get("name"), str)
        or not isinstance(containers, list)
        or not all(isinstance(c, dict) and isinstance(c.get("name"), str) for c in containers)
    ):
        raise fields.error("expected a Pod with metadata.name and spec.containers, each with a name")
    return pod


def _check(experiment: Experiment, top: Fields, measure: Fields) -> None:
    """What one field says of another."""
    _check_twice([pod["metadata"]["name"] for pod in experiment.pods], "pods", top)
    _check_twice([case.name for case in experiment.cases()], "cases", top)
    _check_twice([series.name for series in experiment.series], "series", top)
    if experiment.baseline and experiment.baseline not in [case.name for case in experiment.cases()]:
        raise top.error(f"there is no case {experiment.baseline!r}", "baseline")
    pods = [pod["metadata"]["name"] for pod in experiment.pods]
    for case in experiment.cases():
        for name in case.pods:
            if name not in pods:
                raise top.error(f"case {case.name!r} names no pod of this file: {name!r}", "cases")
        containers = [c["name"] for pod in experiment.pods_of(case) for c in pod["spec"]["containers"]]
        _check_twice(containers, "pods", top)
        for key in ("of", "keeper"):
            name = getattr(experiment.measure, key)
            if name and name not in containers:
                listed = ", ".join(containers) or "none"
                raise measure.error(f"no pod of case {case.name!r} has a container {name!r}, there is {listed}", key)
        for series in experiment.series:
            _check_variables(experiment, case, series, top)
            _check_counter(experiment, dict(series.variables + case.variables), measure)


def _check_twice(names: list[str], what: str, top: Fields) -> None:
    for name in names:
        if names.count(name) > 1:
            raise top.error(f"{name!r} is there twice", what)


def _check_variables(experiment: Experiment, case: Case, series: Series, top: Fields) -> None:
    known = {name for name, _ in case.variables + series.variables}
    known.update(SWEEP_VARIABLES if experiment.sweep else (), DISK_VARIABLES if experiment.disk_bytes else ())
    for name in template.names([experiment.pods_of(case), experiment.measure.counter]):
        if name not in known:
            raise top.error(
                f"nothing says what {{{{{name}}}}} is in case {case.name!r}",
                hint=f"known are {', '.join(sorted(known)) or 'none'}; `set` makes others",
            )


def _check_counter(experiment: Experiment, variables: dict[str, str], measure: Fields) -> None:
    known = {"rate": list(COUNTERS), "level": list(GAUGES)}.get(experiment.measure.kind, [])
    try:
        counter = template.fill(experiment.measure.counter, variables)
    except KeyError as error:
        raise measure.error(f"{error.args[0]!r} is no variable that a counter can have", "counter") from error
    if known and counter not in known:
        raise measure.error(
            f"{counter!r} is no counter of {experiment.measure.kind}, known are {', '.join(known)}", "counter"
        )
