"""Plots of results: measured against limit with the error band, one column for each kind of kernel.

matplotlib is an extra (`pip install 'sandbox[plots]'`) and loaded only here.
"""

from __future__ import annotations

import importlib.util
import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandbox.errors import UnsupportedByHost
from sandbox.experiments.result import Result, cannot_write
from sandbox.experiments.sweep import Summary

COLOURS = ("#0b6fa4", "#d1495b", "#2e8b57", "#8a5fbf")
MARKERS = ("o", "s", "^", "D")
IDEAL, CLAIM = "#6b6b6b", "#c0392b"
DPI = 150
COLUMN_INCHES = 6.4
HASH_SALT = "sandbox"
"""The same data give the same file, byte for byte."""


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(result: Result, path: Path) -> None:
    """Writes a PNG. Raises UnsupportedByHost without matplotlib, SandboxError when it cannot be written."""
    figure = _figure([result], title=result.experiment.title, footer=result.footer())
    try:
        figure.savefig(path, format="png", metadata={"Title": result.experiment.title, "Software": "sandbox"})
    except OSError as error:
        raise cannot_write(path, error) from error


def svg(results: Sequence[Result], prefix: str) -> str:
    """An <svg> element for HTML: no declaration, no metadata, no name space; its ids begin with `prefix`."""
    figure = _figure(results)
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": HASH_SALT, "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)  # HTML knows the name spaces of svg and xlink
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", text)
    return re.sub(r"\n\s*", "\n", text)


def _figure(results: Sequence[Result], title: str = "", footer: str = "") -> Any:
    if not available():
        raise UnsupportedByHost("no plot: matplotlib is not installed", hint="pip install 'sandbox[plots]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    sweep = results[0].experiment.sweep is not None
    rows = len(results[0].cases) * len(results[0].experiment.series)
    height = 5.6 if sweep else 1.4 + 0.5 * rows
    figure: Any = Figure(figsize=(COLUMN_INCHES * max(len(results), 1.15), height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if sweep:
        axes = figure.subplots(2, len(results), sharex=True, sharey="row", height_ratios=(3, 1), squeeze=False)
        for column, result in enumerate(results):
            _sweep(axes[0][column], axes[1][column], result, first=column == 0)
        _error_range(axes[1][0], results)
    else:
        axes = figure.subplots(1, len(results), sharey=True, squeeze=False)
        for column, result in enumerate(results):
            _cases(axes[0][column], result)
    if title:
        figure.suptitle(_plain_text(title), fontsize=13, fontweight="bold")
    else:
        for column, result in enumerate(results):
            axes[0][column].set_title(f"cgroup {result.mode}", fontsize=11, fontweight="bold", pad=8 if sweep else 26)
    if footer:
        figure.supxlabel(_plain_text(footer), fontsize=7.5, color="#444444")
    return figure


def _plain_text(text: str) -> str:
    """matplotlib reads $…$ as mathematics."""
    return text.replace("$", r"\$")


def _by_series(result: Result) -> list[tuple[int, str, list[Summary]]]:
    summaries = result.summaries
    return [(n, s.name, [m for m in summaries if m.series == s.name]) for n, s in enumerate(result.experiment.series)]


def _bars(points: Sequence[Summary], scale: float) -> list[list[float]]:
    return [[(p.median - p.low) / scale for p in points], [(p.high - p.median) / scale for p in points]]


def _look(number: int) -> dict[str, Any]:
    colour = COLOURS[number % len(COLOURS)]
    return {"fmt": MARKERS[number % len(MARKERS)], "color": colour, "elinewidth": 1.2, "zorder": 3 + number}


def _sweep(upper: Any, lower: Any, result: Result, *, first: bool) -> None:
    experiment = result.experiment
    assert experiment.sweep is not None
    axis, scale = experiment.sweep.axis, experiment.measured.scale
    tolerance = experiment.tolerance_percent / 100
    for number, name, points in _by_series(result):
        limits = [p.case.limit / axis.scale for p in points if p.case.limit is not None]
        expected = [(p.expected or 0.0) / scale for p in points]
        if number == 0 and points:
            ideal = "what the kernel's weights promise" if experiment.expects_weights else "ideal: measured = limit"
            upper.plot(limits, expected, "--", color=IDEAL, linewidth=1.2, label=ideal, zorder=1)
            band = [e * (1 - tolerance) for e in expected], [e * (1 + tolerance) for e in expected]
            label = f"± {experiment.tolerance_percent:g} %"
            upper.fill_between(limits, *band, color=IDEAL, alpha=0.15, linewidth=0, label=label, zorder=0)
        upper.errorbar(
            limits,
            [p.median / scale for p in points],
            yerr=_bars(points, scale),
            markersize=5.5 + 4 * number,
            markerfacecolor="none" if number else None,  # the second stands around the first
            capsize=4,
            label=_plain_text(name + ": " if name else "") + "median, lowest to highest",
            **_look(number),
        )
        _errors(lower, result, number, points)
    lower.axhline(0, linestyle="--", color=IDEAL, linewidth=1.2, zorder=1)
    lower.axhspan(-100 * tolerance, 100 * tolerance, color=IDEAL, alpha=0.15, linewidth=0, zorder=0)
    _scales(upper, lower, result)
    if result.refused:
        _say(upper, f"refused: {result.refused}")
    else:
        upper.legend(loc="upper left", fontsize=8.5, frameon=False)
    if first:
        upper.set_ylabel(_plain_text(experiment.measured.label))
        lower.set_ylabel("error (%)")


def _errors(axes: Any, result: Result, number: int, points: Sequence[Summary]) -> None:
    """Several series side by side, so that none hides another. Only for errors: above, a point stands at its limit."""
    sweep = result.experiment.sweep
    assert sweep is not None
    shift = (number - (len(result.experiment.series) - 1) / 2) * 0.12
    places = [p.case.limit / sweep.axis.scale for p in points if p.case.limit is not None]
    smallest = min(places, default=0.0)
    known = [(x, p) for x, p in zip(places, points, strict=True) if p.expected]
    axes.errorbar(
        [x * 2**shift if sweep.axis.logarithmic else x + shift * smallest for x, _ in known],
        [p.error_percent for _, p in known],
        yerr=[
            [(p.error_percent or 0.0) - (p.error_of(p.low) or 0.0) for _, p in known],
            [(p.error_of(p.high) or 0.0) - (p.error_percent or 0.0) for _, p in known],
        ],
        markersize=4.5,
        capsize=3,
        **_look(number),
    )
    axes.grid(True, alpha=0.25)


def _error_range(axes: Any, results: Sequence[Result]) -> None:
    """The same for all columns, and around zero."""
    largest = results[0].experiment.tolerance_percent
    for result in results:
        for summary in result.summaries:
            largest = max([largest, *(abs(summary.error_of(v) or 0.0) for v in (summary.low, summary.high))])
    axes.set_ylim(-1.25 * largest, 1.25 * largest)


def _scales(upper: Any, lower: Any, result: Result) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    experiment = result.experiment
    assert experiment.sweep is not None
    axis = experiment.sweep.axis
    limits = [case.limit / axis.scale for case in result.cases if case.limit is not None]
    if axis.logarithmic and len(limits) > 1:
        lower.set_xscale("log", base=2)
    if experiment.measured.logarithmic and len(limits) > 1:
        upper.set_yscale("log", base=2)
        upper.yaxis.set_major_locator(FixedLocator(limits))
        upper.yaxis.set_minor_locator(NullLocator())
    else:
        upper.set_ylim(bottom=0)
    lower.xaxis.set_major_locator(FixedLocator(limits))
    lower.xaxis.set_minor_locator(NullLocator())
    for one in (upper.yaxis, lower.xaxis):
        one.set_major_formatter(FuncFormatter(_number))
    upper.grid(True, alpha=0.25)
    lower.set_xlabel(_plain_text(axis.label))


def _cases(axes: Any, result: Result) -> None:
    """A line for each case, the first on top."""
    experiment = result.experiment
    scale = experiment.measured.scale
    summaries = {(s.series, s.case.name): s for s in result.summaries}
    rows = [(s.name, case) for s in experiment.series for case in result.cases]
    heights = list(range(len(rows), 0, -1))
    axes.set_yticks(heights, [_plain_text(": ".join(filter(None, (name, case.name)))) for name, case in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    for height, (name, case) in zip(heights, rows, strict=True):
        found = summaries.get((name, case.name))
        if found is None:
            continue
        if found.expected is not None:
            axes.plot([found.expected / scale] * 2, [height - 0.36, height + 0.36], "--", color=IDEAL, linewidth=1.6)
        if case.claim is not None:
            axes.plot([case.claim / scale], [height], "x", color=CLAIM, markersize=9, markeredgewidth=2.2, zorder=5)
        axes.barh(height, found.median / scale, height=0.5, color=COLOURS[0], alpha=0.55, zorder=1)
        axes.errorbar(
            [found.median / scale], [height], xerr=_bars([found], scale), fmt="none", ecolor="#0a3d5c", capsize=4
        )
    _case_legend(axes, result)
    axes.set_xlim(left=0)
    axes.set_xlabel(_plain_text(experiment.measured.label))
    axes.grid(True, axis="x", alpha=0.25)
    if result.refused:
        _say(axes, f"refused: {result.refused}")


def _case_legend(axes: Any, result: Result) -> None:
    if result.refused:
        return
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=COLOURS[0], alpha=0.55, label="median, lowest to highest")]
    if any(s.expected is not None for s in result.summaries):
        handles.append(Line2D([], [], linestyle="--", color=IDEAL, label="expected"))
    if any(case.claim is not None for case in result.cases):
        handles.append(Line2D([], [], linestyle="", marker="x", color=CLAIM, markeredgewidth=2.2, label="claimed"))
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8.5, frameon=False)


def _say(axes: Any, text: str) -> None:
    words = "\n".join(textwrap.wrap(_plain_text(text), 52))
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=9, color="#444444")


def _number(value: float, _position: int | None = None) -> str:
    """8, 0.5, 1024: never 2³ or 1e3."""
    return f"{value:.6g}"
