"""`sandbox ps`."""

from __future__ import annotations

import time
from typing import Any

import click

from sandbox.cli.client import target
from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_namespace, with_output
from sandbox.cli.output import emit, emit_object, kind_list
from sandbox.cli.podview import header, row
from sandbox.cli.style import is_terminal, table, width

WATCH_INTERVAL_S = 1.0


@click.command()
@click.option("-a", "--all", "all_", is_flag=True, help="Also pods that have ended.")
@click.option("-A", "--all-namespaces", is_flag=True, help="The pods of every namespace.")
@click.option("-w", "--watch", is_flag=True, help="Show the table again every second.")
@with_namespace
@with_output("wide", "json", "yaml", "name")
@pass_context
def ps(context: CliContext, all_: bool, all_namespaces: bool, watch: bool) -> None:
    """List pods.

    \b
    Examples:
      sandbox ps
      sandbox ps -a -o wide
      sandbox ps -o json | jq -r '.items[].status.podIP'
      sandbox rm $(sandbox ps -o name)
    """
    namespace = "" if all_namespaces else context.namespace
    path = target("v1", "pods", query=[("namespace", namespace), ("all", int(all_))])
    pods = context.client.get(path)["items"]
    if watch:
        _watch(context, path, pods, namespace)
    else:
        _print(context, pods, all_namespaces, hidden=not all_)


def _print(context: CliContext, pods: list[Any], all_namespaces: bool, *, hidden: bool) -> None:
    if context.output in ("json", "yaml"):
        emit_object(kind_list(pods), context.output)
    elif context.output == "name":
        emit([f"pod/{pod['metadata']['name']}" for pod in pods])
    elif pods:
        emit(_table(pods, wide=context.output == "wide", namespaces=all_namespaces))
    else:
        where = "" if all_namespaces else f" in namespace {context.namespace!r}"
        also = "; -a also lists those that have ended" if hidden else ""
        click.echo(f"no pods{where}{also}", err=True)


def _table(pods: list[Any], *, wide: bool, namespaces: bool) -> list[str]:
    now = time.time()
    names = header(wide=wide, namespace=namespaces)
    rows = [row(pod, now, wide=wide, namespace=namespaces) for pod in pods]
    # What was asked for in full is not cut.
    return table(names, rows, columns=None if wide else width(), status=names.index("STATUS"))


def _watch(context: CliContext, path: str, pods: list[Any], namespace: str) -> None:
    """Redraws on a terminal; elsewhere only the tables that differ follow each other. Ends with Ctrl-C."""
    wide, namespaces = context.output == "wide", not namespace
    before: list[list[str]] = []
    while True:
        if is_terminal():
            lines = _table(pods, wide=wide, namespaces=namespaces)
            emit(["\x1b[H\x1b[2J" + lines[0], *lines[1:]])
        else:
            state = [row(pod, 0.0, wide=wide, namespace=namespaces) for pod in pods]
            if state != before:
                emit(_table(pods, wide=wide, namespaces=namespaces))
            before = state
        time.sleep(WATCH_INTERVAL_S)
        pods = context.client.get(path)["items"]
