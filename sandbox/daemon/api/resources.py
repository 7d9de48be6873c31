"""New limits for a container that runs."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sandbox.daemon.api.app import SERVICES, number, protect, read_json
from sandbox.daemon.api.pods import POD
from sandbox.daemon.api.targets import pod_of, target_of
from sandbox.errors import InvalidInput
from sandbox.pods.resize import Patch

routes = web.RouteTableDef()

KEYS = {"container", "limits", "requests", "settings", "timeoutSeconds"}


def parse_patch(body: dict[str, Any], pod: dict[str, Any]) -> Patch:
    """Raises InvalidInput; NotFound for a container that the pod has not."""
    container = body.get("container") or ""
    if not isinstance(container, str):
        raise InvalidInput(f"container {container!r} is not a text")
    tables = [_texts(body, name) for name in ("limits", "requests", "settings")]
    if not any(tables):
        raise InvalidInput("there is nothing to change: limits, requests and settings are empty", operation="resize")
    return Patch(target_of(pod, container).name, *tables)


def _texts(body: dict[str, Any], name: str) -> dict[str, str]:
    table = body.get(name) or {}
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise InvalidInput(f'{name} must be an object of texts, such as {{"cpu": "500m"}}')
    return table


@routes.patch(POD + "/resources")
async def update(request: web.Request) -> web.Response:
    """Answers when the new limits bind, also after a restart that a resizePolicy wants."""
    controller = request.app[SERVICES].controller
    body = await read_json(request, KEYS)
    timeout_s = number(body.get("timeoutSeconds"), "timeoutSeconds", 0.001)
    patch = parse_patch(body, pod_of(request))
    key = request.match_info["namespace"], request.match_info["name"]
    changes = await protect(request, controller.resize(*key, patch))
    return web.json_response({"pod": await controller.wait(*key, "resized", timeout_s), "changes": changes})
