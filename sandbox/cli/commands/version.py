"""`sandbox version`."""

from __future__ import annotations

from typing import Any

import click

from sandbox import __version__
from sandbox.cli.client import target
from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_output
from sandbox.cli.output import emit, emit_object
from sandbox.errors import DaemonUnavailable


@click.command()
@with_output("json", "yaml")
@pass_context
def version(context: CliContext) -> int:
    """Show the versions of this program and of the daemon. Exit code 6 when no daemon answers.

    \b
    Examples:
      sandbox version
      sandbox version -o json
    """
    daemon: dict[str, Any] | None
    try:
        daemon = context.client.get(target("v1", "version"))
    except DaemonUnavailable:
        daemon = None
    if context.output:
        emit_object({"client": {"version": __version__}, "daemon": daemon}, context.output)
    else:
        shown = f"{daemon['version']} (pid {daemon['pid']})" if daemon else f"none at {context.socket_path}"
        emit([f"client  {__version__}", f"daemon  {shown}"])
    return 0 if daemon else DaemonUnavailable.exit_code
