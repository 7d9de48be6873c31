"""The report: one HTML file with every result, its plot, its raw figures and its declaration; it loads nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from sandbox.experiments import plot
from sandbox.experiments.result import TIME_FORMAT, Result, cannot_write


def write_page(results: Sequence[Result], path: Path) -> None:
    """`results` as `results_in` orders them. Raises SandboxError when it cannot be written."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_text(page(results), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def page(results: Sequence[Result]) -> str:
    groups = [(name, list(found)) for name, found in groupby(results, key=lambda result: result.experiment.name)]
    css = (files("sandbox.experiments") / "page.css").read_text(encoding="utf-8")
    links = "".join(
        f'<li><a href="#{escape(name)}">{escape(name)}</a> <span>{escape(found[0].experiment.title)}</span></li>'
        for name, found in groups
    )
    sections = "\n".join(_section(name, found) for name, found in groups)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What limits do: measured</title><style>
{css}</style></head><body>
<h1>What limits do: measured</h1>
<p>Each limit was written into a Pod, and what the kernel then gave was measured. Points are medians, whiskers go from
the lowest to the highest repetition, the grey band is what counts as good. Every measurement had fresh pods; the order
was drawn from the seed, so that a host that grows busier does not bend a curve.</p>
{_hosts(results)}
<ol class="contents">{links}</ol>
{sections}
<h2>How to make it again</h2>
<pre>{escape(_again(results))}</pre>
</body></html>
"""


def _hosts(results: Sequence[Result]) -> str:
    """A line for each kind of host; the same host may have run one experiment after the other."""
    rows = dict.fromkeys(
        (r.mode, str(r.host["kernel"]), str(r.host["cpus"]), f"{r.host['memoryBytes'] / (1 << 30):.1f}",
         str(r.host["sandbox"]), time.strftime(TIME_FORMAT[:8], time.gmtime(r.began)))
        for r in results
    )  # fmt: skip
    return _table(("cgroup", "Linux", "CPUs", "memory (GiB)", "sandbox", "day"), list(rows))


def _section(name: str, results: Sequence[Result]) -> str:
    experiment = results[0].experiment
    lesson = f'<p class="lesson">{escape(experiment.lesson)}</p>' if experiment.lesson else ""
    return f"""<section id="{escape(name)}"><h2>{escape(experiment.title)}</h2>
{lesson}<p class="method">{escape(experiment.method)}</p>
{_figure(name, results)}
{"".join(map(_result, results))}
<details><summary>the declaration: <code>sandbox experiment run {escape(name)}</code></summary>
<pre>{escape(experiment.declaration)}</pre></details></section>"""


def _figure(name: str, results: Sequence[Result]) -> str:
    if all(result.refused for result in results):
        return ""
    if not plot.available():
        return "<p>(no plot: matplotlib is not installed)</p>"
    width = ' class="single"' if len(results) == 1 else ""
    return f"<figure{width}>{plot.svg(results, f'p-{name}')}</figure>"


def _result(result: Result) -> str:
    head = f"<h3>cgroup {escape(result.mode)}</h3>"
    foot = f'<p class="foot">{escape(result.footer())}</p>'
    if result.refused:
        return f'{head}<p class="refused">refused: {escape(result.refused)}</p>{foot}'
    notes = "".join(f'<p class="foot">{escape(note)}</p>' for note in result.notes())
    units = f"<p>{escape(result.units())}</p>"
    return head + units + _table(result.header(), result.rows()) + _kernel(result) + foot + notes


def _kernel(result: Result) -> str:
    """What the kernel was told, once for each case."""
    rows: dict[tuple[str, str, str], str] = {}
    for sample in result.samples:
        for container, told in (sample.details.get("kernel") or {}).items():
            for file, text in told.items():
                case = " ".join(filter(None, (sample.point.series, sample.point.case.name)))
                rows.setdefault((case, container, file), text)
    if not rows:
        return ""
    order = [case.name for case in result.cases]
    lines = sorted(((*key, text) for key, text in rows.items()), key=lambda row: _place(row[0], order))
    table = _table(("case", "container", "file", "says"), lines)
    return f"<details><summary>what the kernel was told</summary>{table}</details>"


def _place(case: str, order: Sequence[str]) -> int:
    return next((n for n, name in enumerate(order) if case.endswith(name)), len(order))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell[:1].upper() + cell[1:])}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _again(results: Sequence[Result]) -> str:
    lines = []
    for mode in dict.fromkeys(result.mode for result in results):
        lines.append(f"# on a host with cgroup {mode}")
        for result in (r for r in results if r.mode == mode):
            experiment = result.experiment
            options = f"--repetitions {experiment.repetitions} --seed {experiment.seed}"
            if experiment.measure.window_s:
                options += f" --window {experiment.measure.window_s:g}"
            if experiment.sweep and result.limits != experiment.sweep.values:
                options += f" --limits {','.join(result.limits)}"
            lines.append(f"sandbox experiment run {experiment.name} {options} -d DIR")
    return "\n".join([*lines, "", "# all results in DIR on one page", "sandbox experiment report DIR"])
