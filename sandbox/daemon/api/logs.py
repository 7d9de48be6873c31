"""Container logs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from sandbox.daemon.api.app import SERVICES, cut_off, flag, integer
from sandbox.daemon.api.targets import Target, log_directory, pod_of, target_of
from sandbox.daemon.log_stream import LogOptions, attempts, follow_log, read_log
from sandbox.daemon.wiring import Services
from sandbox.errors import Conflict, InvalidInput, NotFound

routes = web.RouteTableDef()

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


@routes.get("/v1/namespaces/{namespace}/pods/{name}/log")
async def log(request: web.Request) -> web.StreamResponse:
    """stdout and stderr as the container wrote them, interleaved by line."""
    services = request.app[SERVICES]
    target = target_of(pod_of(request), request.query.get("container", ""))
    previous = flag(request, "previous")
    options = LogOptions(
        tail=integer(request.query.get("tail"), "tail"),
        since=parse_since(request.query.get("since", "")),
        timestamps=flag(request, "timestamps"),
    )
    directory = log_directory(services.config.root, target.pod, target.name)
    attempt = choose_attempt(target, attempts(directory), previous=previous)
    if flag(request, "follow") and not previous:
        stream = follow_log(directory, attempt, options, services.watcher, _finished(services, target))
    else:
        stream = read_log(directory, attempt, options)
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    prepared = False
    try:
        async for block in stream:
            if not prepared:
                await response.prepare(request)
                prepared = True
            await response.write(block)
    except ConnectionError:
        raise
    except Exception as error:
        if not prepared:
            raise
        raise cut_off(request, error) from error
    finally:
        await stream.aclose()
    if not prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


def choose_attempt(target: Target, present: list[int], *, previous: bool) -> int:
    """The attempt to show, as kubectl chooses; `present` are those with a log file.

    While a container backs off, the instance that ended last is both the present and the previous one. Raises NotFound
    or Conflict where there is none.
    """
    pod = target.pod["metadata"]["name"]
    attempt = target.status.get("restartCount", 0)
    if previous:
        last = (target.status.get("lastState") or {}).get("terminated")
        backing_off = last is not None and "waiting" in target.state and _same_instance(last, target.status)
        attempt = attempt if backing_off else attempt - 1
        if last is None or attempt not in present:
            raise NotFound(f"container {target.name!r} of pod {pod!r} has no previous instance", subject=target.name)
        return int(attempt)
    shown = [number for number in present if number <= attempt]
    if not shown:
        reason = (target.state.get("waiting") or {}).get("reason") or "not started"
        raise Conflict(f"container {target.name!r} of pod {pod!r} has no log yet: {reason}", subject=target.name)
    return shown[-1]


def _same_instance(terminated: dict[str, Any], status: dict[str, Any]) -> bool:
    return bool(terminated.get("containerID")) and terminated["containerID"] == status.get("containerID")


def _finished(services: Services, target: Target) -> Callable[[], bool]:
    """Asked again and again by a follower: has the container ended for good, is the pod gone, does the daemon stop?"""
    metadata = target.pod["metadata"]
    key = metadata["namespace"], metadata["name"]
    seen: tuple[int, bool] = (-1, False)

    def finished() -> bool:
        nonlocal seen
        if seen[0] != services.changes[key]:
            seen = (services.changes[key], _ended())
        return services.stopping or seen[1]

    def _ended() -> bool:
        try:
            pod = services.controller.get(*key)
        except NotFound:
            return True
        return pod["metadata"]["uid"] != metadata["uid"] or target_of(pod, target.name).ended_for_good

    return finished


def parse_since(text: str) -> str:
    """RFC 3339, seconds, or a duration such as 1h30m, as RFC 3339 in UTC; empty stays empty."""
    if not text:
        return ""
    match = _DURATION.fullmatch(text)
    if match and any(match.groups()):
        days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
        moment = time.time() - (((days * 24 + hours) * 60 + minutes) * 60 + seconds)
        return _utc(max(0.0, moment))
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            f"since {text!r} is neither a time nor a duration", hint="such as 2026-01-31T12:00:00Z, 90 or 1h30m"
        ) from error
    if parsed.tzinfo is None:
        raise InvalidInput(f"since {text!r} has no time zone", hint="append Z for UTC")
    return parsed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _utc(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (OverflowError, ValueError) as error:
        raise InvalidInput(f"since {seconds} seconds is out of range") from error
