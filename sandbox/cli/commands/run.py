"""`sandbox run`."""

from __future__ import annotations

import click

from sandbox.cli.apply import apply
from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_namespace, with_output


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--wait",
    type=click.Choice(["ready", "done", "none"]),
    help="Wait until the pods are ready (default), until they have ended, or not at all.",
)
@click.option("--timeout", type=click.FloatRange(0.001), metavar="SECONDS", help="Give up waiting (exit code 5).")
@click.option("--rm", is_flag=True, help="Wait until the pods have ended, then remove them.")
@click.option("--dry-run", is_flag=True, help="Print what would be done in the kernel; do nothing.")
@click.option("--timeline", is_flag=True, help="Draw where the time went.")
@with_namespace
@with_output("json", "yaml", "name")
@pass_context
def run(
    context: CliContext,
    files: tuple[str, ...],
    wait: str | None,
    timeout: float | None,
    rm: bool,
    dry_run: bool,
    timeline: bool,
) -> int:
    """Create the pods of one or more manifests; `-` reads standard input.

    All files are checked before anything is created. Starts a daemon when none answers. With `--wait done` the exit
    code is that of the first container that failed.

    \b
    Examples:
      sandbox run pod.yaml
      sandbox run pod.yaml config.yaml --timeline
      sandbox run job.yaml --rm --timeout 60
      sandbox run --dry-run pod.yaml
      cat pod.yaml | sandbox run -
    """
    if rm and wait not in (None, "done"):
        raise click.UsageError(f"--rm waits until the pods have ended; it does not go with --wait {wait}")
    return apply(
        context,
        files,
        wait=wait or ("done" if rm else "ready"),
        timeout=timeout,
        rm=rm,
        dry_run=dry_run,
        timeline=timeline,
    )
