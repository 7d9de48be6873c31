"""`sandbox describe`: a pod for a person to read, laid out as kubectl does."""

from __future__ import annotations

import time

import click

from sandbox.cli.complete import pod_names
from sandbox.cli.context import CliContext, pod_name
from sandbox.cli.describe import describe_pod
from sandbox.cli.options import pass_context, with_namespace
from sandbox.cli.output import emit
from sandbox.cli.style import width


@click.command()
@click.argument("pods", metavar="POD...", nargs=-1, required=True, shell_complete=pod_names)
@with_namespace
@pass_context
def describe(context: CliContext, pods: tuple[str, ...]) -> None:
    """Show a pod, its containers, what stands behind them in the kernel, and its events.

    \b
    Examples:
      sandbox describe web
      sandbox describe -n tests web db
    """
    for number, name in enumerate(pods):
        answer = context.client.get(context.pod_target(pod_name(name), "describe"))
        emit([""] * min(number, 1) + describe_pod(answer, time.time(), width()))
