"""The event log, as it stands or followed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from sandbox.daemon.api.app import SERVICES, flag, integer, stream_ndjson
from sandbox.daemon.events import EventLog

routes = web.RouteTableDef()


@routes.get("/v1/events")
async def events(request: web.Request) -> web.StreamResponse:
    log = request.app[SERVICES].events
    after = integer(request.query.get("after"), "after") or 0
    return await stream_ndjson(request, log.follow(after) if flag(request, "follow") else _present(log, after))


async def _present(log: EventLog, after: int) -> AsyncIterator[dict[str, Any]]:
    for event in log.read(after):
        yield event
