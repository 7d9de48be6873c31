"""exec and attach over WebSocket, in Kubernetes' remote command protocol (k8s.io/apimachinery `remotecommand`).

Subprotocol v5.channel.k8s.io: the first byte of each binary message is the channel. 0 stdin, 1 stdout, 2 stderr, 3 the
final status as JSON, 4 terminal size as JSON; 255 closes the channel whose number follows.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from sandbox.daemon.api.app import SERVICES, background, flag, integer
from sandbox.daemon.api.pump import Ending, copy_out, write_all
from sandbox.daemon.api.targets import pod_of, target_of
from sandbox.errors import InvalidInput, SandboxError
from sandbox.runtime.sessions import Session

logger = logging.getLogger("sandbox.api")
routes = web.RouteTableDef()

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
MAX_MESSAGE_BYTES = 1 << 20
MAX_COMMAND_BYTES = 128 << 10
HEARTBEAT_S = 30.0
LINGER_S = 1.0
"""How long output may stay silent after the process has ended, when another process holds it open."""


@dataclass(frozen=True)
class Streams:
    """A session as the socket sees it. `exit_code` returns when the process has ended; None: the outputs' end is all
    there is to wait for. `abandoned` is awaited when the client went away first."""

    session: Session
    end_of_input: Callable[[], Coroutine[Any, Any, None]]
    exit_code: Callable[[], Coroutine[Any, Any, int]] | None = None
    abandoned: Callable[[], Coroutine[Any, Any, None]] | None = None

    @property
    def input_fd(self) -> int | None:
        return self.session.stdin_fd if self.session.terminal_fd is None else self.session.terminal_fd

    @property
    def outputs(self) -> list[tuple[int, int]]:
        """(channel, descriptor). The terminal of an exec is its output; an attach has pipes besides."""
        session = self.session
        stdout = session.terminal_fd if session.stdout_fd is None else session.stdout_fd
        return [(channel, fd) for channel, fd in ((STDOUT, stdout), (STDERR, session.stderr_fd)) if fd is not None]


@routes.get("/v1/namespaces/{namespace}/pods/{name}/exec")
async def exec_(request: web.Request) -> web.StreamResponse:
    runtime = request.app[SERVICES].runtime
    command = request.query.getall("command", [])
    if not command or not command[0]:
        raise InvalidInput("query parameter command is missing", operation="exec")
    if sum(len(word) + 1 for word in command) > MAX_COMMAND_BYTES or any("\0" in word for word in command):
        raise InvalidInput("the command is too long or has a NUL byte", operation="exec")
    container = target_of(pod_of(request), request.query.get("container", "")).running_id()
    socket = check_websocket(request)
    session = await runtime.exec(
        container,
        tuple(command),
        tty=flag(request, "tty"),
        stdin=flag(request, "stdin"),
        rows=integer(request.query.get("rows"), "rows", 0, 65535) or 0,
        columns=integer(request.query.get("cols"), "cols", 0, 65535) or 0,
    )

    async def end_of_input() -> None:
        session.close_stdin()

    streams = Streams(session, end_of_input, session.wait, lambda: runtime.kill_exec(container, session))
    return await serve(request, socket, streams)


@routes.get("/v1/namespaces/{namespace}/pods/{name}/attach")
async def attach(request: web.Request) -> web.StreamResponse:
    runtime = request.app[SERVICES].runtime
    container = target_of(pod_of(request), request.query.get("container", "")).running_id()
    socket = check_websocket(request)
    session = await runtime.attach(container, stdin=flag(request, "stdin"))
    return await serve(request, socket, Streams(session, lambda: runtime.end_of_input(container, session)))


def check_websocket(request: web.Request) -> web.WebSocketResponse:
    """The response to be prepared. Raises InvalidInput when the request is no WebSocket upgrade to our protocol."""
    socket = web.WebSocketResponse(
        protocols=(PROTOCOL,), max_msg_size=MAX_MESSAGE_BYTES, heartbeat=HEARTBEAT_S, compress=False
    )
    ready = socket.can_prepare(request)
    if not ready.ok or ready.protocol != PROTOCOL:
        raise InvalidInput(
            f"{request.path} is a WebSocket with subprotocol {PROTOCOL}", operation=request.method, subject=request.path
        )
    return socket


async def serve(request: web.Request, socket: web.WebSocketResponse, streams: Streams) -> web.StreamResponse:
    """Carries a session over the socket until the process has ended and its output is sent. Closes the session."""
    sockets = request.app[SERVICES].sockets
    completed = False
    try:
        await socket.prepare(request)
        sockets.add(socket)
        status = await _carry(socket, streams)
        completed = True
        await socket.send_bytes(bytes([STATUS]) + json.dumps(status).encode())
        await socket.close()
    except (ConnectionError, RuntimeError) as error:
        logger.debug("session ended by the client: %s", error)
    finally:
        sockets.discard(socket)
        if not completed and streams.abandoned is not None:
            background(request.app, streams.abandoned())
        streams.session.close()
    return socket


async def _carry(socket: web.WebSocketResponse, streams: Streams) -> dict[str, Any]:
    """The final status. Raises ConnectionResetError when the client went away first."""
    ending = Ending(LINGER_S)
    outputs = [asyncio.create_task(copy_out(fd, socket, channel, ending)) for channel, fd in streams.outputs]
    exited = asyncio.create_task(_exit_code(streams, ending))
    incoming = asyncio.create_task(_receive(socket, streams))
    finished = asyncio.gather(exited, *outputs)
    try:
        await asyncio.wait((finished, incoming), return_when=asyncio.FIRST_COMPLETED)
        if not finished.done():
            raise ConnectionResetError("the client went away")
        await finished
        return status_json(exited.result())
    except SandboxError as error:
        return {"metadata": {}, "status": "Failure", "reason": error.reason, "message": str(error)}
    finally:
        finished.cancel()
        incoming.cancel()
        await asyncio.gather(*outputs, exited, incoming, finished, return_exceptions=True)


async def _exit_code(streams: Streams, ending: Ending) -> int:
    if streams.exit_code is None:
        return 0
    try:
        return await streams.exit_code()
    finally:
        ending.set()


def status_json(code: int) -> dict[str, Any]:
    """Kubernetes' Status for an exit code."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def _receive(socket: web.WebSocketResponse, streams: Streams) -> None:
    """Input and terminal sizes, until the client goes away."""
    open_input = streams.input_fd is not None
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == STDIN and open_input and streams.input_fd is not None:
            try:
                await write_all(streams.input_fd, data)
            except OSError:  # the process has closed its input: what it does not read is dropped, as in a pipeline
                open_input = False
        elif channel == RESIZE:
            with suppress(ValueError, KeyError, TypeError, OSError):  # a size that is none changes nothing
                size = json.loads(data)
                streams.session.resize(_dimension(size["Height"]), _dimension(size["Width"]))
        elif channel == CLOSE and data[:1] == bytes([STDIN]) and streams.session.terminal_fd is None and open_input:
            open_input = False
            await streams.end_of_input()


def _dimension(value: Any) -> int:
    if not isinstance(value, int) or not 0 < value < 65536:
        raise ValueError(value)
    return value
