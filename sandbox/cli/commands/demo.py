"""`sandbox demo`: promises of the runtime, shown."""

from __future__ import annotations

import os
import sys

import click

from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_output
from sandbox.cli.output import emit, emit_object
from sandbox.cli.progress import StatusLine
from sandbox.cli.style import style, table, width
from sandbox.errors import SandboxError

HEADER = ("WHAT", "BEFORE", "AFTER APP CRASHES", "AFTER DAEMON KILL", "VERDICT")


@click.group()
def demo() -> None:
    """Demonstrate what the runtime promises. Each demonstration cleans up after itself.

    \b
    Examples:
      sandbox demo restart-survival
    """


@demo.command("restart-survival")
@click.option(
    "--crashes", type=click.IntRange(1, 100), default=3, show_default=True, help="How often the app is killed."
)
@with_output("json")
@pass_context
def restart_survival(context: CliContext, /, crashes: int) -> int:
    """Crash an app again and again, kill the daemon with SIGKILL, and show what stays.

    A TCP connection held open into the pod goes through all of it. Once more the app is killed while no daemon runs.
    Uses a daemon of its own, with its own directories, bridge, subnet and cgroups: no other pod is touched, nothing is
    left. Exit code 1 when anything differs.

    \b
    Examples:
      sandbox demo restart-survival
      sandbox demo restart-survival --crashes 10 -o json
    """
    if os.geteuid() != 0:
        raise SandboxError("only root can make pods", operation="start a daemon", hint="use sudo")
    from sandbox.experiments.restart_survival import BACK_OFF_S, demonstrate

    with StatusLine(sys.stderr) as line:
        outcome = demonstrate(context.config(), crashes, line.show)
    if context.output:
        emit_object(outcome.to_json(), context.output)
        return 0 if outcome.ok else 1
    rows = [(r.what, r.before, r.after_crashes, r.after_daemon_kill, r.verdict) for r in outcome.rows]
    emit(
        [
            f"App killed {crashes} times, then the daemon with SIGKILL, then the app once more while no daemon ran.",
            f"In a daemon of its own; back-off shortened from 10 s to {BACK_OFF_S:g} s.",
            "",
            *table(HEADER, rows, columns=width()),
            "",
            f"daemon back after {outcome.daemon_restart_ms:.0f} ms",
            style("survived", "green", bold=True) if outcome.ok else style("NOT survived", "red", bold=True),
        ]
    )
    return 0 if outcome.ok else 1
