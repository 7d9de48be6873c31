"""The root command: global options, the table of commands, and the place where errors become text and exit codes."""

from __future__ import annotations

import os
from typing import Any

import click

from sandbox import __version__
from sandbox.cli.context import CliContext
from sandbox.cli.report import broken_pipe, print_errors, report_failure

# name → (module below sandbox.cli.commands, its attribute, one line for --help, section). A command is imported when
# it is run; the list of commands imports none.
COMMANDS: dict[str, tuple[str, str, str, str]] = {
    "run": ("run", "run", "Create the pods of a manifest and wait until they are ready", "Pods"),
    "ps": ("ps", "ps", "List pods", "Pods"),
    "describe": ("describe", "describe", "Show a pod, its containers and its events for a person", "Pods"),
    "inspect": ("inspect", "inspect", "Show everything known of a pod or container as JSON", "Pods"),
    "logs": ("logs", "logs", "Print the log of a container", "Pods"),
    "exec": ("exec", "exec_", "Run a command in a running container", "Pods"),
    "attach": ("exec", "attach", "Connect to the main process of a container", "Pods"),
    "stop": ("stop", "stop", "Stop pods and keep their status and logs", "Pods"),
    "rm": ("stop", "rm", "Stop and remove pods", "Pods"),
    "down": ("stop", "down", "Remove the pods of a manifest", "Pods"),
    "stats": ("stats", "stats", "Show what pods and containers use", "Pods"),
    "top": ("top", "top", "Show live what pods use", "Pods"),
    "update": ("update", "update", "Change the limits of a running container", "Pods"),
    "events": ("events", "events", "Show what happened", "Pods"),
    "images": ("images", "images", "List images", "Images"),
    "load": ("images", "load", "Load an image archive", "Images"),
    "rmi": ("images", "rmi", "Remove images", "Images"),
    "demo": ("demo", "demo", "Demonstrate what the runtime promises", "Learn"),
    "experiment": ("experiment", "experiment", "Measure limits against what the kernel gives", "Learn"),
    "daemon": ("daemon", "daemon", "Run, stop or install the daemon", "Host"),
    "doctor": ("doctor", "doctor", "Check what this host offers and say what is missing", "Host"),
    "version": ("version", "version", "Show the versions of this program and of the daemon", "Host"),
    "completion": ("completion", "completion", "Print the shell's completion script", "Host"),
}

COMPLETE_VARIABLE = "_SANDBOX_COMPLETE"
EXIT_CODES = """\b
Exit codes:
  0    done                          4    conflict with what exists
  1    failed                        5    a wait ran out of time
  2    wrong input or usage          6    no daemon
  3    not found                     130  interrupted
`exec`, and `run --wait done`, end with the code of the process itself."""


class CommandTable(click.Group):
    """A group that knows its commands by name and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module, attribute, _, _ = COMMANDS[cmd_name]
        command = getattr(import_module(f"sandbox.cli.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"there is no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry[3] for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items() if entry[3] == section])


@click.group(
    cls=CommandTable,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.option("--root", metavar="DIR", envvar="SANDBOX_ROOT", help="What survives a boot [/var/lib/sandbox].")
@click.option("--run-dir", metavar="DIR", envvar="SANDBOX_RUN_DIR", help="Sockets of the daemon [/run/sandbox].")
@click.option("-n", "--namespace", metavar="NAME", help="Namespace of the pods [default].")
@click.option(
    "-o", "--output", metavar="FORMAT", help="Output format of the commands that list: json, yaml, wide, name."
)
@click.version_option(__version__, "-V", "--version", message="sandbox %(version)s")
@click.pass_context
def cli(ctx: click.Context, root: str | None, run_dir: str | None, namespace: str | None, output: str | None) -> None:
    """Kubernetes Pods on one Linux host.

    \b
    Examples:
      sandbox run pod.yaml            create a pod, wait until it is ready
      sandbox ps                      what runs
      sandbox logs -f web/server      follow a log
      sandbox exec -it web -- sh      a shell in the pod's first container
      sandbox down pod.yaml           remove it again
    """
    ctx.obj = CliContext(root, run_dir, namespace, output)


def run(arguments: list[str]) -> int:
    """Runs one command line; everything that can go wrong comes out as text on stderr and an exit code."""
    try:
        if COMPLETE_VARIABLE in os.environ:
            cli.main(arguments, prog_name="sandbox", complete_var=COMPLETE_VARIABLE)  # answers the shell and exits
        # Not `cli.main`: it has its own idea of how an interrupt and a broken pipe should look.
        with cli.make_context("sandbox", arguments) as ctx:
            result: Any = cli.invoke(ctx)
    except BrokenPipeError:
        return broken_pipe()
    except Exception as error:
        code = report(error)
        if code is None:
            raise
        return code
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


def report(error: Exception) -> int | None:
    """Prints an expected error and returns its exit code; None for one that nobody expected."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        return 130
    if isinstance(error, click.ClickException):
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"see `{error.ctx.command_path} --help`"
        message = error.format_message()
        print_errors([{"message": message[:1].lower() + message[1:].rstrip("."), "hint": hint}])
        return 2 if isinstance(error, click.UsageError) else 1
    return report_failure(error)
