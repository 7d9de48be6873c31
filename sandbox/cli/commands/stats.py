"""`sandbox stats`."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from itertools import islice

import click

from sandbox.cli.complete import pod_names
from sandbox.cli.context import CliContext, pod_name
from sandbox.cli.options import pass_context, with_namespace, with_output
from sandbox.cli.output import emit, emit_object
from sandbox.cli.style import is_terminal, table, width
from sandbox.cli.usage import Row, Rows, amount, open_stream, percent, samples, stats_target, whole
from sandbox.errors import NotFound

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from sandbox.cli.usage import Usage

HEADER = ("NAME", "CPU", "THROTTLED", "MEMORY", "LIMIT", "MEM%", "PEAK", "OOM", "PIDS", "READ", "WRITTEN", "PRESSURE")


@click.command()
@click.argument("pods", metavar="[POD...]", nargs=-1, shell_complete=pod_names)
@click.option("-A", "--all-namespaces", is_flag=True, help="The pods of every namespace.")
@click.option("-w", "--watch", is_flag=True, help="Show the table again after every interval.")
@click.option(
    "--interval",
    type=click.FloatRange(0.05, 3600),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="Time over which the use of the CPU is measured.",
)
@with_namespace
@with_output("json", "yaml")
@pass_context
def stats(context: CliContext, pods: tuple[str, ...], all_namespaces: bool, watch: bool, interval: float) -> None:
    """Show what pods and containers use.

    CPU is in thousandths of one CPU (500m is half of one), THROTTLED the share of the time in which the CPU limit held
    it back; MEMORY is the working set, as the kubelet counts it, PEAK all memory at its highest; OOM counts kills.
    PRESSURE is the share of the last ten seconds in which some task waited for CPU/memory/I/O. `-o json` prints the
    counters once, with -w one line a sample.

    \b
    Examples:
      sandbox stats
      sandbox stats -w --interval 2 web
      sandbox stats -o json
    """
    wanted = tuple(dict.fromkeys(pod_name(name) for name in pods))
    namespace = None if all_namespaces else context.namespace
    if context.output and not watch:
        answer = context.client.get(stats_target(namespace, wanted, watch=False, interval_s=interval))
        emit_object({"pods": _present(answer["pods"], wanted)}, context.output)
        return
    rows = Rows()
    with closing(open_stream(context, namespace, wanted, interval)) as stream:
        for number, sample in enumerate(samples(stream) if watch else islice(samples(stream), 2)):
            if number == 0:
                _present(sample, wanted)
            if context.output:
                sys.stdout.write(json.dumps({"pods": sample}, ensure_ascii=False) + "\n")
                sys.stdout.flush()
                continue
            table_of = rows.take(sample)
            if number:
                _show(table_of, namespaces=all_namespaces, watch=watch)


def _present(pods: list[Usage], wanted: tuple[str, ...]) -> list[Usage]:
    """Raises NotFound when a pod that was named is not there."""
    missing = set(wanted) - {pod["name"] for pod in pods}
    if missing:
        raise NotFound(f"there is no pod {min(missing)!r} that runs", subject=min(missing), hint="see `sandbox ps -a`")
    return pods


def _show(rows: list[Row], *, namespaces: bool, watch: bool) -> None:
    if not rows and not watch:
        click.echo("no pods that run", err=True)
        return
    lines = table(HEADER, [_cells(row, namespaces=namespaces) for row in rows], columns=width())
    emit(["\x1b[H\x1b[2J" + lines[0], *lines[1:]] if watch and is_terminal() else lines)


def _cells(row: Row, *, namespaces: bool) -> list[str]:
    usage = row.usage
    return [
        row.name(namespaces=namespaces),
        "-" if row.cpu_milli is None else f"{row.cpu_milli:.0f}m",
        percent(row.throttled_percent),
        amount(usage.get("memoryWorkingSetBytes")),
        amount(usage.get("memoryLimitBytes")),
        percent(row.memory_percent),
        amount(usage.get("memoryPeakBytes")),
        whole(usage.get("oomKills")),
        whole(usage.get("pids")),
        amount(usage.get("ioReadBytes")),
        amount(usage.get("ioWriteBytes")),
        row.pressure,
    ]
