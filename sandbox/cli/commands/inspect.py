"""`sandbox inspect`."""

from __future__ import annotations

from typing import Any

import click

from sandbox.cli.complete import container_names
from sandbox.cli.context import CliContext, split_name
from sandbox.cli.options import pass_context, with_namespace, with_output
from sandbox.cli.output import emit_object
from sandbox.errors import NotFound


@click.command()
@click.argument("name", metavar="POD[/CONTAINER]", shell_complete=container_names)
@with_namespace
@with_output("json", "yaml")
@pass_context
def inspect(context: CliContext, name: str) -> None:
    """Show everything known of a pod or of one of its containers: the Kubernetes object, its events, and what stands
    behind it in the kernel (pids, network namespace, cgroups, root file system, log files).

    \b
    Examples:
      sandbox inspect web
      sandbox inspect web/server -o yaml
      sandbox inspect web | jq .runtime.netns
    """
    pod, container = split_name(name)
    answer = context.client.get(context.pod_target(pod, "describe"))
    emit_object(_container(answer, pod, container) if container else answer, context.output or "json")


def _container(answer: dict[str, Any], pod: str, name: str) -> dict[str, Any]:
    """The parts of the answer that are about one container."""
    spec, status = answer["pod"]["spec"], answer["pod"].get("status", {})
    kinds = ("containers", "initContainers", "ephemeralContainers")
    specs = {s["name"]: s for kind in kinds for s in spec.get(kind) or ()}
    if name not in specs:
        raise NotFound(f"pod {pod!r} has no container {name!r}", hint=f"its containers are {', '.join(specs)}")
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    statuses = {s["name"]: s for kind in kinds for s in status.get(kind) or ()}
    return {
        "spec": specs[name],
        "status": statuses.get(name),
        "runtime": _named((answer.get("runtime") or {}).get("containers"), name),
        "events": [e for e in answer.get("events") or () if e.get("object", {}).get("container") == name],
    }


def _named(containers: Any, name: str) -> Any:
    if isinstance(containers, dict):
        return containers.get(name)
    return next((c for c in containers or () if c.get("name") == name), None)
