"""The web application: routes, the one place where errors become responses, and what handlers share."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from aiohttp import web

from sandbox.daemon.wiring import Services
from sandbox.errors import Forbidden, InvalidInput, ManifestError, NotFound, SandboxError

logger = logging.getLogger("sandbox.api")

SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
TASKS = web.AppKey("tasks", set[asyncio.Task[Any]])
_PEER_CREDENTIALS = struct.Struct("=iII")

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(services: Services) -> web.Application:
    """The application; `services` belong to the caller."""
    from sandbox.daemon.api import apply, events, exec, images, logs, pods, resources, stats, system

    app = web.Application(
        middlewares=[check_peer, errors_to_responses], client_max_size=services.config.request_max_bytes
    )
    app[SERVICES] = services
    app[TASKS] = set()
    for module in (system, apply, pods, resources, logs, exec, stats, events, images):
        app.router.add_routes(module.routes)
    app.on_shutdown.append(_finish_tasks)
    return app


async def _finish_tasks(app: web.Application) -> None:
    """What was begun is finished: a stop of the daemon must not leave an operation half done where it can be helped."""
    tasks = app[TASKS]
    if tasks:
        await asyncio.wait(tasks, timeout=10.0)


@web.middleware
async def check_peer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only root and the daemon's own user may speak, whatever the socket file's mode became (SO_PEERCRED, unix(7))."""
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None:
        raise web.HTTPForbidden(text="connection lost")
    size = _PEER_CREDENTIALS.size
    _pid, uid, _gid = _PEER_CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid not in (0, os.geteuid()):
        return error_response(Forbidden(f"user {uid} may not use this daemon", operation="authorize"))
    return await handler(request)


@web.middleware
async def errors_to_responses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one mapping from exceptions to status and body."""
    try:
        return await handler(request)
    except ManifestError as error:
        return error_response(*error.errors)
    except SandboxError as error:
        return error_response(error)
    except web.HTTPException as error:
        return error_response(_from_http(request, error), status=error.status)
    except ConnectionError:
        raise
    except Exception as error:
        return error_response(_expected(request, error))


def _expected(request: web.Request, error: Exception) -> SandboxError:
    """The error as a client is told of it. One that nobody foresaw is logged with its traceback."""
    if isinstance(error, SandboxError):
        return error
    logger.error("request failed", exc_info=error, extra={"fields": {"method": request.method, "path": request.path}})
    return SandboxError(f"internal error: {error!r}", operation=request.method, subject=request.path)


def _from_http(request: web.Request, error: web.HTTPException) -> SandboxError:
    """The library's own refusals (unknown path, body too large) in our words."""
    if error.status == 404:
        return NotFound(f"no such path {request.path!r}", operation=request.method, subject=request.path)
    if error.status == 413:
        limit = request.app[SERVICES].config.request_max_bytes
        return InvalidInput(f"the request body is larger than {limit} bytes", operation=request.method)
    return InvalidInput(error.reason.lower(), operation=request.method, subject=request.path)


def error_response(first: SandboxError, *others: SandboxError, status: int = 0) -> web.Response:
    body: dict[str, Any] = {"error": first.to_json()}
    if others:
        body["errors"] = [error.to_json() for error in (first, *others)]
    return web.json_response(body, status=status or first.http_status)


async def read_json(request: web.Request, known: set[str]) -> dict[str, Any]:
    """The request's JSON object, {} for an empty body. Raises InvalidInput when it is not one or has unknown keys."""
    data = await request.read()
    if not data.strip():
        return {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the request body is not JSON: {error}", operation=request.method) from error
    if not isinstance(body, dict):
        raise InvalidInput("the request body is not a JSON object", operation=request.method)
    unknown = sorted(set(body) - known)
    if unknown:
        raise InvalidInput(
            f"unknown field {unknown[0]!r} in the request body",
            operation=request.method,
            hint=f"known are {', '.join(sorted(known))}",
        )
    return body


def flag(request: web.Request, name: str) -> bool:
    """A boolean query parameter: absent, 0 and false are False; 1, true and empty (`?follow`) are True."""
    value = request.query.get(name, "0").lower()
    if value in ("", "1", "true"):
        return True
    if value in ("0", "false"):
        return False
    raise InvalidInput(f"query parameter {name}={value!r} is not a boolean", operation=request.method)


def number(value: Any, name: str, low: float = 0, high: float = 1e9) -> float | None:
    """A number of a query or body, None when absent or null."""
    if value is None:
        return None
    try:
        parsed = float(value)
    except (TypeError, ValueError):
        parsed = float("nan")
    if isinstance(value, bool) or not low <= parsed <= high:
        raise InvalidInput(f"{name} {value!r} is not a number between {low:g} and {high:g}")
    return parsed


def integer(value: Any, name: str, low: int = 0, high: int = 1 << 62) -> int | None:
    """A whole number of a query or body, None when absent or null."""
    if value is None:
        return None
    try:
        parsed = int(value)
    except (TypeError, ValueError):
        parsed = low - 1
    if isinstance(value, bool | float) or not low <= parsed <= high:
        raise InvalidInput(f"{name} {value!r} is not a whole number between {low} and {high}")
    return parsed


async def protect(request: web.Request, operation: Coroutine[Any, Any, T]) -> T:
    """Awaits `operation`, which goes on to its end also when the client goes away or the daemon is asked to stop."""
    return await asyncio.shield(background(request.app, operation))


def background(app: web.Application, operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Runs `operation` as a task that the application keeps and, at its end, reports when nobody awaited it."""
    task = asyncio.get_running_loop().create_task(operation)
    app[TASKS].add(task)
    task.add_done_callback(app[TASKS].discard)
    return task


LastWords = Callable[[SandboxError], Sequence[dict[str, Any]]]


async def stream_ndjson(
    request: web.Request, items: AsyncIterator[dict[str, Any]], last_words: LastWords | None = None
) -> web.StreamResponse:
    """One JSON object a line, as they come.

    When `items` fails, its status has been sent: the error becomes the lines that `last_words` makes of it, or, where
    the stream has no form for errors, the connection is cut, so that nobody takes what came for the whole.
    """
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        async for item in items:
            await _write_line(response, item)
    except ConnectionError:
        raise
    except Exception as failure:
        if last_words is None:
            raise cut_off(request, failure) from failure
        for item in last_words(_expected(request, failure)):
            await _write_line(response, item)
    await response.write_eof()
    return response


def cut_off(request: web.Request, error: Exception) -> ConnectionAbortedError:
    """To be raised where a response that has begun cannot go on: an error response inside of it would be garbage."""
    return ConnectionAbortedError(str(_expected(request, error)))


async def _write_line(response: web.StreamResponse, item: dict[str, Any]) -> None:
    await response.write(json.dumps(item, separators=(",", ":")).encode() + b"\n")
