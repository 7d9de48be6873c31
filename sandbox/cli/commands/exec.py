"""`sandbox exec` and `sandbox attach`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import Any

import click

from sandbox.cli.client import ApiError
from sandbox.cli.complete import container_names
from sandbox.cli.context import CliContext, pass_context, split_name, with_namespace


@click.command("exec", context_settings={"allow_interspersed_args": False})
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

        rows, columns = size(_terminal_fd())
        query += [("rows", rows), ("cols", columns)]
    return _session(context, pod, "exec", container, query, stdin=stdin, tty=tty)


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
    return _session(context, pod, "attach", container, [], stdin=stdin, tty=tty and _has_terminal(stdin))


def _has_terminal(stdin: bool) -> bool:
    """Whether -t can be had: keys from a pipe are no terminal's."""
    if stdin and not sys.stdin.isatty():
        click.echo("warning: standard input is not a terminal: -t is ignored", err=True)
        return False
    return True


def _terminal_fd() -> int:
    return next((fd for fd in (0, 1, 2) if os.isatty(fd)), 0)


def _session(
    context: CliContext,
    pod: str,
    verb: str,
    container: str,
    query: list[tuple[str, str | int]],
    *,
    stdin: bool,
    tty: bool,
) -> int:
    from sandbox.cli.websocket import RemoteProcess

    query = [*([("container", container)] if container else []), *query, ("stdin", int(stdin)), ("tty", int(tty))]
    remote = RemoteProcess(context.client.connect(), context.pod_target(pod, verb, query=query))
    sys.stdout.flush()
    with ExitStack() as stack:
        stack.callback(remote.close)
        extras: dict[str, Any] = {}
        if tty:
            from sandbox.cli.terminal import DetachKeys, raw, resizes, size

            fd = _terminal_fd()
            extras = {"terminal_size": lambda: size(fd), "wakeup": stack.enter_context(resizes())}
            if stdin:
                if verb == "attach":
                    extras["detach"] = DetachKeys()
                    click.echo("Ctrl-P Ctrl-Q leaves the session; a key brings up the prompt", err=True)
                stack.enter_context(raw(0))
        status = remote.run(0 if stdin else None, 1, 2, **extras)
    if status is None:
        click.echo("\nleft the session; the process goes on", err=True)
        return 0
    return _exit_code(status)


def _exit_code(status: dict[str, Any]) -> int:
    """The exit code that a Kubernetes Status carries. Raises ApiError when it is about something else."""
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
            return int(cause["message"]) & 0xFF
    raise ApiError([{"message": status.get("message") or "the command could not be run", "exitCode": 1}])
