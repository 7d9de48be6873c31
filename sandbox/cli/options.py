"""The options that many commands share, as click decorators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sandbox.cli.context import NAMESPACE, CliContext

F = TypeVar("F", bound=Callable[..., Any])
NAMESPACE_KEY = "sandbox.namespace"


def with_namespace(function: F) -> F:
    """Adds `-n`, which overrides the global one, to a command whose first parameter is the CliContext."""

    def set_namespace(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        if ctx.obj is None:  # completing: click parses the line, but does not call the root command
            ctx.meta[NAMESPACE_KEY] = value
        else:
            ctx.obj.namespace_given = value

    return click.option(
        "-n",
        "--namespace",
        metavar="NAME",
        expose_value=False,
        callback=set_namespace,
        is_eager=True,  # completion of names asks for the namespace
        help=f"Namespace of the pod (default {NAMESPACE!r}).",
    )(function)


def with_output(*formats: str) -> Callable[[F], F]:
    """Adds `-o`, which overrides the global one; the command reads `CliContext.output`."""

    def set_output(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if ctx.obj is None:
            return
        if value is not None:
            ctx.obj.output = value
        elif ctx.obj.output is not None and ctx.obj.output not in formats:
            raise click.UsageError(
                f"{ctx.info_name} knows no output format {ctx.obj.output!r}: {', '.join(formats)}", ctx
            )

    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        expose_value=False,
        callback=set_output,
        help="Output format.",
    )


pass_context = click.make_pass_decorator(CliContext)
