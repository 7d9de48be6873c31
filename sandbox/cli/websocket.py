"""A session with a process in a container: Kubernetes' remote command protocol over a WebSocket (wsproto).

Subprotocol v5.channel.k8s.io: the first byte of each binary message is its channel. 0 stdin, 1 stdout, 2 stderr, 3 the
final status as JSON, 4 the terminal's size as JSON; 255 closes the channel whose number follows.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.utilities import RemoteProtocolError

from sandbox.cli.client import ApiError
from sandbox.errors import DaemonUnavailable

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
BLOCK_BYTES = 32 << 10
MAX_REFUSAL_BYTES = 1 << 20
MAX_STATUS_BYTES = 1 << 20


class RemoteProcess:
    """Carries descriptors to and from a process until it ends. Takes over `connection`; borrows every descriptor."""

    def __init__(self, connection: socket.socket, request_target: str) -> None:
        self._socket = connection
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._outgoing = bytearray()
        self._parts = bytearray()
        self._refusal = bytearray()
        self._refused = 0
        self._accepted = False
        self._closed = False
        self._status: dict[str, Any] | None = None
        self._socket.setblocking(False)
        request = Request(host="sandbox", target=request_target, subprotocols=[PROTOCOL])
        self._outgoing += self._protocol.send(request)

    def close(self) -> None:
        self._socket.close()

    def run(
        self,
        stdin: int | None,
        stdout: int,
        stderr: int,
        *,
        terminal_size: Callable[[], tuple[int, int]] | None = None,
        wakeup: int | None = None,
        detach: Callable[[bytes], bytes | None] | None = None,
    ) -> dict[str, Any] | None:
        """Returns the final status. Input goes through `detach` first; when that returns None, so does this.

        Sends the size of the terminal (rows, columns) at the start and whenever `wakeup` (a pipe) becomes readable.
        Input is read only while what was read before is on its way: a process that reads nothing holds up nobody, and
        output is taken all the time. Raises ApiError when the daemon refuses, DaemonUnavailable when it goes away.
        """
        while self._status is None:
            if self._closed:
                raise DaemonUnavailable("the daemon ended the session without saying how the process ended")
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
            if wakeup is not None:
                poll.register(wakeup, select.POLLIN)
            if stdin is not None and self._accepted and not self._outgoing:
                poll.register(stdin, select.POLLIN)
            ready = {fd for fd, _ in poll.poll()}
            was_accepted = self._accepted
            if self._socket.fileno() in ready:
                self._exchange(stdout, stderr)
            resized = wakeup is not None and wakeup in ready and bool(os.read(wakeup, 4096))
            if terminal_size is not None and self._accepted and (resized or not was_accepted):
                rows, columns = terminal_size()
                self._send(RESIZE, json.dumps({"Width": columns, "Height": rows}).encode())
            if stdin is not None and stdin in ready:
                data = os.read(stdin, BLOCK_BYTES)
                if not data:
                    self._send(CLOSE, bytes([STDIN]))
                    stdin = None
                kept = detach(data) if detach is not None else data
                if kept is None:
                    return None
                if kept:
                    self._send(STDIN, kept)
        return self._status

    def _send(self, channel: int, data: bytes) -> None:
        if not self._closed:
            self._outgoing += self._protocol.send(BytesMessage(data=bytes([channel]) + data))

    def _exchange(self, stdout: int, stderr: int) -> None:
        """Sends what the socket takes, and handles what came."""
        try:
            if self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._outgoing.clear()  # the answer, if there is one, says why
        try:
            data: bytes | None = self._socket.recv(256 << 10)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        try:
            self._protocol.receive_data(data or None)
            for event in self._protocol.events():
                self._handle(event, stdout, stderr)
        except RemoteProtocolError as error:
            raise DaemonUnavailable(f"the daemon broke the WebSocket protocol: {error}") from error
        if not data:
            self._closed = True
            if self._refused:
                raise self._refusal_error()

    def _handle(self, event: Event, stdout: int, stderr: int) -> None:
        if isinstance(event, BytesMessage):
            self._parts += event.data
            # Output is passed on as it comes, whatever the size of the message; only the status must be whole.
            if self._parts[0] in (STDOUT, STDERR):
                write_all(stdout if self._parts[0] == STDOUT else stderr, memoryview(bytes(self._parts[1:])))
                del self._parts[1:]
            elif len(self._parts) > MAX_STATUS_BYTES:
                raise DaemonUnavailable("the daemon sent a status that is too long")
            if event.message_finished:
                if self._parts and self._parts[0] == STATUS:
                    self._status = json.loads(self._parts[1:])
                self._parts.clear()
        elif isinstance(event, AcceptConnection):
            self._accepted = True
        elif isinstance(event, Ping):
            self._outgoing += self._protocol.send(event.response())
        elif isinstance(event, CloseConnection):
            self._closed = True
        elif isinstance(event, RejectConnection):
            self._refused = event.status_code
            if not event.has_body:
                raise self._refusal_error()
        elif isinstance(event, RejectData):
            self._refusal += event.data
            if event.body_finished or len(self._refusal) > MAX_REFUSAL_BYTES:
                raise self._refusal_error()

    def _refusal_error(self) -> ApiError:
        try:
            error = json.loads(bytes(self._refusal))["error"]
            assert isinstance(error, dict)
        except (ValueError, KeyError, TypeError, AssertionError):
            error = {"message": f"the daemon refused the session with status {self._refused}", "exitCode": 1}
        return ApiError([error])


def write_all(fd: int, data: memoryview) -> None:
    """Writes everything; waits where the descriptor is non-blocking and full. Raises BrokenPipeError and the like."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
