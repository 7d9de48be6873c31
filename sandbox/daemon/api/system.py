"""Version and shutdown."""

from __future__ import annotations

import os

from aiohttp import web

import sandbox
from sandbox.daemon.api.app import SERVICES
from sandbox.daemon.events import timestamp

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
    """The daemon stops after this answer; pods keep running."""
    services = request.app[SERVICES]
    response = web.json_response({"pid": os.getpid()})
    await response.prepare(request)
    await response.write_eof()
    services.request_stop()
    return response
