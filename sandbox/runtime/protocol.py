"""The messages between a monitor and the daemon: the structs of `pause/protocol.h`, packed and unpacked.

One packet of a SOCK_SEQPACKET socket each, descriptors by SCM_RIGHTS, numbers in native byte order.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from dataclasses import dataclass, field
from enum import IntEnum

WIRE_MAGIC = 0x4D584253  # "SBXM"
WIRE_VERSION = 1
PROCESS_ID_BYTES = 104
MAX_MESSAGE_FDS = 253
MAX_PACKET_BYTES = 16384

RUN_STDIN = 1
RUN_TTY = 2
RUN_CAPTURE = 4
RUN_RECORD_EXIT = 8
ATTACH_STDOUT = 1
ATTACH_STDERR = 2

REPLY_ANSWER = 1
REPLY_EXIT = 2

STATE_EXITED = 3

_REQUEST = struct.Struct(f"=IHHQQhhhHiI{PROCESS_ID_BYTES}s")
_REPLY = struct.Struct("=IHHQiiiHHHHI")
_WARNING = struct.Struct("=II")
_MARK = struct.Struct("=QQ")
_PROCESS = struct.Struct(f"={PROCESS_ID_BYTES}siIiiQQ")
REQUEST_BYTES, REPLY_BYTES, PROCESS_BYTES = _REQUEST.size, _REPLY.size, _PROCESS.size


class RequestKind(IntEnum):
    HELLO = 1
    RUN = 2
    SIGNAL = 3
    LIST = 4
    ATTACH = 5
    STDIN = 6
    CLOSE_STDIN = 7
    REOPEN_LOG = 8
    FORGET = 9
    SHUTDOWN = 10


class Stage(IntEnum):
    """Where a request failed."""

    NONE = 0
    REQUEST = 1
    DECODE = 2
    CLONE = 3
    OP = 4
    DIED = 5


@dataclass(frozen=True)
class ExitRecord:
    """How a process ended. `code` is 0..255, 128 + signal when it was killed; times are CLOCK_REALTIME."""

    process_id: str
    pid: int
    code: int
    signal: int
    time_ns: int
    started_ns: int


@dataclass(frozen=True)
class ProcessInfo:
    """One entry of a monitor's table. `exit` is there once the process exited."""

    process_id: str
    pid: int
    running: bool
    exit: ExitRecord | None
    started_ns: int


@dataclass
class Reply:
    """A packet from the monitor; `fds` are owned by whoever takes the reply."""

    kind: int
    seq: int
    error: int
    op_index: int
    pid: int
    stage: Stage
    more: bool
    warnings: tuple[tuple[int, int], ...] = ()
    marks: dict[int, int] = field(default_factory=dict)
    processes: tuple[ProcessInfo, ...] = ()
    fds: tuple[int, ...] = ()

    def close(self) -> None:
        """Closes the descriptors nobody took."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def pack_request(
    kind: RequestKind,
    seq: int,
    process_id: str = "",
    *,
    flags: int = 0,
    value: int = 0,
    clone_flags: int = 0,
    slots: tuple[int, int, int] = (-1, -1, -1),
) -> bytes:
    """`slots`: of the PID namespace, the cgroup, the log."""
    encoded = process_id.encode()
    if len(encoded) >= PROCESS_ID_BYTES:
        raise ValueError(f"process id {process_id!r} is too long")
    return _REQUEST.pack(WIRE_MAGIC, WIRE_VERSION, kind, seq, clone_flags, *slots, flags, value, 0, encoded)


def _unpack_process(data: bytes, offset: int) -> ProcessInfo:
    name, pid, state, code, signal, time_ns, started_ns = _PROCESS.unpack_from(data, offset)
    process_id = name.rstrip(b"\0").decode("ascii")
    record = ExitRecord(process_id, pid, code, signal, time_ns, started_ns) if state == STATE_EXITED else None
    return ProcessInfo(process_id, pid, record is None, record, started_ns)


def unpack_reply(data: bytes, fds: tuple[int, ...]) -> Reply:
    """Raises ValueError when it is not what a monitor of this version sends; the descriptors stay the caller's."""
    if len(data) < REPLY_BYTES:
        raise ValueError(f"a packet of {len(data)} bytes from the monitor")
    magic, version, kind, seq, error, op_index, pid, stage, more, warnings, marks, processes = _REPLY.unpack_from(data)
    if magic != WIRE_MAGIC or version != WIRE_VERSION:
        raise ValueError(f"a packet of version {version}, not {WIRE_VERSION}, from the monitor")
    expected = REPLY_BYTES + warnings * _WARNING.size + marks * _MARK.size + processes * PROCESS_BYTES
    if len(data) != expected:
        raise ValueError(f"a packet of {len(data)} bytes, not {expected}, from the monitor")
    marks_at = REPLY_BYTES + warnings * _WARNING.size
    processes_at = marks_at + marks * _MARK.size
    return Reply(
        kind=kind,
        seq=seq,
        error=error,
        op_index=op_index,
        pid=pid,
        stage=Stage(stage),
        more=bool(more),
        warnings=tuple((w[0], w[1]) for w in _WARNING.iter_unpack(data[REPLY_BYTES:marks_at])),
        marks={m[0]: m[1] for m in _MARK.iter_unpack(data[marks_at:processes_at])},
        processes=tuple(_unpack_process(data, processes_at + i * PROCESS_BYTES) for i in range(processes)),
        fds=fds,
    )


def receive(sock: socket.socket) -> Reply | None:
    """The next packet, or None at the end. Raises BlockingIOError, ConnectionError, ValueError."""
    space = socket.CMSG_SPACE(MAX_MESSAGE_FDS * array.array("i").itemsize)
    data, control, flags, _ = sock.recvmsg(MAX_PACKET_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    fds = tuple(numbers)
    try:
        if not data:
            return None
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("a truncated packet from the monitor")
        reply = unpack_reply(data, fds)
        fds = ()
        return reply
    finally:
        for fd in fds:
            os.close(fd)


def send(sock: socket.socket, packet: bytes, fds: tuple[int, ...]) -> None:
    """Raises BlockingIOError when the socket is full."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([packet], control, socket.MSG_NOSIGNAL)
