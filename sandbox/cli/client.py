"""The daemon's HTTP API over its unix socket, from the side of the command line.

Why not `http.client`: importing it takes 16 ms (email, ssl), a third of what a whole `sandbox` command may take. What
is spoken here is the small part of RFC 9112 that an aiohttp server answers with: one request a connection, a body with
Content-Length, chunked, or up to the end of the connection.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress

from sandbox.errors import DaemonUnavailable

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, BinaryIO

    Query = Iterable[tuple[str, str | int]]


MAX_LINE_BYTES = 64 << 10
MAX_HEADERS = 100
MAX_BODY_BYTES = 256 << 20
MAX_EVENT_BYTES = 16 << 20
ANSWER_TIMEOUT_S = 120.0
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class ApiError(Exception):
    """What the daemon answered instead of a result: one or more errors as `SandboxError.to_json` wrote them."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors[0].get("message", ""))
        self.errors = errors

    @property
    def exit_code(self) -> int:
        code = self.errors[0].get("exitCode", 1)
        return code if isinstance(code, int) and 0 < code < 256 else 1


def quote(text: str) -> str:
    """Percent-encodes everything that is not unreserved in RFC 3986."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def target(*segments: str, query: Query = ()) -> str:
    """A request target from path segments and query pairs; every part is encoded."""
    path = "/" + "/".join(quote(segment) for segment in segments)
    pairs = "&".join(f"{quote(key)}={quote(str(value))}" for key, value in query)
    return f"{path}?{pairs}" if pairs else path


class Response:
    """The answer to one request. Owns the connection; `close` it, or use it as a context manager."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file: BinaryIO = connection.makefile("rb")
        self.status = 0
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._connection.close()

    def begin(self) -> None:
        """Reads status line and headers; a 100 Continue is passed over."""
        while self.status in (0, 100):
            parts = self._line().split(" ", 2)
            if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
                raise DaemonUnavailable("the daemon answered something that is not HTTP", operation="read the answer")
            self.status = int(parts[1])
            for _ in range(MAX_HEADERS):
                line = self._line()
                if not line:
                    break
                name, _, value = line.partition(":")
                self.headers[name.strip().lower()] = value.strip()
            else:
                raise DaemonUnavailable("the daemon answered with too many headers", operation="read the answer")

    def _line(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise DaemonUnavailable(
                "the daemon closed the connection before its answer was complete",
                operation="read the answer",
                hint="look into its log: daemon.log below --root",
            )
        return line.decode("latin-1").rstrip("\r\n")

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives. Raises DaemonUnavailable when the connection ends before the body does."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
            return
        length = self.headers.get("content-length")
        left = int(length) if length is not None else None
        while left is None or left > 0:
            data = self._read1(64 << 10 if left is None else min(left, 64 << 10))
            if not data:
                if left is None:
                    return
                raise DaemonUnavailable("the daemon closed the connection in the middle of an answer")
            if left is not None:
                left -= len(data)
            yield data

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size_text = self._line().partition(";")[0].strip()
            try:
                left = int(size_text, 16)
            except ValueError:
                raise DaemonUnavailable(f"the daemon sent a chunk of the impossible size {size_text!r}") from None
            if left == 0:
                while self._line():
                    pass
                return
            while left:
                data = self._read1(min(left, 64 << 10))
                if not data:
                    raise DaemonUnavailable("the daemon closed the connection in the middle of an answer")
                left -= len(data)
                yield data
            self._line()

    def _read1(self, size: int) -> bytes:
        return self._file.read1(size)  # type: ignore[attr-defined, no-any-return]

    def read(self) -> bytes:
        """The whole body."""
        parts: list[bytes] = []
        total = 0
        for data in self.chunks():
            total += len(data)
            if total > MAX_BODY_BYTES:
                raise DaemonUnavailable(f"the daemon's answer is longer than {MAX_BODY_BYTES} bytes")
            parts.append(data)
        return b"".join(parts)

    def json(self) -> Any:
        return json.loads(self.read())

    def events(self) -> Iterator[dict[str, Any]]:
        """The objects of an application/x-ndjson body, as they arrive."""
        rest = b""
        for data in self.chunks():
            rest += data
            *lines, rest = rest.split(b"\n")
            if len(rest) > MAX_EVENT_BYTES:
                raise DaemonUnavailable(f"the daemon sent a line longer than {MAX_EVENT_BYTES} bytes")
            for line in lines:
                if line.strip():
                    yield json.loads(line)


class Client:
    """Speaks to the daemon behind `socket_path`; a request takes a connection, `probe` makes the next one's early."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self._kept: socket.socket | None = None

    def probe(self) -> None:
        """Connects and keeps the connection for the next request. Raises DaemonUnavailable."""
        self._kept = self.connect()

    def connect(self) -> socket.socket:
        """A connected socket that the caller owns. Raises DaemonUnavailable."""
        if self._kept is not None:
            connection, self._kept = self._kept, None
            return connection
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(self.socket_path)
        except OSError as error:
            connection.close()
            hint = "start one with `sandbox daemon`; `sandbox run` does so by itself"
            if isinstance(error, PermissionError):
                hint = "its socket is for root alone: use sudo"
            raise DaemonUnavailable(
                f"no daemon answers at {self.socket_path}",
                operation="connect",
                subject=self.socket_path,
                errno=error.errno or 0,
                hint=hint,
            ) from error
        return connection

    def answers(self) -> bool:
        """True when a daemon accepts connections."""
        try:
            self.connect().close()
        except DaemonUnavailable:
            return False
        return True

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: Iterable[bytes] | None = None,
        stream: bool = False,
        connection: socket.socket | None = None,
    ) -> Response:
        """Sends one request; the caller closes the response. `body` is sent as JSON, `content` is streamed in chunks.

        `stream` waits for the body without a time limit; `connection` (taken over) is used instead of a new one.
        Raises ApiError for an error status, DaemonUnavailable when the daemon does not answer.
        """
        sock = connection or self.connect()
        response = Response(sock)
        try:
            if stream or content is not None:
                sock.settimeout(None)
            # Refused half way: the reason is in the answer, which `begin` reads, or reports as missing.
            with suppress(BrokenPipeError, ConnectionResetError):
                self._send(sock, method, path, body, content)
            response.begin()
            if response.status >= 400:
                raise ApiError(_errors(response))
        except OSError as error:
            response.close()
            raise DaemonUnavailable(
                f"the daemon at {self.socket_path} did not answer {method} {path}",
                operation="request",
                errno=error.errno or 0,
                hint="look into its log: daemon.log below --root",
            ) from error
        except BaseException:
            response.close()
            raise
        return response

    def _send(self, sock: socket.socket, method: str, path: str, body: Any, content: Iterable[bytes] | None) -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\nAccept: */*\r\n"
        if content is not None:
            sock.sendall((head + "Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n").encode())
            for data in content:
                if data:
                    sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            sock.sendall(b"0\r\n\r\n")
            return
        payload = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            head += "Content-Type: application/json\r\n"
        if payload or method in ("POST", "PUT", "PATCH"):
            head += f"Content-Length: {len(payload)}\r\n"
        sock.sendall(head.encode() + b"\r\n" + payload)

    def get(self, path: str) -> Any:
        """The JSON body of a GET."""
        with self.request("GET", path) as response:
            return response.json()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON body of any other request; None when it is empty."""
        with self.request(method, path, body, stream=True) as response:
            data = response.read()
            return json.loads(data) if data.strip() else None


def _errors(response: Response) -> list[dict[str, Any]]:
    """The errors of an error response; one is made up when the body is not the API's."""
    data = response.read()
    try:
        body = json.loads(data)
        errors = body.get("errors") or [body["error"]]
        if errors and all(isinstance(error, dict) for error in errors):
            return list(errors)
    except (ValueError, KeyError, AttributeError, TypeError):
        pass  # not the API's own error format; what it is instead is reported below
    text = data[:200].decode("utf-8", "replace").strip()
    return [{"message": f"the daemon answered with status {response.status}: {text or 'no text'}", "exitCode": 1}]
