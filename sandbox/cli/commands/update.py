"""`sandbox update`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sandbox.cli.complete import container_names
from sandbox.cli.context import CliContext, split_name
from sandbox.cli.options import pass_context, with_namespace, with_output
from sandbox.cli.output import emit, emit_object

F = TypeVar("F", bound=Callable[..., Any])

# option → (key of the request body, name in it, what --help says, metavar)
OPTIONS: dict[str, tuple[str, str, str, str]] = {
    "--cpu": ("limits", "cpu", "CPU limit in cores; 500m is half of one.", "CORES"),
    "--memory": ("limits", "memory", "Memory limit; not below what is in use.", "BYTES"),
    "--cpu-request": ("requests", "cpu", "Weight when CPUs are scarce.", "CORES"),
    "--memory-request": ("requests", "memory", "Memory the container asks for.", "BYTES"),
    "--cpu-burst": ("settings", "cpu-burst", "Unused CPU quota that may be saved up, at most the limit.", "CORES"),
    "--cpuset-cpus": ("settings", "cpuset-cpus", "CPUs it may run on, such as 0-2,7.", "LIST"),
    "--cpuset-mems": ("settings", "cpuset-mems", "Memory nodes it may use.", "LIST"),
    "--memory-high": ("settings", "memory-high", "From here on it is slowed down (cgroup v2), or max.", "BYTES"),
    "--memory-low": ("settings", "memory-low", "Memory that is reclaimed last.", "BYTES"),
    "--swap": ("settings", "swap", "Swap beyond the memory limit, or max.", "BYTES"),
    "--pids": ("settings", "pids", "Processes and threads, or max.", "N"),
    "--io-weight": ("settings", "io-weight", "Share of the disk, 1 to 10000; 100 is usual.", "N"),
}
# option → (key of the annotation sandbox/io, what --help says)
IO_OPTIONS: dict[str, tuple[str, str]] = {
    "--io-read-bps": ("rbps", "Bytes a second read from a disk, or max."),
    "--io-write-bps": ("wbps", "Bytes a second written to a disk, or max."),
    "--io-read-iops": ("riops", "Reads a second from a disk, or max."),
    "--io-write-iops": ("wiops", "Writes a second to a disk, or max."),
}


def _limits(function: F) -> F:
    for option, (_key, text) in reversed(IO_OPTIONS.items()):
        function = click.option(option, multiple=True, metavar="DEVICE:RATE", help=text)(function)
    for option, (_table, _name, text, metavar) in reversed(OPTIONS.items()):
        function = click.option(option, metavar=metavar, help=text)(function)
    return function


@click.command()
@click.argument("name", metavar="POD[/CONTAINER]", shell_complete=container_names)
@click.option("-c", "--container", default="", metavar="NAME", help="The container, by default the first.")
@_limits
@click.option("--timeout", type=click.FloatRange(0.001), metavar="SECONDS", help="Of the wait for a restart.")
@with_namespace
@with_output("json", "yaml", "name")
@pass_context
def update(context: CliContext, /, name: str, container: str, timeout: float | None, **values: Any) -> None:
    """Change limits of a container while it runs: all that are given, or none. Amounts are Kubernetes quantities.

    --cpu and --memory are limits; a request that equals its limit goes with it. The container is restarted only where
    its resizePolicy says RestartContainer. `sandbox run` with a changed manifest does the same.

    \b
    Examples:
      sandbox update web --cpu 1500m --memory 256Mi
      sandbox update web/server --cpu-request 250m --pids 200
      sandbox update db --io-read-bps /dev/sdb:50Mi --io-write-iops 8:16:max
    """
    pod, chosen = split_name(name, container)
    body: dict[str, Any] = {"container": chosen, **_tables(values), "timeoutSeconds": timeout}
    answer = context.client.call("PATCH", context.pod_target(pod, "resources"), body)
    if context.output in ("json", "yaml"):
        emit_object(answer["pod"], context.output)
    elif context.output == "name":
        emit([f"pod/{pod}"])
    else:
        emit([f"pod/{pod} {'resized' if answer['changes'] else 'unchanged'}", *(f"  {w}" for w in answer["changes"])])


def _tables(values: dict[str, Any]) -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = {"limits": {}, "requests": {}, "settings": {}}
    for option, (table, name, _text, _metavar) in OPTIONS.items():
        value = values[_parameter(option)]
        if value is not None:
            tables[table][name] = value
    throttles = []
    for option, (key, _text) in IO_OPTIONS.items():
        for text in values[_parameter(option)]:
            device, colon, rate = text.rpartition(":")
            if not colon or not device or not rate or set(";= \t\n") & set(text):
                raise click.BadParameter(f"{text!r} is not DEVICE:RATE, such as /dev/sdb:1Mi", param_hint=f"'{option}'")
            throttles.append(f"{device} {key}={rate}")
    if throttles:
        tables["settings"]["io"] = "; ".join(throttles)
    if not any(tables.values()):
        raise click.UsageError("there is nothing to change: name a limit, such as --memory 256Mi")
    return tables


def _parameter(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
