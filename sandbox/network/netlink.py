"""Netlink requests in batches: pyroute2 writes the messages, one send(2) carries several, each answer is checked.

pyroute2's own sockets run an event loop of their own and decode every attribute of every answer; a request here is a
plain call of some tens of microseconds, on a socket of ours or on one that was made inside a pod's namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300  # include/uapi/linux/netlink.h
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLMSGERR_ATTR_MSG = 1
_ACK_TLVS = 0x200
_HEADER = struct.Struct("=IHHII")
_TIMEOUT_S = 10


class NetlinkError(OSError):
    """The kernel refused message `index` of a batch; `reason` is its own text, often empty."""

    def __init__(self, number: int, index: int, what: str, reason: str) -> None:
        super().__init__(number, os.strerror(number).lower(), what)
        self.index = index
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what}: {errno.errorcode.get(self.errno or 0, self.errno)} ({self.reason or self.strerror})"


class Message:
    """One request. `what` names it in errors; `allow` are errnos that count as success."""

    def __init__(
        self,
        factory: type[Any],
        type: int,
        flags: int,
        what: str,
        fields: Mapping[str, Any] | None = None,
        attrs: list[tuple[str, Any]] | None = None,
        allow: tuple[int, ...] = (),
    ) -> None:
        self.factory, self.type, self.flags, self.what, self.allow = factory, type, flags, what, allow
        self.fields = fields or {}
        self.attrs = attrs or []

    def encode(self, sequence: int) -> bytes:
        message = self.factory()
        for name, value in self.fields.items():
            message[name] = value
        message["attrs"] = self.attrs
        header = message["header"]
        header["type"], header["flags"], header["pid"] = self.type, self.flags | NLM_F_REQUEST, 0
        header["sequence_number"] = sequence
        message.encode()
        return bytes(message.data)


class Netlink:
    """A netlink socket. Not safe for several threads at once."""

    def __init__(self, fd: int | None = None, protocol: int = socket.NETLINK_ROUTE) -> None:
        """On a duplicate of `fd` (which stays the caller's), or on a new socket in the thread's network namespace."""
        if fd is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        else:
            copy = os.dup(fd)
            try:
                self._socket = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
                raise
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = int.from_bytes(os.urandom(3), "little")
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def close(self) -> None:
        self._socket.close()

    def request(self, *messages: Message) -> None:
        """Sends all in one datagram, waits for each acknowledgement. Raises NetlinkError of the first that failed.

        The kernel goes on after a failed message, so the caller must undo the others.
        """
        first = self._sequence + 1
        self._sequence += len(messages)
        data = b"".join(_with_ack(message).encode(first + index) for index, message in enumerate(messages))
        self._socket.send(data)
        waiting = len(messages)
        failure: NetlinkError | None = None
        while waiting:
            for kind, flags, sequence, body in self._receive():
                index = sequence - first
                if kind != NLMSG_ERROR or not 0 <= index < len(messages):
                    continue
                waiting -= 1
                code = -struct.unpack_from("=i", body)[0]
                message = messages[index]
                if code and code not in message.allow and (failure is None or index < failure.index):
                    failure = NetlinkError(code, index, message.what, _reason(flags, body))
        if failure is not None:
            raise failure

    def get(self, message: Message) -> bytes:
        """The body (after the netlink header) of the one answer. Raises NetlinkError."""
        return next(self._answers(message))[1]

    def dump(self, message: Message) -> list[Any]:
        """All answers, decoded by pyroute2. For rare requests: it decodes everything."""
        message.flags |= NLM_F_DUMP
        found = []
        for datagram, _ in self._answers(message):
            decoded = message.factory(datagram)
            decoded.decode()
            found.append(decoded)
        return found

    def _answers(self, message: Message) -> Iterator[tuple[bytes, bytes]]:
        self._sequence += 1
        self._socket.send(message.encode(self._sequence))
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise NetlinkError(code or errno.ENODATA, 0, message.what, _reason(flags, body))
                if kind == NLMSG_DONE:
                    return
                yield _HEADER.pack(len(body) + 16, kind, flags, sequence, 0) + body, body
                if not message.flags & NLM_F_DUMP:
                    return

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """(type, flags, sequence, body) of every message in the next datagram."""
        data = self._socket.recv(1 << 18)
        messages, offset = [], 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < 16:
                break
            messages.append((kind, flags, sequence, data[offset + 16 : offset + length]))
            offset += (length + 3) & ~3
        return messages


def _with_ack(message: Message) -> Message:
    message.flags |= NLM_F_ACK
    return message


def _reason(flags: int, body: bytes) -> str:
    """The kernel's own words (extended acknowledgement), or nothing."""
    if not flags & _ACK_TLVS:
        return ""
    offset = 4 + 16  # errno and, with NETLINK_CAP_ACK, only the header of the request
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            break
        if kind == _NLMSGERR_ATTR_MSG:
            return body[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""
