"""Exec and attach: processes and streams that belong to a client, not to the pod.

The daemon makes the streams of an exec'd process itself and hands the child's ends over; the monitor only reaps. When
the daemon dies the client's connection dies with it, and the process sees its streams close.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import struct
import termios
import time
from dataclasses import dataclass

from sandbox.errors import Conflict, InvalidInput, NotFound, SandboxError
from sandbox.linux import constants as k
from sandbox.runtime import ops
from sandbox.runtime.config import NamespaceMode
from sandbox.runtime.container_plan import namespace_names
from sandbox.runtime.context import Context
from sandbox.runtime.monitor import ExitRecord, RunRequest
from sandbox.runtime.process import process_ops
from sandbox.runtime.records import RUNNING, ContainerRecord, SandboxRecord
from sandbox.runtime.sandbox_plan import pod_namespaces
from sandbox.runtime.specs import process_spec

_INIT = 0
MAX_ARGUMENTS = 4096
EXEC_PREFIX = "exec-"
"""Of the monitor's names of exec'd processes; container ids are hexadecimal."""


@dataclass
class Session:
    """The caller's ends of the streams, which the session owns: `close` closes what is still open.

    With a terminal `terminal_fd` is both directions and stderr_fd is None.
    """

    id: str
    stdin_fd: int | None = None
    stdout_fd: int | None = None
    stderr_fd: int | None = None
    terminal_fd: int | None = None
    pid: int = 0
    exited: asyncio.Future[ExitRecord] | None = None

    async def wait(self) -> int:
        """The exit code: 128 + signal when a signal ended it. Only for exec."""
        assert self.exited is not None
        return (await asyncio.shield(self.exited)).code

    def resize(self, rows: int, columns: int) -> None:
        """Tells the terminal its size. Out of range or without a terminal: ignored."""
        if self.terminal_fd is not None and 0 <= rows < 1 << 16 and 0 <= columns < 1 << 16:
            fcntl.ioctl(self.terminal_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close_stdin(self) -> None:
        """End of input for a process without a terminal. Idempotent."""
        self._close(self.stdin_fd)
        self.stdin_fd = None

    def close(self) -> None:
        """Idempotent."""
        for fd in {self.stdin_fd, self.stdout_fd, self.stderr_fd, self.terminal_fd}:
            self._close(fd)
        self.stdin_fd = self.stdout_fd = self.stderr_fd = self.terminal_fd = None

    def _close(self, fd: int | None) -> None:
        if fd is not None:
            os.close(fd)


class Sessions:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: dict[str, tuple[str, asyncio.Future[ExitRecord]]] = {}
        """By session id: the pod sandbox and who waits."""

    async def exec(
        self,
        container_id: str,
        command: tuple[str, ...],
        *,
        tty: bool = False,
        stdin: bool = False,
        rows: int = 0,
        columns: int = 0,
    ) -> Session:
        """Starts `command` in a running container, as its user, with its limits. Raises PlanError when it cannot."""
        if not 0 < len(command) <= MAX_ARGUMENTS:
            raise InvalidInput(f"a command has 1 to {MAX_ARGUMENTS} words, not {len(command)}")
        context = self._context
        record = self._running(container_id)
        sandbox = context.sandbox(record.pod_sandbox_id)
        session = Session(id=EXEC_PREFIX + secrets.token_hex(8))
        streams = [] if tty else _pipes(session, stdin)
        opened = list(streams)
        try:
            entry = context.cgroups.entry(record.cgroup_path, beside=record.pid)
            fds = [context.pidfds[container_id], *streams]
            cgroup_slot = -1
            if entry.directory is not None:
                opened.append(os.open(entry.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                cgroup_slot = len(fds)
                fds.append(opened[-1])
            plan = self._plan(sandbox, record, command, len(fds), entry.join_paths, tty=tty, rows=rows, cols=columns)
            session.exited = asyncio.get_running_loop().create_future()
            self._waiting[session.id] = (sandbox.id, session.exited)
            result = await context.monitor(sandbox.id).run(
                RunRequest(
                    process_id=session.id,
                    plan=plan,
                    fds=tuple(fds),
                    pidns_slot=-1 if sandbox.config.namespaces.pid is NamespaceMode.NODE else _INIT,
                    cgroup_slot=cgroup_slot,
                    capture=False,
                    record_exit=False,
                )
            )
        except BaseException:
            self._waiting.pop(session.id, None)
            session.close()
            raise
        finally:
            for fd in opened:
                os.close(fd)
        os.close(result.pidfd)
        session.pid = result.pid
        if tty:
            (session.terminal_fd,) = result.fds
        return session

    def _plan(
        self,
        sandbox: SandboxRecord,
        record: ContainerRecord,
        command: tuple[str, ...],
        first_slot: int,
        join_paths: tuple[str, ...],
        *,
        tty: bool,
        rows: int,
        cols: int,
    ) -> ops.Plan:
        image = self._context.images.resolve(record.image_id)
        spec = process_spec(sandbox, record, image, command, tty=tty)
        join = pod_namespaces(sandbox.config) | k.CLONE_NEWNS | k.CLONE_NEWCGROUP
        adj = ops.WriteFile(
            ops.HOST, "/proc/self/oom_score_adj", str(record.config.oom_score_adj).encode(), optional=True
        )
        steps: list[ops.Op] = [ops.JoinCgroup(path) for path in join_paths]
        steps += [adj, ops.SessionKeyring(), ops.Setns(_INIT, join, "the container's " + namespace_names(join))]
        if tty:
            root, terminal = first_slot, first_slot + 1
            steps += [
                ops.OpenPath(root, ops.HOST, "/", k.O_PATH),
                ops.Pty(terminal, root, rows, cols, spec.uid),
                ops.SendFd(terminal, "terminal"),
            ]
        else:
            steps += [ops.Dup(1 + number, number) for number in range(3)]
            steps.append(ops.Setsid())
        given = ("the container", *(() if tty else ("stdin", "stdout", "stderr")), "the cgroup")[:first_slot]
        return ops.Plan((*steps, *process_ops(spec)), given=given)

    def on_exit(self, pod_sandbox_id: str, record: ExitRecord) -> bool:
        """True when the process was one of ours."""
        if not record.process_id.startswith(EXEC_PREFIX):
            return False
        _, future = self._waiting.pop(record.process_id, ("", None))
        if future is not None and not future.done():
            future.set_result(record)
        monitor = self._context.monitors.get(pod_sandbox_id)
        if monitor is not None:
            self._context.spawn_task(monitor.forget(record.process_id), f"forgetting {record.process_id}")
        return True

    def on_pod_lost(self, pod_sandbox_id: str) -> None:
        """The monitor is gone, no exit will come any more: who waits is told of a SIGKILL."""
        for id, (sandbox_id, future) in list(self._waiting.items()):
            if sandbox_id == pod_sandbox_id:
                del self._waiting[id]
                if not future.done():
                    future.set_result(ExitRecord(id, 0, 128 + signal.SIGKILL, signal.SIGKILL, time.time_ns(), 0))

    async def kill(self, container_id: str, session: Session) -> None:
        """SIGKILL to an exec'd process whose client went away. Idempotent."""
        try:
            await self._context.monitor(self._context.container(container_id).pod_sandbox_id).signal(session.id, 9)
        except SandboxError:
            return  # it is gone already, or its pod is

    async def attach(self, container_id: str, *, stdin: bool = False) -> Session:
        """Streams of a running container: what it writes from now on, and its input when it was made with one."""
        record = self._running(container_id)
        monitor = self._context.monitor(record.pod_sandbox_id)
        session = Session(id=container_id)
        if stdin and not record.config.stdin:
            raise Conflict(f"container {record.config.name} was made without an input", hint="set stdin: true")
        ends: list[int] = []
        try:
            session.stdout_fd, out = os.pipe2(os.O_CLOEXEC)
            ends.append(out)
            session.stderr_fd, err = os.pipe2(os.O_CLOEXEC)
            ends.append(err)
            if record.config.tty:
                session.terminal_fd = await monitor.stdin(container_id)
            elif stdin:
                session.stdin_fd = await monitor.stdin(container_id)
            await monitor.attach(container_id, out, err)
        except BaseException:
            session.close()
            raise
        finally:
            for fd in ends:
                os.close(fd)
        return session

    async def end_of_input(self, container_id: str, session: Session) -> None:
        """The client's input ended: with stdin_once so does the container's."""
        record = self._context.container(container_id)
        session.close_stdin()
        if record.config.stdin_once:
            try:
                await self._context.monitor(record.pod_sandbox_id).close_stdin(container_id)
            except NotFound:
                return  # the container ended first

    def _running(self, container_id: str) -> ContainerRecord:
        record = self._context.container(container_id)
        if record.state != RUNNING or container_id not in self._context.pidfds:
            raise Conflict(
                f"container {record.config.name} is {record.state.lower()}, not running", subject=container_id
            )
        return record


def _pipes(session: Session, stdin: bool) -> list[int]:
    """The child's ends of stdin, stdout, stderr; the caller's ends go to the session."""
    if stdin:
        child_in, session.stdin_fd = os.pipe2(os.O_CLOEXEC)
    else:
        child_in = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    session.stdout_fd, child_out = os.pipe2(os.O_CLOEXEC)
    session.stderr_fd, child_err = os.pipe2(os.O_CLOEXEC)
    return [child_in, child_out, child_err]
