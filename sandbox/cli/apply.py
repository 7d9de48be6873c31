"""What `sandbox run` does once its command line is understood."""

from __future__ import annotations

import sys

from sandbox.cli.client import ApiError, Client
from sandbox.cli.context import CliContext
from sandbox.cli.manifests import read_files
from sandbox.cli.output import emit, emit_object, kind_list
from sandbox.cli.podview import addresses_of, status_of
from sandbox.cli.progress import StatusLine
from sandbox.cli.report import print_errors
from sandbox.cli.start import client_with_daemon
from sandbox.cli.style import clean, style, width

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Outcome:
    """What the stream of one apply has told so far."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources
        self.pods: dict[str, dict[str, Any]] = {}
        self.timelines: list[tuple[str, list[Any]]] = []
        self.plans: list[dict[str, Any]] = []
        self.exit_code: int | None = None
        self.failed = False


def apply(
    context: CliContext,
    files: Sequence[str],
    *,
    wait: str = "ready",
    timeout: float | None = None,
    rm: bool = False,
    dry_run: bool = False,
    timeline: bool = False,
) -> int:
    """Sends the manifests, shows what becomes of them, returns the exit code. Raises SandboxError, ApiError."""
    documents = read_files(files)
    body = {
        "files": documents,
        "wait": wait,
        "timeoutSeconds": timeout,
        "dryRun": dry_run,
        "rm": rm,
    }
    if context.namespace_given:
        body["namespace"] = context.namespace_given
    outcome = Outcome({document["name"]: document["content"] for document in documents})
    client = client_with_daemon(context)
    try:
        _follow(client, body, outcome)
    except ApiError as error:
        print_errors(error.errors, outcome.sources)
        return error.exit_code
    except KeyboardInterrupt:
        if not dry_run:
            gone = "the daemon removes the pods" if rm else "the pods go on; see `sandbox ps -a`"
            print(f"interrupted: {gone}", file=sys.stderr)
        raise
    _print(context, outcome, str(body["wait"]), timeline=timeline)
    if outcome.exit_code is None:
        print_errors(
            [{"message": "the daemon ended before the request was done", "hint": "see daemon.log below --root"}]
        )
        return 1
    return outcome.exit_code


def _follow(client: Client, body: dict[str, Any], outcome: Outcome) -> None:
    """Reads the stream to its end; progress is shown on a terminal, errors at once."""
    with client.request("POST", "/v1/apply", body, stream=True) as response, StatusLine(sys.stderr) as line:
        for event in response.events():
            kind = event.get("type")
            if kind == "progress":
                line.show(f"pod/{event['pod']}: {event['message']}")
            elif kind == "pod":
                metadata = event["pod"]["metadata"]
                outcome.pods[f"{metadata['namespace']}/{metadata['name']}"] = event["pod"]
            elif kind == "timeline":
                outcome.timelines.append((event["pod"], event["spans"]))
            elif kind == "plan":
                outcome.plans.append(event)
            elif kind == "error":
                line.clear()
                outcome.failed = True
                print_errors([_about(event)], outcome.sources)
            elif kind == "end":
                outcome.exit_code = int(event["exitCode"])


def _about(event: dict[str, Any]) -> dict[str, Any]:
    """The error of one pod among several: its sentence says whose it is."""
    error, pod = event["error"], event.get("pod")
    if not pod or pod in error["message"].replace("/", " ").replace("'", " ").split():
        return dict(error)
    return {**error, "message": f"pod/{pod}: {error['message']}"}


def _print(context: CliContext, outcome: Outcome, wait: str, *, timeline: bool) -> None:
    pods = list(outcome.pods.values())
    if context.output in ("json", "yaml"):
        value = pods[0] if len(pods) == 1 else kind_list(pods)
        if timeline:
            spans = [{"pod": pod, "spans": spans} for pod, spans in outcome.timelines]
            value = {**kind_list(pods), "timelines": spans}
        emit_object(value, context.output)
        return
    for plan in outcome.plans:
        title = f"pod/{plan['pod']}" + (f" container {plan['container']}" if plan.get("container") else "")
        emit([style(title, bold=True), *(f"  {clean(step)}" for step in plan["lines"])])
    if context.output == "name":
        emit([f"pod/{pod['metadata']['name']}" for pod in pods])
        return
    if not outcome.plans:
        emit([_summary(pod, wait) for pod in pods])
    if timeline:
        from sandbox.cli.gantt import bars

        for pod, spans in outcome.timelines:
            emit(bars(pod, spans, width()))


def _summary(pod: dict[str, Any], wait: str) -> str:
    """kubectl's kind of line: what became of the pod."""
    name = f"pod/{pod['metadata']['name']}"
    phase = pod.get("status", {}).get("phase", "")
    if phase in ("Succeeded", "Failed"):
        reason = status_of(pod)
        word = style(phase.lower(), "green" if phase == "Succeeded" else "red")
        return f"{name} {word}" + (f" ({reason})" if reason not in ("Completed", phase) else "")
    conditions = pod.get("status", {}).get("conditions") or ()
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    if ready:
        return f"{name} {style('ready', 'green')}  {addresses_of(pod)}"
    return f"{name} created" if wait == "none" else f"{name} {style('not ready', 'yellow')} ({status_of(pod)})"
