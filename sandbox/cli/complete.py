"""Completion of names that only the daemon knows. Silent and quick: no daemon, no suggestions."""

from __future__ import annotations

from typing import Any

import click

from sandbox.cli.client import ApiError, target
from sandbox.cli.context import CliContext
from sandbox.cli.options import NAMESPACE_KEY
from sandbox.errors import SandboxError


def _get(ctx: click.Context, path: str) -> dict[str, Any]:
    client = _context(ctx).client
    try:
        connection = client.connect()
        connection.settimeout(1.0)
        with client.request("GET", path, connection=connection) as response:
            answer = response.json()
    except (SandboxError, ApiError, OSError, ValueError):
        return {}  # a prompt is no place for errors
    return answer if isinstance(answer, dict) else {}


def _context(ctx: click.Context) -> CliContext:
    found = ctx.find_object(CliContext)
    if found is not None:
        return found
    # While completing, click parses the options but does not call the root command that makes the object.
    options = ctx.find_root().params
    namespace = ctx.meta.get(NAMESPACE_KEY) or options.get("namespace")
    return CliContext(options.get("root"), options.get("run_dir"), namespace, None)


def _pods(ctx: click.Context) -> list[dict[str, Any]]:
    path = target("v1", "pods", query=[("namespace", _context(ctx).namespace), ("all", 1)])
    return list(_get(ctx, path).get("items", []))


def pod_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    given = {value for values in ctx.params.values() if isinstance(values, tuple) for value in values}
    names = [pod["metadata"]["name"] for pod in _pods(ctx)]
    return [name for name in names if name.startswith(incomplete) and name not in given]


def container_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """POD first, then POD/CONTAINER once the pod is written out."""
    pods = {pod["metadata"]["name"]: pod for pod in _pods(ctx)}
    pod, slash, rest = incomplete.partition("/")
    if not slash and (incomplete not in pods):
        matching = [name for name in pods if name.startswith(incomplete)]
        if len(matching) != 1:
            return matching
        pod, rest = matching[0], ""
    names = [container["name"] for container in pods[pod]["spec"].get("containers", [])] if pod in pods else []
    if not slash:
        return [pod, *(f"{pod}/{name}" for name in names if len(names) > 1)]
    return [f"{pod}/{name}" for name in names if name.startswith(rest)]


def image_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    items = _get(ctx, target("v1", "images")).get("items", [])
    return [name for image in items for name in image.get("names", []) if name.startswith(incomplete)]
