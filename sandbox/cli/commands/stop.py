"""`sandbox stop`, `sandbox rm` and `sandbox down`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from sandbox.cli.client import ApiError
from sandbox.cli.complete import pod_names
from sandbox.cli.context import CliContext, pod_name
from sandbox.cli.manifests import read_files
from sandbox.cli.options import pass_context, with_namespace
from sandbox.cli.output import emit
from sandbox.cli.progress import StatusLine
from sandbox.cli.report import print_errors

_grace = click.option(
    "-t",
    "--time",
    "grace",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Time between SIGTERM and SIGKILL (default: the pod's terminationGracePeriodSeconds).",
)


@click.command()
@click.argument("pods", metavar="POD...", nargs=-1, required=True, shell_complete=pod_names)
@_grace
@with_namespace
@pass_context
def stop(context: CliContext, pods: tuple[str, ...], grace: float | None) -> int:
    """Stop pods. Their status and logs stay until `sandbox rm`.

    \b
    Examples:
      sandbox stop web
      sandbox stop -t 1 web db
    """

    def one(name: str) -> bool:
        context.client.call("POST", context.pod_target(name, "stop"), {"graceSeconds": grace})
        return True

    return _each(pods, one, doing="stopping", done="stopped")


@click.command()
@click.argument("pods", metavar="POD...", nargs=-1, required=True, shell_complete=pod_names)
@click.option("-f", "--force", is_flag=True, help="Kill at once; a pod that does not exist is no error.")
@_grace
@with_namespace
@pass_context
def rm(context: CliContext, pods: tuple[str, ...], force: bool, grace: float | None) -> int:
    """Stop pods and remove everything that belongs to them: processes, network, cgroups, volumes, logs.

    \b
    Examples:
      sandbox rm web
      sandbox rm -f web
      sandbox rm $(sandbox ps -a -o name)
    """
    query: list[tuple[str, str | int]] = [("force", int(force))]
    if grace is not None:
        query.append(("graceSeconds", f"{grace:g}"))

    def one(name: str) -> bool:
        try:
            context.client.call("DELETE", context.pod_target(name, query=query))
        except ApiError as error:
            if not (force and error.errors[0].get("reason") == "NotFound"):
                raise
            return False
        return True

    return _each(pods, one, doing="removing", done="removed")


def _each(names: tuple[str, ...], operation: Callable[[str], bool], *, doing: str, done: str) -> int:
    """Does all of them, whatever becomes of one; the exit code is that of the first that failed.

    `operation` says whether there was anything to do."""
    code = 0
    pods = [pod_name(name) for name in names]
    for pod in dict.fromkeys(pods):
        with StatusLine(sys.stderr) as line:
            line.show(f"{doing} pod/{pod}")
            try:
                happened = operation(pod)
            except ApiError as error:
                line.clear()
                print_errors(error.errors)
                code = code or error.exit_code
                continue
        if happened:
            emit([f"pod/{pod} {done}"])
    return code


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@with_namespace
@pass_context
def down(context: CliContext, files: tuple[str, ...]) -> int:
    """Remove what the manifests describe; what is not there is no error.

    \b
    Examples:
      sandbox down pod.yaml
      sandbox down -n tests *.yaml
    """
    documents = read_files(files)
    body: dict[str, object] = {"files": documents}
    if context.namespace_given:
        body["namespace"] = context.namespace_given
    with StatusLine(sys.stderr) as line:
        line.show("removing")
        try:
            answer = context.client.call("POST", "/v1/down", body)
        except ApiError as error:
            line.clear()
            print_errors(error.errors, {document["name"]: document["content"] for document in documents})
            return error.exit_code
    removed = [name.split("/") for name in answer["objects"]]
    emit([f"{words[0].lower()}/{words[-1]} removed" for words in removed])
    if not removed:
        click.echo("nothing to remove", err=True)
    return 0
