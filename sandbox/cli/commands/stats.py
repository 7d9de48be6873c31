"""`sandbox stats`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from sandbox.cli.client import target
from sandbox.cli.complete import pod_names
from sandbox.cli.context import CliContext, pod_name
from sandbox.cli.options import pass_context, with_namespace, with_output
from sandbox.cli.output import emit, emit_object
from sandbox.cli.style import epoch, is_terminal, size, table, width
from sandbox.errors import NotFound

HEADER = ("NAME", "CPU", "MEMORY", "LIMIT", "MEM%", "PIDS", "READ", "WRITTEN")
Usage = Mapping[str, Any]
Counter = tuple[int, float]


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
    """Show what pods and containers use. CPU is in thousandths of one CPU (500m is half of one); memory is the working
    set, as the kubelet counts it. `-o json` prints the counters once.

    \b
    Examples:
      sandbox stats
      sandbox stats -w --interval 2 web
      sandbox stats -o json
    """
    wanted = {pod_name(name) for name in pods}
    namespace = None if all_namespaces else context.namespace
    first = _read(context, namespace, wanted)
    if context.output:
        emit_object({"pods": first}, context.output)
        return
    while True:
        before, start = _counters(first), time.monotonic()
        time.sleep(interval)
        first = _read(context, namespace, wanted)
        rows = _rows(first, before, time.monotonic() - start, namespaces=all_namespaces)
        if rows or watch:
            lines = table(HEADER, rows, columns=width())
            emit(["\x1b[H\x1b[2J" + lines[0], *lines[1:]] if watch and is_terminal() else lines)
        else:
            click.echo("no pods that run", err=True)
        if not watch:
            return


def _read(context: CliContext, namespace: str | None, wanted: set[str]) -> list[Usage]:
    """The pods asked for. Raises NotFound when a named one is not there."""
    found = context.client.get(target("v1", "stats"))["pods"]
    chosen = [pod for pod in found if namespace is None or pod["namespace"] == namespace]
    missing = wanted - {pod["name"] for pod in chosen}
    if missing:
        raise NotFound(f"there is no pod {min(missing)!r} that runs", subject=min(missing), hint="see `sandbox ps -a`")
    return [pod for pod in chosen if not wanted or pod["name"] in wanted]


def _named(pods: list[Usage], *, namespaces: bool) -> list[tuple[str, Usage]]:
    """(name, usage) of each pod, followed by its containers."""
    entries: list[tuple[str, Usage]] = []
    for pod in pods:
        name = f"{pod['namespace']}/{pod['name']}" if namespaces else pod["name"]
        entries.append((name, pod))
        entries += [(f"{name}/{container['name']}", container) for container in pod.get("containers") or ()]
    return entries


def _counters(pods: list[Usage]) -> dict[str, Counter]:
    """CPU time in nanoseconds and the time of its reading in seconds, by full name."""
    return {name: _counter(usage) for name, usage in _named(pods, namespaces=True)}


def _counter(usage: Usage) -> Counter:
    return int(usage.get("cpuNanoseconds") or 0), epoch(str(usage.get("time") or ""))


def _rows(pods: list[Usage], before: dict[str, Counter], elapsed: float, *, namespaces: bool) -> list[list[str]]:
    full = [name for name, _ in _named(pods, namespaces=True)]
    entries = _named(pods, namespaces=namespaces)
    return [_row(name, usage, before.get(key), elapsed) for key, (name, usage) in zip(full, entries, strict=True)]


def _row(name: str, usage: Usage, before: Counter | None, elapsed: float) -> list[str]:
    cpu = "-"
    if before is not None and usage.get("cpuNanoseconds") is not None:
        used, taken = _counter(usage)
        seconds = taken - before[1] if taken > before[1] > 0 else elapsed
        cpu = f"{max(used - before[0], 0) / max(seconds, 1e-6) / 1e6:.0f}m"
    memory, limit = usage.get("memoryWorkingSetBytes"), usage.get("memoryLimitBytes")
    share = f"{100 * memory / limit:.0f}%" if memory is not None and limit else "-"
    return [
        name,
        cpu,
        _size(memory),
        _size(limit),
        share,
        str(usage["pids"]) if usage.get("pids") is not None else "-",
        _size(usage.get("ioReadBytes")),
        _size(usage.get("ioWriteBytes")),
    ]


def _size(count: Any) -> str:
    return size(count) if count is not None else "-"
