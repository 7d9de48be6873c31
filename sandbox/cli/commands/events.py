"""`sandbox events`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from sandbox.cli.client import target
from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_namespace, with_output
from sandbox.cli.output import emit, emit_object, kind_list
from sandbox.cli.style import age, clean, is_terminal, style, table, width

HEADER = ("AGE", "TYPE", "REASON", "OBJECT", "MESSAGE")


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen.")
@click.option("--after", type=click.IntRange(0), metavar="SEQUENCE", help="Only events with a greater sequence number.")
@click.option("-p", "--pod", metavar="POD", help="Only the events of this pod.")
@with_namespace
@with_output("json", "yaml")
@pass_context
def events(context: CliContext, follow: bool, after: int | None, pod: str | None) -> None:
    """Show what happened to pods, containers and images, the oldest first. With `-f -o json` one object a line.

    \b
    Examples:
      sandbox events
      sandbox events -f --pod web
      sandbox events -f -o json | jq -r .reason
    """
    query: list[tuple[str, str | int]] = [("follow", 1)] if follow else []
    if after is not None:
        query.append(("after", after))
    with context.client.request("GET", target("v1", "events", query=query), stream=True) as response:
        selected = (event for event in response.events() if _wanted(event, context.namespace_given, pod))
        if follow:
            for event in selected:
                _print_one(event, context.output)
            return
        found = list(selected)
    if context.output:
        emit_object(kind_list(found), context.output)
    elif found:
        now = time.time()
        emit(table(HEADER, [_cells(event, age(event["time"], now)) for event in found], columns=width()))
    else:
        click.echo("no events", err=True)


def _wanted(event: dict[str, Any], namespace: str | None, pod: str | None) -> bool:
    about = event.get("object", {})
    return (not namespace or about.get("namespace") == namespace) and (
        not pod or (about.get("kind") == "Pod" and about.get("name") == pod)
    )


def _cells(event: dict[str, Any], when: str) -> list[str]:
    about = event.get("object", {})
    name = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    if about.get("container"):
        name += f"/{about['container']}"
    return [when, event.get("type", ""), event.get("reason", ""), name, event.get("message", "")]


def _print_one(event: dict[str, Any], output: str | None) -> None:
    if output == "yaml":
        sys.stdout.write("---\n")
        emit_object(event, "yaml")
    elif output == "json":
        emit([json.dumps(event)])
    else:
        when, kind, reason, name, message = (clean(cell) for cell in _cells(event, event["time"]))
        colour = "yellow" if kind == "Warning" else "dim"
        line = f"{when}  {style(f'{reason:<18}', colour)} {name}  {message}"
        columns = width()
        emit([line if not is_terminal() or columns is None or len(line) <= columns + 9 else line[: columns + 8] + "…"])
