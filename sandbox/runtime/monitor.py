"""The client of a pod's monitor (`pause/monitor.c`): start it or find it again, and speak with it.

The monitor is the parent of the pod's processes and outlives the daemon. This side only asks: every request has a
sequence number and a future; exits come unasked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import DeadlineExceeded, MonitorError, NotFound, SandboxError
from sandbox.linux import spawn
from sandbox.linux.process import read_stat
from sandbox.runtime import protocol
from sandbox.runtime.link import REQUEST_TIMEOUT_S, Link, checked
from sandbox.runtime.ops import Plan, encode_plan
from sandbox.runtime.protocol import ExitRecord, ProcessInfo, Reply, RequestKind

__all__ = [
    "ExitRecord",
    "Monitor",
    "PauseBinary",
    "ProcessInfo",
    "RunRequest",
    "RunResult",
    "read_exit_records",
]

log = logging.getLogger(__name__)

RUN_TIMEOUT_S = 60.0
SHUTDOWN_TIMEOUT_S = 15.0
_LONGEST_ADDRESS = 107


@dataclass(frozen=True)
class RunRequest:
    """What to start. `process_id` is unique in the pod, [A-Za-z0-9_-][A-Za-z0-9._-]{0,99}.

    `fds` fill the slots 0..n-1; they are duplicated, the caller keeps and closes its own. Slots: `pidns_slot` a pidfd
    or PID namespace in which the child is created, `cgroup_slot` a cgroup2 directory, `log_slot` an open log file.
    """

    process_id: str
    plan: Plan
    fds: tuple[int, ...] = ()
    clone_flags: int = 0
    pidns_slot: int = -1
    cgroup_slot: int = -1
    log_slot: int = -1
    stdin: bool = False
    """The monitor keeps the write end of a pipe; otherwise standard input is /dev/null, unless the plan makes one."""
    tty: bool = False
    """The plan has a Pty; its master stays with the monitor and is pumped to the log."""
    capture: bool = True
    """The monitor makes standard output and error; False: they are /dev/null, or what the plan makes."""
    record_exit: bool = True
    """Write the exit record file before telling anybody."""


@dataclass(frozen=True)
class RunResult:
    """A process that reached exec. The caller owns `fds` (of SendFd, in order) and `pidfd`."""

    pid: int
    fds: tuple[int, ...]
    warnings: tuple[tuple[int, int], ...]
    """(operation index, errno) of optional operations that failed."""
    marks: dict[int, int]
    """Mark number → CLOCK_MONOTONIC in nanoseconds."""
    pidfd: int


class PauseBinary:
    """A sealed copy of the `pause` program in memory, executed by descriptor. Owns `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def load(cls, path: Path) -> PauseBinary:
        """Raises MonitorError when there is no such program."""
        try:
            return cls(spawn.sealed_program(path))
        except OSError as error:
            raise MonitorError(
                f"the pause program {path} cannot be loaded",
                operation="load",
                subject=str(path),
                errno=error.errno or 0,
                hint="build it: make -C pause",
            ) from error

    def close(self) -> None:
        os.close(self.fd)


OnExit = Callable[[ExitRecord], object]
OnLost = Callable[[], object]


class Monitor:
    """A connection to one monitor. Use `spawn` or `connect`; the callbacks run in the event loop."""

    def __init__(self, connection: socket.socket, on_exit: OnExit, on_lost: OnLost) -> None:
        self.pid = 0
        self.start_time = 0
        self._link = Link(connection, self._tell_exit, on_lost)
        self._on_exit = on_exit
        self._abandoned: set[str] = set()
        self._gone: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- life ----

    @classmethod
    async def spawn(
        cls,
        binary: PauseBinary,
        pod_id: str,
        socket_path: Path,
        state_dir: Path,
        on_exit: OnExit,
        on_lost: OnLost,
    ) -> Monitor:
        """Starts a monitor that listens at `socket_path` and keeps its exit records below `state_dir`.

        Both directories must exist. Raises MonitorError; then nothing is left but perhaps the socket's file.
        """
        with contextlib.ExitStack() as stack:
            try:
                listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                state = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, state)
                directory = os.open(socket_path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, directory)
                _listen(listening, directory, socket_path)
                pid = spawn.spawn_monitor(binary.fd, pod_id, listening.fileno(), state, directory)
            except OSError as error:
                raise _cannot("start", pod_id, error) from error
        gone = asyncio.Event()
        _reap_when_dead(pid, gone)
        try:
            # The socket listens already: there is nothing to wait for.
            monitor = await cls.connect(socket_path, on_exit, on_lost)
        except BaseException:
            _kill_pid(pid)
            raise
        monitor._gone = gone
        return monitor

    @classmethod
    async def connect(cls, socket_path: Path, on_exit: OnExit, on_lost: OnLost) -> Monitor:
        """Finds a living monitor again, as after a restart of the daemon. Raises MonitorError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setblocking(False)
            with _address(socket_path) as address:
                connection.connect(address)
        except OSError as error:
            connection.close()
            raise _cannot("connect to", str(socket_path), error) from error
        monitor = cls(connection, on_exit, on_lost)
        try:
            monitor.pid = (await monitor._ask(RequestKind.HELLO)).pid
            monitor.start_time = read_stat(monitor.pid).start_time
        except BaseException as error:
            monitor.close()
            if isinstance(error, ProcessLookupError):
                raise MonitorError(f"the monitor {monitor.pid} died while it was connected to") from error
            raise
        return monitor

    def close(self) -> None:
        """Closes this end; the monitor and its pod live on. Idempotent."""
        self._link.close()

    async def shutdown(self) -> None:
        """Kills every process that is left, waits until they are reaped, and ends the monitor. Idempotent."""
        self._link.closing = True
        if self._link.open:
            try:
                await self._ask(RequestKind.SHUTDOWN, timeout=SHUTDOWN_TIMEOUT_S)
            except DeadlineExceeded:
                log.warning("monitor %d does not end, killing it", self.pid)
                with contextlib.suppress(ProcessLookupError):
                    if read_stat(self.pid).start_time == self.start_time:
                        _kill_pid(self.pid)
            except MonitorError:
                pass  # it is gone, which is what was wanted
        self.close()
        if self._gone is not None:
            await self._gone.wait()

    # ---- requests ----

    async def run(self, request: RunRequest, *, timeout: float = RUN_TIMEOUT_S) -> RunResult:
        """Starts a process. Raises PlanError (`operation` says which failed, `errno` the kernel's answer), Conflict,
        MonitorError, DeadlineExceeded; after any of them, and when it is cancelled, the process is killed."""
        flags = (
            (protocol.RUN_STDIN if request.stdin else 0)
            | (protocol.RUN_TTY if request.tty else 0)
            | (protocol.RUN_CAPTURE if request.capture else 0)
            | (protocol.RUN_RECORD_EXIT if request.record_exit else 0)
        )
        plan_fd = spawn.memfd("plan", encode_plan(request.plan))
        try:
            reply = await self._link.ask(
                RequestKind.RUN,
                request.process_id,
                flags=flags,
                clone_flags=request.clone_flags,
                slots=(request.pidns_slot, request.cgroup_slot, request.log_slot),
                fds=(plan_fd, *request.fds),
                timeout=timeout,
            )
        except (asyncio.CancelledError, DeadlineExceeded):
            self._abandon(request.process_id)
            raise
        finally:
            os.close(plan_fd)
        checked(reply, RequestKind.RUN, request.process_id, request.plan)
        if not reply.fds:
            raise MonitorError(f"the monitor had no descriptor left for process {request.process_id}")
        pidfd, *fds = reply.fds
        return RunResult(reply.pid, tuple(fds), reply.warnings, reply.marks, pidfd)

    async def signal(self, process_id: str, signum: int) -> None:
        """Raises NotFound when there is no such process, or it has exited."""
        await self._ask(RequestKind.SIGNAL, process_id, value=signum)

    async def processes(self) -> list[ProcessInfo]:
        """Every process of the pod that was run and not forgotten."""
        return list((await self._ask(RequestKind.LIST)).processes)

    async def attach(self, process_id: str, stdout_fd: int | None, stderr_fd: int | None) -> None:
        """Copies what the process writes from now on also to these (the caller keeps its own), until it ends.

        A reader that takes nothing for a second is dropped. A stream that has ended, or that a terminal does not have,
        is closed at once. The descriptors become non-blocking. Raises NotFound.
        """
        flags = (protocol.ATTACH_STDOUT if stdout_fd is not None else 0) | (
            protocol.ATTACH_STDERR if stderr_fd is not None else 0
        )
        fds = tuple(fd for fd in (stdout_fd, stderr_fd) if fd is not None)
        await self._ask(RequestKind.ATTACH, process_id, flags=flags, fds=fds)

    async def stdin(self, process_id: str) -> int:
        """The write end of the process' input, or its terminal's master (non-blocking); the caller owns it.

        Raises Conflict when it has none (any more), NotFound.
        """
        (fd,) = (await self._ask(RequestKind.STDIN, process_id)).fds
        return fd

    async def close_stdin(self, process_id: str) -> None:
        """Closes the monitor's end; the input ends when every duplicate is closed. Idempotent. Raises NotFound."""
        await self._ask(RequestKind.CLOSE_STDIN, process_id)

    async def reopen_log(self, process_id: str, log_fd: int) -> None:
        """From now on output goes to this file (the caller keeps its own). Raises NotFound."""
        await self._ask(RequestKind.REOPEN_LOG, process_id, fds=(log_fd,))

    async def forget(self, process_id: str) -> None:
        """Drops an exited process and its exit record. Idempotent. Raises Conflict when it runs."""
        with contextlib.suppress(NotFound):
            await self._ask(RequestKind.FORGET, process_id)

    # ---- underneath ----

    async def _ask(
        self,
        kind: RequestKind,
        process_id: str = "",
        *,
        flags: int = 0,
        value: int = 0,
        fds: tuple[int, ...] = (),
        timeout: float = REQUEST_TIMEOUT_S,
    ) -> Reply:
        reply = await self._link.ask(kind, process_id, flags=flags, value=value, fds=fds, timeout=timeout)
        return checked(reply, kind, process_id)

    def _tell_exit(self, record: ExitRecord) -> None:
        if record.process_id in self._abandoned:
            self._abandoned.discard(record.process_id)
            self._in_background(self.forget(record.process_id))
            return
        self._on_exit(record)

    def _abandon(self, process_id: str) -> None:
        """Nobody waits for the process that is being started: it must not run."""
        if self._link.open:
            self._abandoned.add(process_id)
            self._in_background(self.signal(process_id, signal.SIGKILL))

    def _in_background(self, request: object) -> None:
        async def quietly() -> None:
            with contextlib.suppress(SandboxError):
                await request  # type: ignore[misc]

        task = asyncio.get_running_loop().create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


# ---- errors ----


def _cannot(what: str, subject: str, error: OSError) -> MonitorError:
    return MonitorError(f"cannot {what} the monitor {subject}", operation=what, subject=subject, errno=error.errno or 0)


# ---- descriptors, addresses, processes ----


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """An address for `path`, also when it is longer than unix(7) allows."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _listen(listening: socket.socket, directory: int, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=directory)
    # Nobody can connect before listen(2), so the mode is set in time.
    with _address(path) as address:
        listening.bind(address)
    os.chmod(path.name, 0o600, dir_fd=directory)
    listening.listen(8)


def _reap_when_dead(pid: int, gone: asyncio.Event) -> None:
    """The monitor is our child as long as this daemon lives: leave no zombie."""
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(pid)

    def dead() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        gone.set()

    loop.add_reader(pidfd, dead)


def _kill_pid(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def read_exit_records(state_dir: Path) -> list[ExitRecord]:
    """The exit records below `state_dir`, for when the monitor is gone. Files that are no records are skipped."""
    records: list[ExitRecord] = []
    try:
        files = sorted((state_dir / "exits").iterdir())
    except FileNotFoundError:
        return records
    for file in files:
        if file.name.startswith("."):
            continue
        try:
            record = json.loads(file.read_text())
            numbers = [int(record[key]) for key in ("pid", "code", "signal", "time_ns", "started_ns")]
            records.append(ExitRecord(str(record["process_id"]), *numbers))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is no exit record: %s", file, error)
    return records
