"""Version and shutdown."""

from __future__ import annotations

import os
from contextlib import suppress

from aiohttp import web

import sandbox
from sandbox.daemon.api.app import SERVICES, protect, read_json
from sandbox.daemon.events import timestamp
from sandbox.daemon.wiring import Services
from sandbox.errors import Conflict, DeadlineExceeded, InvalidInput

routes = web.RouteTableDef()


@routes.get("/v1/version")
async def version(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    return web.json_response(
        {
            "version": sandbox.__version__,
            "api": "v1",
            "pid": os.getpid(),
            "root": str(services.config.root),
            "runDir": str(services.config.run_dir),
            "cgroups": services.cgroups.mode,
            "startedAt": timestamp(services.started_ns),
        }
    )


@routes.post("/v1/shutdown")
async def shutdown(request: web.Request) -> web.Response:
    """Stops the daemon; pods keep running. With `clean` there must be none: what they share goes too."""
    services = request.app[SERVICES]
    body = await read_json(request, {"clean"})
    if not isinstance(body.get("clean", False), bool):
        raise InvalidInput(f"clean {body['clean']!r} is not a boolean")
    if body.get("clean"):
        await protect(request, _clean(services))
    response = web.json_response({"pid": os.getpid()})
    await response.prepare(request)
    await response.write_eof()
    services.request_stop()
    return response


async def _clean(services: Services) -> None:
    """Takes off the host what pods share and none owns: bridges with their rules, the cgroup above all pods.

    Idempotent. Raises Conflict while there are pods.
    """
    pods = services.controller.list(None)
    if pods:
        names = sorted(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods)
        raise Conflict(
            f"{len(pods)} pods are there, such as {names[0]}",
            operation="clean the host",
            subject=names[0],
            hint="remove them with `sandbox rm -f`",
        )
    await clean_if_idle(services)


async def clean_if_idle(services: Services) -> None:
    """Nothing while there are pods; a pod that comes meanwhile keeps what it needs, and so does another daemon that
    shares the cgroup. Idempotent."""
    if services.runtime.list_pod_sandboxes() or services.controller.list(None):
        return
    await services.network.remove_unused()
    if services.runtime.list_pod_sandboxes() or services.controller.list(None):
        return
    with suppress(DeadlineExceeded):
        await services.cgroups.remove(services.config.cgroup_parent, timeout=0)
