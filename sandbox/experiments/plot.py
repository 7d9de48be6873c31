"""The plot of a report: measured against limit, and below it how far off, with the band that would be good enough.

matplotlib is an extra (`pip install 'sandbox[plots]'`) and loaded only here.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from sandbox.errors import UnsupportedByHost
from sandbox.experiments.report import Report, cannot_write
from sandbox.experiments.sweep import Summary

COLOURS = ("#0b6fa4", "#d1495b")
IDEAL = "#6b6b6b"
MARKERS = ("o", "s")
INCHES, DPI = (7.2, 6.4), 150


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(report: Report, path: Path) -> None:
    """Writes a PNG. Raises UnsupportedByHost without matplotlib, SandboxError when it cannot be written."""
    if not available():
        raise UnsupportedByHost("no plot: matplotlib is not installed", hint="pip install 'sandbox[plots]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure: Any = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.suptitle(report.experiment.title, fontsize=13, fontweight="bold")
    _measured(upper, report)
    _errors(lower, report)
    _limits_axis(upper, lower, report)
    figure.supxlabel(report.footer(), fontsize=7.5, color="#444444")
    try:
        figure.savefig(path, format="png", metadata={"Title": report.experiment.title, "Software": "sandbox"})
    except OSError as error:
        raise cannot_write(path, error) from error


def _by_series(report: Report) -> list[tuple[int, str, list[Summary]]]:
    summaries = report.summaries
    names = report.experiment.series
    return [(n, name, [s for s in summaries if s.series == name]) for n, name in enumerate(names)]


def _dodged(report: Report, number: int, points: list[Summary]) -> list[float]:
    """Where the points of one series stand: several series side by side, so that none hides another.

    Only for errors: against the ideal line a point must stand where its limit is.
    """
    limits = [point.limit / report.experiment.scale for point in points]
    shift = (number - (len(report.experiment.series) - 1) / 2) * 0.12
    if report.experiment.logarithmic:
        return [limit * 2**shift for limit in limits]
    return [limit + shift * limits[0] for limit in limits]


def _measured(axes: Any, report: Report) -> None:
    experiment = report.experiment
    scale = experiment.scale
    limits = [limit / scale for limit in report.settings.limits]
    ends = [limits[0], limits[-1]]
    tolerance = experiment.tolerance_percent / 100
    axes.plot(ends, ends, "--", color=IDEAL, linewidth=1.2, label="ideal: measured = limit", zorder=1)
    axes.fill_between(
        ends, [e * (1 - tolerance) for e in ends], [e * (1 + tolerance) for e in ends], color=IDEAL, alpha=0.15,
        linewidth=0, label=f"± {experiment.tolerance_percent:g} %", zorder=0,
    )  # fmt: skip
    for number, name, points in _by_series(report):
        axes.errorbar(
            [p.limit / scale for p in points],
            [p.median / scale for p in points],
            yerr=[[(p.median - p.low) / scale for p in points], [(p.high - p.median) / scale for p in points]],
            fmt=MARKERS[number],
            color=COLOURS[number],
            markersize=5.5 + 4 * number,
            markerfacecolor="none" if number else None,  # the second stands around the first
            capsize=4,
            elinewidth=1.2,
            label=(name + ": " if name else "") + "median, lowest to highest",
            zorder=3 + number,
        )
    if experiment.logarithmic and len(limits) > 1:
        axes.set_yscale("log", base=2)
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_plain)
    axes.set_ylabel(experiment.measured_label)
    axes.grid(True, alpha=0.25)
    axes.legend(loc="upper left", fontsize=8.5, frameon=False)


def _errors(axes: Any, report: Report) -> None:
    experiment = report.experiment
    tolerance = experiment.tolerance_percent
    axes.axhline(0, linestyle="--", color=IDEAL, linewidth=1.2, zorder=1)
    axes.axhspan(-tolerance, tolerance, color=IDEAL, alpha=0.15, linewidth=0, zorder=0)
    largest = tolerance
    for number, _, points in _by_series(report):
        low = [100 * (p.low - p.limit) / p.limit for p in points]
        high = [100 * (p.high - p.limit) / p.limit for p in points]
        middle = [p.error_percent for p in points]
        largest = max([largest, *map(abs, low), *map(abs, high)])
        axes.errorbar(
            _dodged(report, number, points),
            middle,
            yerr=[
                [m - edge for m, edge in zip(middle, low, strict=True)],
                [edge - m for m, edge in zip(middle, high, strict=True)],
            ],
            fmt=MARKERS[number],
            color=COLOURS[number],
            markersize=4.5,
            capsize=3,
            elinewidth=1.0,
            zorder=3 + number,
        )
    axes.set_ylim(-1.25 * largest, 1.25 * largest)
    axes.set_ylabel("error (% of limit)")
    axes.grid(True, alpha=0.25)


def _limits_axis(upper: Any, lower: Any, report: Report) -> None:
    from matplotlib.ticker import NullFormatter

    experiment = report.experiment
    limits = [limit / experiment.scale for limit in report.settings.limits]
    if experiment.logarithmic and len(limits) > 1:
        lower.set_xscale("log", base=2)
        upper.set_yticks(limits)
        upper.yaxis.set_minor_formatter(NullFormatter())
        lower.xaxis.set_minor_formatter(NullFormatter())
    lower.set_xticks(limits)
    lower.xaxis.set_major_formatter(_plain)
    lower.set_xlabel(experiment.limit_label)


def _plain(value: float, _position: int | None = None) -> str:
    """8, 0.5, 1024: never 2³ or 1e3."""
    return f"{value:.6g}"
