"""Pods: list, get, describe, stop, delete."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sandbox.daemon.api.app import SERVICES, flag, number, protect, read_json
from sandbox.daemon.api.targets import pod_of
from sandbox.daemon.wiring import Services
from sandbox.errors import SandboxError

routes = web.RouteTableDef()

ENDED = ("Succeeded", "Failed")
POD = "/v1/namespaces/{namespace}/pods/{name}"


def _key(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


@routes.get("/v1/pods")
async def list_pods(request: web.Request) -> web.Response:
    pods = request.app[SERVICES].controller.list(request.query.get("namespace") or None)
    if not flag(request, "all"):
        pods = [pod for pod in pods if pod["status"]["phase"] not in ENDED]
    return web.json_response({"apiVersion": "v1", "kind": "List", "items": pods})


@routes.get(POD)
async def get(request: web.Request) -> web.Response:
    return web.json_response(pod_of(request))


@routes.get(POD + "/describe")
async def describe(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    namespace, name = _key(request)
    answer = services.controller.describe(namespace, name)
    for container in answer["runtime"]["containers"]:
        container |= _root_file_system(services, answer["runtime"].get("podSandboxId", ""), container)
    return web.json_response({**answer, "events": services.events.read(namespace=namespace, name=name)})


def _root_file_system(services: Services, pod_sandbox_id: str, container: dict[str, Any]) -> dict[str, Any]:
    """Where the container's files are on the host: its own changes, and the layers below, lowest first."""
    if not container.get("imageId"):
        return {}
    directory = services.config.root / "pods" / pod_sandbox_id / "containers" / container["containerId"]
    try:
        layers = list(services.images.resolve(container["imageId"]).layers)
    except SandboxError:
        layers = []  # the image was removed by force; the container keeps what it has mounted
    return {"upper": str(directory / "upper"), "layers": layers}


@routes.post(POD + "/stop")
async def stop(request: web.Request) -> web.Response:
    controller = request.app[SERVICES].controller
    body = await read_json(request, {"graceSeconds"})
    grace_s = number(body.get("graceSeconds"), "graceSeconds")
    await protect(request, controller.stop(*_key(request), grace_s))
    return web.json_response(controller.get(*_key(request)))


@routes.delete(POD)
async def delete(request: web.Request) -> web.Response:
    controller = request.app[SERVICES].controller
    grace_s = number(request.query.get("graceSeconds"), "graceSeconds")
    await protect(request, controller.delete(*_key(request), force=flag(request, "force"), grace_s=grace_s))
    return web.json_response({"removed": ["/".join(_key(request))]})
