"""`sandbox experiment`: sweeps of limits against what the kernel then gives."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_output
from sandbox.cli.output import emit, emit_object
from sandbox.cli.progress import StatusLine
from sandbox.cli.start import client_with_daemon

DEFAULT_DIRECTORY = "sandbox-experiments"


@click.group()
def experiment() -> None:
    """Set a limit, measure what the kernel gives, for a sweep of limits.

    Each measurement is a pod of its own, removed at once. Prints a table; writes the raw data as JSON and, with
    matplotlib, a plot as PNG. The order of the measurements is drawn from a seed.

    \b
    Examples:
      sandbox experiment cpu
      sandbox experiment memory --limits 16Mi,64Mi --repetitions 5
      sandbox experiment io --loop -d /tmp/results
      sandbox experiment pids -o json
    """


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option(
                "--repetitions", type=click.IntRange(1, 1000), default=3, show_default=True, help="Pods a limit."
            ),
            click.option("--limits", metavar="A,B,...", help="Limits to measure, instead of the usual sweep."),
            click.option("--seed", type=int, default=1, show_default=True, help="Of the order of measurements."),
            click.option(
                "-d",
                "--directory",
                type=click.Path(file_okay=False, path_type=Path),
                default=DEFAULT_DIRECTORY,
                show_default=True,
                help="Where raw data and plot are written.",
            ),
        )
    ):
        function = option(function)
    return with_output("json")(function)


_window = click.option(
    "--window",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each rate is measured.",
)


@experiment.command()
@_options
@_window
@pass_context
def cpu(context: CliContext, /, directory: Path, window: float, **options: Any) -> None:
    """limits.cpu against the share of a CPU that a busy loop gets."""
    _run(context, "cpu", directory, window_s=window, **options)


@experiment.command()
@_options
@pass_context
def memory(context: CliContext, /, directory: Path, **options: Any) -> None:
    """limits.memory against the peak of a process that wants twice as much, and is killed."""
    _run(context, "memory", directory, **options)


@experiment.command()
@_options
@_window
@click.option("--loop", is_flag=True, help="On a loop device, also where the disk below the daemon's root can be used.")
@pass_context
def io(context: CliContext, /, directory: Path, window: float, **options: Any) -> None:
    """Bytes a second of the annotation sandbox/io against those of direct reads and writes."""
    _run(context, "io", directory, window_s=window, **options)


@experiment.command()
@_options
@pass_context
def pids(context: CliContext, /, directory: Path, **options: Any) -> None:
    """The annotation sandbox/pids against the processes that a shell can fork."""
    _run(context, "pids", directory, **options)


def _run(context: CliContext, name: str, directory: Path, *, limits: str | None, **settings: Any) -> None:
    from sandbox.experiments import plot, report
    from sandbox.experiments.experiment import Settings
    from sandbox.experiments.run import EXPERIMENTS, run

    chosen = EXPERIMENTS[name]
    values = chosen.parse_limits(limits) if limits is not None else ()
    report.prepare_directory(directory)
    client = client_with_daemon(context)
    with StatusLine(sys.stderr) as line:
        found = run(chosen, Settings(limits=values, **settings), client, line.show)
    raw = report.path_of(found, directory)
    report.write_json(found, raw)
    written = [raw]
    if plot.available():
        line.show("drawing")
        plot.draw(found, raw.with_suffix(".png"))
        line.clear()
        written.append(raw.with_suffix(".png"))
    else:
        click.echo("no plot: matplotlib is not installed; pip install 'sandbox[plots]'", err=True)
    if context.output:
        emit_object(found.to_json(), context.output)
    else:
        emit([*found.lines(), "written: " + ", ".join(map(str, written))])
