"""`sandbox logs`."""

from __future__ import annotations

import sys

import click

from sandbox.cli.complete import container_names
from sandbox.cli.context import CliContext, split_name
from sandbox.cli.options import pass_context, with_namespace


@click.command()
@click.argument("name", metavar="POD[/CONTAINER]", shell_complete=container_names)
@click.option("-c", "--container", metavar="NAME", default="", help="The container, if not given as POD/CONTAINER.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the container writes, over its restarts.")
@click.option("-p", "--previous", is_flag=True, help="The log of the instance before the last restart.")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only the last lines.")
@click.option("--since", metavar="TIME", help="Only from then: a duration (90s, 10m, 1h30m) or an RFC 3339 time.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
@with_namespace
@pass_context
def logs(
    context: CliContext,
    name: str,
    container: str,
    follow: bool,
    previous: bool,
    tail: int | None,
    since: str | None,
    timestamps: bool,
) -> None:
    """Print the log of a container: its standard output and error, as it wrote them.

    \b
    Examples:
      sandbox logs web
      sandbox logs -f --tail 20 web/server
      sandbox logs --previous -c server web
      sandbox logs --since 10m -t web
    """
    pod, container = split_name(name, container)
    query: list[tuple[str, str | int]] = [("container", container)] if container else []
    flags = (("follow", follow), ("previous", previous), ("timestamps", timestamps))
    query += [(key, 1) for key, value in flags if value]
    if tail is not None:
        query.append(("tail", tail))
    if since:
        query.append(("since", since))
    out = sys.stdout.buffer
    with context.client.request("GET", context.pod_target(pod, "log", query=query), stream=True) as response:
        for data in response.chunks():
            out.write(data)
            out.flush()
