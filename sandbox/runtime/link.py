"""One connection to a monitor: requests with sequence numbers, answers to futures, exits unasked.

It never blocks the event loop: what does not fit into the socket waits in a queue with its own descriptors.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable

from sandbox.errors import Conflict, DeadlineExceeded, KernelError, MonitorError, NotFound, PlanError, SandboxError
from sandbox.runtime import protocol
from sandbox.runtime.explain import explain, plan_error
from sandbox.runtime.ops import Plan
from sandbox.runtime.protocol import ExitRecord, ProcessInfo, Reply, RequestKind, Stage

REQUEST_TIMEOUT_S = 10.0
_PACKETS_A_TURN = 64


class Link:
    """Owns `connection`. `on_exit` and `on_lost` are called from the event loop; `on_lost` not after `close`."""

    def __init__(
        self, connection: socket.socket, on_exit: Callable[[ExitRecord], object], on_lost: Callable[[], object]
    ) -> None:
        self.open = True
        self.closing = False
        self._socket = connection
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._next_seq = 1
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._partial: dict[int, list[ProcessInfo]] = {}
        self._outgoing: deque[tuple[bytes, tuple[int, ...]]] = deque()
        connection.setblocking(False)
        self._loop.add_reader(connection.fileno(), self._readable)

    async def ask(
        self,
        kind: RequestKind,
        process_id: str = "",
        *,
        flags: int = 0,
        value: int = 0,
        clone_flags: int = 0,
        slots: tuple[int, int, int] = (-1, -1, -1),
        fds: tuple[int, ...] = (),
        timeout: float = REQUEST_TIMEOUT_S,
    ) -> Reply:
        """The answer, also when it says no; its descriptors are the caller's. Raises MonitorError, DeadlineExceeded."""
        if not self.open:
            raise MonitorError("the monitor is not connected", operation=kind.name.lower(), subject=process_id)
        if len(fds) > protocol.MAX_MESSAGE_FDS:
            raise MonitorError(f"{len(fds)} descriptors are too many for one request", subject=process_id)
        seq = self._next_seq
        self._next_seq += 1
        packet = protocol.pack_request(
            kind, seq, process_id, flags=flags, value=value, clone_flags=clone_flags, slots=slots
        )
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[seq] = future
        try:
            self._send(packet, fds)
            async with asyncio.timeout(timeout):
                return await future
        except (TimeoutError, asyncio.CancelledError) as error:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()  # it came in the same turn of the loop
            if isinstance(error, asyncio.CancelledError):
                raise
            raise DeadlineExceeded(
                f"the monitor did not answer in {timeout:g} s",
                operation=kind.name.lower(),
                subject=process_id,
            ) from None
        finally:
            self._waiting.pop(seq, None)
            self._partial.pop(seq, None)

    def _send(self, packet: bytes, fds: tuple[int, ...]) -> None:
        if self._outgoing:
            self._outgoing.append((packet, _duplicates(fds)))
            return
        try:
            protocol.send(self._socket, packet, fds)
        except BlockingIOError:
            # The caller may close its descriptors before there is room.
            self._outgoing.append((packet, _duplicates(fds)))
            self._loop.add_writer(self._socket.fileno(), self._writable)
        except OSError as error:
            self._disconnect(_lost_for(error))
            raise _lost_for(error) from error

    def _writable(self) -> None:
        while self._outgoing:
            packet, fds = self._outgoing[0]
            try:
                protocol.send(self._socket, packet, fds)
            except BlockingIOError:
                return
            except OSError as error:
                self._disconnect(_lost_for(error))
                return
            self._outgoing.popleft()
            _close_all(fds)
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        for _ in range(_PACKETS_A_TURN):
            if not self.open:
                return
            try:
                reply = protocol.receive(self._socket)
            except BlockingIOError:
                return
            except (OSError, ValueError) as error:
                self._disconnect(MonitorError(f"the monitor cannot be understood: {error}"))
                return
            if reply is None:
                self._disconnect(MonitorError("the monitor is gone"))
                return
            self._take(reply)

    def _take(self, reply: Reply) -> None:
        if reply.kind == protocol.REPLY_EXIT:
            reply.close()
            for process in reply.processes:
                if process.exit is not None:
                    # After those who wait for the answer to `run`, which came before, have seen it.
                    self._loop.call_soon(self._on_exit, process.exit)
            return
        if reply.more:
            self._partial.setdefault(reply.seq, []).extend(reply.processes)
            return
        future = self._waiting.get(reply.seq)
        if future is None or future.done():
            reply.close()  # nobody waits any more
            return
        if reply.seq in self._partial:
            reply.processes = (*self._partial.pop(reply.seq), *reply.processes)
        future.set_result(reply)

    def _disconnect(self, reason: MonitorError) -> None:
        if not self.open:
            return
        self.open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, fds in self._outgoing:
            _close_all(fds)
        self._outgoing.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(reason)
        if not self.closing:
            self._loop.call_soon(self._on_lost)

    def close(self) -> None:
        """Idempotent. Who still waits gets a MonitorError."""
        self.closing = True
        self._disconnect(MonitorError("the connection to the monitor was closed"))


def _lost_for(error: OSError) -> MonitorError:
    return MonitorError("cannot write to the monitor", operation="write", errno=error.errno or 0)


def _duplicates(fds: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(os.dup(fd) for fd in fds)


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def checked(reply: Reply, kind: RequestKind, process_id: str, plan: Plan | None = None) -> Reply:
    """The same reply, or the error it stands for."""
    if reply.stage is Stage.NONE:
        return reply
    reply.close()
    raise _failure(kind, process_id, reply, plan)


def _failure(kind: RequestKind, process_id: str, reply: Reply, plan: Plan | None) -> SandboxError:
    """The sentence for an answer that says no."""
    number = reply.error
    known = plan is not None and 0 <= reply.op_index < len(plan.ops)
    if reply.stage is Stage.OP and plan is not None and known:
        return plan_error(plan, reply.op_index, process_id, number)
    if reply.stage in (Stage.OP, Stage.DECODE):
        step = explain(plan, reply.op_index) if plan is not None and known else ""
        what = f"at {step!r}" if step else "as a whole"
        return PlanError(f"the monitor refused the plan {what}", operation=step, subject=process_id, errno=number)
    if reply.stage is Stage.CLONE:
        joined = number in (errno.ENOMEM, errno.EINVAL, errno.ESRCH)
        hint = "when it joins a PID namespace: the first process there is gone" if joined else ""
        return PlanError("no process could be made", operation="clone", subject=process_id, errno=number, hint=hint)
    if reply.stage is Stage.DIED:
        return PlanError("the process was killed before it could execute", operation="exec", subject=process_id)
    match number:
        case errno.ENOENT:
            return NotFound(f"the monitor knows no process {process_id!r}", subject=process_id)
        case errno.ESRCH:
            return NotFound(f"process {process_id!r} has exited", subject=process_id)
        case errno.EEXIST:
            return Conflict(f"there is a process {process_id!r} already", subject=process_id)
        case errno.EBUSY:
            return Conflict(f"process {process_id!r} is running", subject=process_id)
        case errno.EPIPE:
            return Conflict(f"process {process_id!r} has no input", subject=process_id)
    failed = KernelError if kind is RequestKind.SIGNAL else MonitorError
    return failed(f"the monitor refused to {kind.name.lower()}", subject=process_id, errno=number)
