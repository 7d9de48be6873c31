"""apply and down: manifests in, a stream of what becomes of the pods out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sandbox.daemon.api.app import SERVICES, background, number, protect, read_json, stream_ndjson
from sandbox.daemon.api.system import clean_if_idle
from sandbox.daemon.wiring import Services
from sandbox.errors import DaemonUnavailable, InvalidInput, NotFound, SandboxError
from sandbox.manifest import KubeObject, Manifests
from sandbox.pods.controller import AppliedPod
from sandbox.pods.status import exit_code
from sandbox.timeline import Timeline

routes = web.RouteTableDef()

WAITS = ("ready", "done", "none")
MAX_FILES = 1000
INLINE_BYTES = 32 << 10
"""Manifests up to this size are parsed in the event loop: a thread would cost more than it spares the others."""


@dataclass(frozen=True)
class ApplyRequest:
    files: tuple[tuple[str, bytes], ...]
    namespace: str
    wait: str
    timeout_s: float | None
    dry_run: bool
    remove: bool


def parse_files(body: dict[str, Any]) -> tuple[tuple[str, bytes], ...]:
    """`files` of a body. Raises InvalidInput."""
    files = body.get("files")
    if not isinstance(files, list) or not 0 < len(files) <= MAX_FILES:
        raise InvalidInput(f"files must be a list of 1 to {MAX_FILES} objects with name and content")
    for file in files:
        if (
            not isinstance(file, dict)
            or set(file) - {"name", "content"}
            or not isinstance(file.get("content"), str)
            or not isinstance(file.get("name", ""), str)
        ):
            raise InvalidInput("each of files must be an object with the texts name and content")
    return tuple((f.get("name", "") or "-", f["content"].encode("utf-8", "surrogatepass")) for f in files)


def parse_namespace(body: dict[str, Any]) -> str:
    namespace = body.get("namespace") or "default"
    if not isinstance(namespace, str):
        raise InvalidInput(f"namespace {namespace!r} is not a text")
    return namespace


def parse_apply(body: dict[str, Any]) -> ApplyRequest:
    wait = body.get("wait", "ready")
    if wait not in WAITS:
        raise InvalidInput(f"wait {wait!r} is not one of {', '.join(WAITS)}")
    for name in ("dryRun", "rm"):
        if not isinstance(body.get(name, False), bool):
            raise InvalidInput(f"{name} {body[name]!r} is not a boolean")
    if body.get("rm") and wait == "ready":
        raise InvalidInput("rm removes pods when they have ended: wait must be done or none")
    return ApplyRequest(
        files=parse_files(body),
        namespace=parse_namespace(body),
        wait=wait,
        timeout_s=number(body.get("timeoutSeconds"), "timeoutSeconds", 0.001),
        dry_run=body.get("dryRun", False),
        remove=body.get("rm", False),
    )


async def load_objects(
    services: Services, files: Sequence[tuple[str, bytes]], namespace: str, *, check: bool
) -> list[KubeObject]:
    """Raises ManifestError with every problem found; `check`: also references, and what this host has against it."""
    if sum(len(content) for _, content in files) <= INLINE_BYTES:
        manifests = Manifests(files, namespace=namespace)
    else:
        manifests = await asyncio.to_thread(Manifests, files, namespace=namespace)
    if not check:
        return manifests.check()
    objects = manifests.check(services.controller.object_keys)
    manifests.refuse(services.controller.findings(objects))
    return objects


@routes.post("/v1/apply")
async def apply(request: web.Request) -> web.StreamResponse:
    services = request.app[SERVICES]
    timeline = Timeline()
    keys = {"files", "namespace", "wait", "timeoutSeconds", "dryRun", "rm"}
    with timeline.span("validate"):
        wanted = parse_apply(await read_json(request, keys))
        objects = await load_objects(services, wanted.files, wanted.namespace, check=True)
    if wanted.dry_run:
        plans = _plans(services, objects)  # all of them before the answer begins: an error must be one
        return await stream_ndjson(request, _each(plans))
    begun = services.events.last_sequence()
    pods = await services.controller.apply(
        objects, timeline, wait=wanted.wait != "none", remove_when_done=wanted.remove
    )
    try:
        return await stream_ndjson(request, _outcome(services, wanted, pods, begun), _last_words)
    except (asyncio.CancelledError, ConnectionError):
        if wanted.remove and not services.stopping:
            background(request.app, _remove_all(services, pods))
        raise


def _plans(services: Services, objects: list[KubeObject]) -> list[dict[str, Any]]:
    plans: list[dict[str, Any]] = []
    for preview in services.controller.preview(objects):
        plan = services.runtime.sandbox_plan(preview.sandbox)
        plans.append({"type": "plan", "pod": preview.name, "container": "", "lines": plan.describe()})
        for container in preview.containers:
            plan = services.runtime.container_plan(preview.sandbox, container)
            plans.append({"type": "plan", "pod": preview.name, "container": container.name, "lines": plan.describe()})
    return [*plans, {"type": "end", "exitCode": 0}]


def _last_words(error: SandboxError) -> list[dict[str, Any]]:
    return [{"type": "error", "pod": "", "error": error.to_json()}, {"type": "end", "exitCode": error.exit_code}]


async def _each(items: Sequence[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for item in items:
        yield item


async def _outcome(
    services: Services, wanted: ApplyRequest, pods: list[AppliedPod], begun: int
) -> AsyncIterator[dict[str, Any]]:
    """Events of the pods while they are waited for, then each pod as it has become."""
    code = 0
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    tasks = [asyncio.create_task(_await_pod(services, wanted, pod, queue)) for pod in pods]
    if wanted.wait != "none":
        tasks.append(asyncio.create_task(_progress(services, pods, begun, queue)))
        tasks.append(asyncio.create_task(_await_stop(services, queue)))
    try:
        left = len(pods)
        while left > 0:
            item = await queue.get()
            if item is None:
                left -= 1
            elif item["type"] == "end":
                code = code or item["exitCode"]
                left = 0 if item.get("all") else left
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    yield {"type": "end", "exitCode": code}


async def _await_pod(
    services: Services, wanted: ApplyRequest, pod: AppliedPod, queue: asyncio.Queue[dict[str, Any] | None]
) -> None:
    """Puts what became of one pod, its exit code as an `end`, and None."""
    controller = services.controller
    try:
        if wanted.wait == "none":
            body = controller.get(pod.namespace, pod.name)
        else:
            body = await controller.wait(pod.namespace, pod.name, wanted.wait, wanted.timeout_s, uid=pod.uid)
        queue.put_nowait({"type": "pod", "pod": body})
        if wanted.wait == "done":
            queue.put_nowait({"type": "end", "exitCode": exit_code(body)})
    except SandboxError as error:
        queue.put_nowait({"type": "error", "pod": pod.name, "error": error.to_json()})
        queue.put_nowait({"type": "end", "exitCode": error.exit_code})
    finally:
        queue.put_nowait({"type": "timeline", "pod": pod.name, "spans": pod.timeline.to_json()})
        queue.put_nowait(None)


async def _await_stop(services: Services, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
    """Ends all waiting when the daemon is asked to stop."""
    await services.stop_requested()
    error = DaemonUnavailable("the daemon was stopped; the pods go on", operation="wait")
    queue.put_nowait({"type": "error", "pod": "", "error": error.to_json()})
    queue.put_nowait({"type": "end", "exitCode": error.exit_code, "all": True})


async def _progress(
    services: Services, pods: list[AppliedPod], begun: int, queue: asyncio.Queue[dict[str, Any] | None]
) -> None:
    ours = {(pod.namespace, pod.name) for pod in pods}
    async for event in services.events.follow(begun):
        subject = event["object"]
        if (subject["namespace"], subject["name"]) in ours:
            queue.put_nowait({"type": "progress", "pod": subject["name"], "message": event["message"]})


async def _remove_all(services: Services, pods: list[AppliedPod]) -> None:
    async def remove(pod: AppliedPod) -> None:
        try:
            await services.controller.delete(pod.namespace, pod.name)
        except NotFound:
            return  # it has ended and was removed already

    await asyncio.gather(*map(remove, pods), return_exceptions=True)


@routes.post("/v1/down")
async def down(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    body = await read_json(request, {"files", "namespace", "graceSeconds"})
    grace_s = number(body.get("graceSeconds"), "graceSeconds")
    objects = await load_objects(services, parse_files(body), parse_namespace(body), check=False)
    gone = await protect(request, services.controller.down(objects, grace_s=grace_s))
    pods = [name.rpartition("/")[2] for name in gone if name.startswith("Pod/")]
    await protect(request, clean_if_idle(services))
    return web.json_response({"removed": pods, "objects": gone})
