"""`sandbox daemon`: run it in the foreground, stop it, ask for it, install its units."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from sandbox.cli.client import target
from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_output
from sandbox.cli.output import emit, emit_object
from sandbox.errors import DeadlineExceeded, InvalidInput, SandboxError

STOP_TIMEOUT_S = 30.0
GLOBAL = ("root", "run_dir")


def _settings(function: Any) -> Any:
    """An option for each setting of the daemon, from its own table."""
    from sandbox.daemon.config import SETTINGS

    for setting in reversed(SETTINGS):
        if setting.name not in GLOBAL:
            option = click.option(
                setting.flag, setting.name, metavar="VALUE", help=f"{setting.help[:1].upper()}{setting.help[1:]}."
            )
            function = option(function)
    return function


@click.group(invoke_without_command=True)
@click.option("--config", metavar="FILE", envvar="SANDBOX_CONFIG", help="Configuration file.")
@_settings
@click.pass_context
def daemon(ctx: click.Context, /, config: str | None, **settings: str | None) -> None:
    """Run the daemon in the foreground, or with a subcommand manage it. Pods outlive it.

    \b
    Examples:
      sandbox daemon
      sandbox daemon --log-level debug
      sandbox daemon status
      sandbox daemon stop
      sandbox daemon install-unit && systemctl enable --now sandbox.socket
    """
    if ctx.invoked_subcommand is not None:
        return
    context: CliContext = ctx.obj
    flags = [f"--config={config}"] if config else []
    chosen = {"root": context.root, "run_dir": context.run_dir, **settings}
    flags += [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items() if value is not None]
    # A fresh interpreter: the daemon is not to carry what the command line loaded, nor its switched-off collector.
    os.execv(sys.executable, [sys.executable, "-m", "sandbox.daemon", *flags])  # noqa: S606


@daemon.command()
@pass_context
def start(context: CliContext) -> None:
    """Start the daemon in the background unless one answers already; its log is daemon.log below --root.

    \b
    Examples:
      sandbox daemon start
    """
    from sandbox.cli.start import client_with_daemon

    running = context.client.answers()
    answer = client_with_daemon(context).get(target("v1", "version"))
    emit([f"daemon {'runs already' if running else 'started'} (pid {answer['pid']})"])


@daemon.command()
@with_output("json", "yaml")
@pass_context
def status(context: CliContext) -> None:
    """Say whether the daemon answers; exit code 6 when it does not.

    \b
    Examples:
      sandbox daemon status
      sandbox daemon status -o json
    """
    answer = context.client.get(target("v1", "version"))
    if context.output:
        emit_object(answer, context.output)
        return
    keys = (
        ("version", "version"),
        ("pid", "pid"),
        ("started", "startedAt"),
        ("root", "root"),
        ("run directory", "runDir"),
        ("cgroups", "cgroups"),
    )
    emit([f"{label + ':':<16}{answer.get(key, '')}" for label, key in keys])


@daemon.command()
@click.option("--clean", is_flag=True, help="Also remove bridge, rules and parent cgroup; no pod may be left.")
@pass_context
def stop(context: CliContext, clean: bool) -> None:
    """Stop the daemon and wait until it is gone. Pods keep running; the next daemon takes them up again.

    \b
    Examples:
      sandbox daemon stop
      sandbox daemon stop --clean
    """
    client = context.client
    answer = client.call("POST", target("v1", "shutdown"), {"clean": True} if clean else None) or {}
    pid = answer.get("pid")
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while client.answers() or (isinstance(pid, int) and _alive(pid)):
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"the daemon did not stop within {STOP_TIMEOUT_S:g} s", subject=str(pid or ""))
        time.sleep(0.02)
    emit([f"daemon stopped (pid {pid})" if pid else "daemon stopped"])


def _alive(pid: int) -> bool:
    """A process that runs; one that has ended and is not yet reaped is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in ("Z", "X")


@daemon.command("install-unit")
@click.option("--directory", metavar="DIR", default="/etc/systemd/system", show_default=True, help="Where units go.")
@pass_context
def install_unit(context: CliContext, directory: str) -> None:
    """Write systemd units that start the daemon at boot, or when someone first connects to its socket.

    \b
    Examples:
      sandbox daemon install-unit
      systemctl daemon-reload && systemctl enable --now sandbox.socket
    """
    from sandbox.daemon.units import install

    executable = Path(sys.argv[0]).absolute()
    if not executable.is_file() or not os.access(executable, os.X_OK):
        executable = Path(sys.executable).with_name("sandbox")
    if not executable.is_file():
        raise InvalidInput(f"there is no sandbox command at {str(executable)!r} that a unit could run")
    try:
        written = install(executable, Path(directory))
    except OSError as error:
        raise SandboxError(f"cannot write units to {directory!r}", errno=error.errno or 0) from error
    emit([f"{path} written" for path in written])
    emit(["next: systemctl daemon-reload && systemctl enable --now sandbox.socket"])
