"""`sandbox doctor`."""

from __future__ import annotations

import click

from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_output
from sandbox.cli.output import emit, emit_object
from sandbox.cli.style import clean, style

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only what is missing.")
@with_output("json", "yaml")
@pass_context
def doctor(context: CliContext, quiet: bool) -> int:
    """Check what this host offers, say what is missing and how to get it. Needs no daemon and changes nothing. Exit
    code 1 when pods could not run.

    \b
    Examples:
      sandbox doctor
      sandbox doctor -o json | jq '.checks[] | select(.status != "ok")'
    """
    from sandbox.daemon.doctor import exit_code, run_checks

    checks = run_checks(context.config())
    code = exit_code(checks)
    if context.output:
        emit_object({"ok": code == 0, "checks": [check.to_json() for check in checks]}, context.output)
        return code
    shown = [check for check in checks if not quiet or check.status != "ok"]
    label = max((len(check.name) for check in shown), default=0)
    for check in shown:
        mark = style(f"{check.status:<4}", COLOURS[check.status], bold=check.status == "fail")
        emit([f"{mark}  {check.name:<{label}}  {clean(check.detail)}"])
        if check.hint:
            emit([f"      {'':<{label}}  → {clean(check.hint)}"])
    failed = sum(check.status == "fail" for check in checks)
    warned = sum(check.status == "warn" for check in checks)
    verdict = "this host cannot run pods" if code else "this host can run pods"
    emit([f"{verdict}: {len(checks) - failed - warned} ok, {warned} to know about, {failed} missing"])
    return code
