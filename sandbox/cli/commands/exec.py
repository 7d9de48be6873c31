"""`sandbox exec` and `sandbox attach`."""

from __future__ import annotations

import sys

import click

from sandbox.cli.complete import container_names
from sandbox.cli.context import CliContext, split_name
from sandbox.cli.options import pass_context, with_namespace
from sandbox.cli.session import session, terminal_fd


class ExecCommand(click.Command):
    """Options may stand before POD, or between POD and `--` as kubectl has them; words after POD are the command's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        between = "--" in args and args[0][:1] != "-" and args[1][:1] == "-"
        ctx.allow_interspersed_args = between
        return super().parse_args(ctx, args)


@click.command("exec", cls=ExecCommand)
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input to the command.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-c", "--container", metavar="NAME", default="", help="The container, if not given as POD/CONTAINER.")
@with_namespace
@click.argument("name", metavar="POD[/CONTAINER]", shell_complete=container_names)
@click.argument("command", metavar="[--] COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_context
def exec_(context: CliContext, stdin: bool, tty: bool, container: str, name: str, command: tuple[str, ...]) -> int:
    """Run a command in a running container and end with its exit code.

    \b
    Examples:
      sandbox exec web -- ls -l /
      sandbox exec -it web/server -- sh
      sandbox exec web -c server -- env
      tar -c . | sandbox exec -i web -- tar -x -C /tmp
    """
    pod, container = split_name(name, container)
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("a command is missing after --")
    tty = tty and _has_terminal(stdin)
    query: list[tuple[str, str | int]] = [("command", word) for word in words]
    if tty:
        from sandbox.cli.terminal import size

        rows, columns = size(terminal_fd())
        query += [("rows", rows), ("cols", columns)]
    return session(context, pod, "exec", container, query, stdin=stdin, tty=tty)


@click.command()
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input to the process.")
@click.option("-t", "--tty", is_flag=True, help="The process has a terminal: pass keys as they are typed.")
@click.option("-c", "--container", metavar="NAME", default="", help="The container, if not given as POD/CONTAINER.")
@with_namespace
@click.argument("name", metavar="POD[/CONTAINER]", shell_complete=container_names)
@pass_context
def attach(context: CliContext, stdin: bool, tty: bool, container: str, name: str) -> int:
    """Connect to the main process of a container: see what it writes from now on, and with -i write to it.

    Leaving does not stop the process: Ctrl-C, or with -t Ctrl-P Ctrl-Q.

    \b
    Examples:
      sandbox attach web
      sandbox attach -it shell/main
    """
    pod, container = split_name(name, container)
    return session(context, pod, "attach", container, [], stdin=stdin, tty=tty and _has_terminal(stdin))


def _has_terminal(stdin: bool) -> bool:
    """Whether -t can be had: keys from a pipe are no terminal's."""
    if stdin and not sys.stdin.isatty():
        click.echo("warning: standard input is not a terminal: -t is ignored", err=True)
        return False
    return True
