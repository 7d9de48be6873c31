"""`sandbox experiment`: limits against what the kernel then gives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_output
from sandbox.cli.output import emit, emit_object
from sandbox.cli.progress import StatusLine
from sandbox.cli.report import print_errors
from sandbox.cli.start import client_with_daemon
from sandbox.cli.style import table, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandbox.experiments.experiment import Experiment
    from sandbox.experiments.result import Result

DEFAULT_DIRECTORY = "sandbox-experiments"
PAGE = "report.html"
SHORTHANDS = {
    "cpu": "limits.cpu against the share of a CPU that a busy loop gets.",
    "memory": "limits.memory against the peak of a process that wants twice as much, and is killed.",
    "io": "Bytes a second of the annotation sandbox/io against those of direct reads and writes.",
    "pids": "The annotation sandbox/pids against the processes that a shell can fork.",
}


@click.group()
def experiment() -> None:
    """Set a limit, measure what the kernel then gives.

    Experiments are declared in files that can be copied and changed. Each measurement has pods of its own, removed at
    once. Prints a table; writes the raw data as JSON and, with matplotlib, a plot as PNG; `report` makes one page of
    all results in a directory, cgroup v1 and v2 side by side.

    \b
    Examples:
      sandbox experiment list
      sandbox experiment cpu
      sandbox experiment run memory --limits 16Mi,64Mi --repetitions 5
      sandbox experiment show cpu-weight > mine.yaml
      sandbox experiment run ./mine.yaml
      sandbox experiment run --all -d results && sandbox experiment report results
    """


_directory = click.option(
    "-d",
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Where raw data and plot are written.",
)


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option("--repetitions", type=click.IntRange(1, 1000), help="Of each case [as declared]."),
            click.option("--limits", metavar="A,B,...", help="Limits to measure, instead of the declared sweep."),
            click.option("--seed", type=int, help="Of the order of measurements [as declared]."),
            click.option(
                "--window",
                "window_s",
                type=click.FloatRange(0.1, 3600),
                metavar="SECONDS",
                help="How long each rate is measured [as declared].",
            ),
            click.option(
                "--loop",
                is_flag=True,
                help="On a loop device, also where the disk below the daemon's root can be used.",
            ),
            _directory,
        )
    ):
        function = option(function)
    return with_output("json")(function)


@experiment.command("list")
@with_output("json")
@pass_context
def list_(context: CliContext, /) -> None:
    """The experiments that there are."""
    from sandbox.experiments.declaration import declared_names, find

    found = [find(name) for name in declared_names()]
    if context.output:
        emit_object([{"name": e.name, "title": e.title, "lesson": e.lesson} for e in found], context.output)
        return
    rows = [(e.name, str(len(e.cases()) * len(e.series)), str(e.repetitions), e.title) for e in found]
    emit(table(("NAME", "CASES", "REPETITIONS", "WHAT IT MEASURES"), rows, columns=width()))


@experiment.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the declaration of an experiment, to be copied and changed."""
    from sandbox.experiments.declaration import find

    emit(find(name).declaration.splitlines())


@experiment.command("run")
@click.argument("names", metavar="NAME|FILE...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that there are; what the host refuses is reported and kept.")
@_options
@pass_context
def run_(context: CliContext, /, names: tuple[str, ...], every: bool, **options: Any) -> int:
    """Run experiments by name, or declared in a file.

    Exit code 2 when the host does not have a limit that was asked for by name; the result says so too.
    """
    from sandbox.experiments.declaration import declared_names, find

    if every == bool(names):
        raise click.UsageError("name experiments, or give --all")
    return _run(context, [find(name) for name in names or declared_names()], lenient=every, **options)


def _shorthand(name: str, help_text: str) -> None:
    @experiment.command(name, help=help_text)
    @_options
    @pass_context
    def command(context: CliContext, /, **options: Any) -> int:
        from sandbox.experiments.declaration import find

        return _run(context, [find(name)], **options)


for _name, _help in SHORTHANDS.items():
    _shorthand(_name, _help)


@experiment.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=DEFAULT_DIRECTORY)
def report(directory: Path) -> None:
    """Make one HTML page of all results in DIRECTORY; those of cgroup v1 and v2 stand side by side."""
    from sandbox.experiments import plot
    from sandbox.experiments.page import write_page
    from sandbox.experiments.result import results_in

    results = results_in(directory)
    with StatusLine(sys.stderr) as line:
        line.show(f"drawing {len(results)} results")
        write_page(results, directory / PAGE)
    if not plot.available():
        _no_plot()
    emit([f"written: {directory / PAGE}"])


def _run(
    context: CliContext,
    chosen: Sequence[Experiment],
    *,
    directory: Path,
    limits: str | None,
    lenient: bool = False,
    **settings: Any,
) -> int:
    from sandbox.experiments.experiment import Settings
    from sandbox.experiments.result import path_of, prepare_directory, write_json
    from sandbox.experiments.run import check_settings, run

    wanted = [Settings(limits=e.parse_limits(limits) if limits is not None else (), **settings) for e in chosen]
    for one, its in zip(chosen, wanted, strict=True):
        check_settings(one, its)
    prepare_directory(directory)
    client = client_with_daemon(context)
    results = []
    for one, its in zip(chosen, wanted, strict=True):
        with StatusLine(sys.stderr) as line:
            result = run(one, its, client, line.show)
            raw = path_of(result, directory)
            write_json(result, raw)
            written = [raw, *_draw(result, raw.with_suffix(".png"), line)]
        results.append(result)
        if result.refused and not lenient:
            print_errors([{"message": f"experiment {one.name!r} is refused here: {result.refused}"}])
        elif not context.output:
            emit(
                [*result.lines(), "written: " + ", ".join(map(str, written)), *([""] if one is not chosen[-1] else [])]
            )
    if context.output:
        found = [result.to_json() for result in results]
        emit_object(found[0] if len(found) == 1 else found, context.output)
    return 2 if not lenient and any(result.refused for result in results) else 0


def _draw(result: Result, path: Path, line: StatusLine) -> list[Path]:
    from sandbox.experiments import plot

    if result.refused:
        return []
    if not plot.available():
        line.clear()
        _no_plot()
        return []
    line.show("drawing")
    plot.draw(result, path)
    return [path]


def _no_plot() -> None:
    click.echo("no plot: matplotlib is not installed; pip install 'sandbox[plots]'", err=True)
