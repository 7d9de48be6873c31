"""Containers: created, started, stopped, removed; their exits."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

from sandbox.errors import Conflict, InvalidInput, NotFound, PlanError, SandboxError
from sandbox.images.store import Image
from sandbox.images.users import resolve_user
from sandbox.linux.constants import signal_number
from sandbox.linux.process import ProcessIdentity
from sandbox.linux.trees import remove_tree
from sandbox.runtime.config import ContainerConfig, NamespaceMode
from sandbox.runtime.container_plan import PAUSE, container_clone_flags
from sandbox.runtime.context import Context, log
from sandbox.runtime.monitor import ExitRecord, ProcessInfo, RunRequest, RunResult, read_exit_records
from sandbox.runtime.ops import MARK_NAMES, Plan
from sandbox.runtime.records import CREATED, EXITED, READY, RUNNING, STARTING, ContainerRecord, SandboxRecord, User
from sandbox.runtime.specs import compile_for, container_resources
from sandbox.runtime.status import RuntimeEvent
from sandbox.timeline import Timeline

KILL_TIMEOUT_S = 10.0
"""How long a SIGKILL may take to show: a process in uninterruptible sleep outlives it."""
START_ERROR_CODE = 128


class Containers:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, sandbox: SandboxRecord, config: ContainerConfig, timeline: Timeline) -> str:
        """Checks and records a container; nothing of the kernel is touched yet. Returns its id."""
        context = self._context
        if sandbox.state != READY:
            raise Conflict(f"pod sandbox {sandbox.id} is not ready", subject=sandbox.id)
        with timeline.span("image", config.name):
            image = context.images.resolve(config.image)
            user = self._user(image, config)
        with timeline.span("record", config.name):
            record = self._new_record(sandbox, config, image, user)
            context.cgroups.check(container_resources(record))
            compile_for(context, sandbox, record, image)
            context.records.put_container(record)
        return record.id

    def _new_record(self, sandbox: SandboxRecord, config: ContainerConfig, image: Image, user: User) -> ContainerRecord:
        id = secrets.token_hex(16)
        log_path = ""
        if sandbox.config.log_directory and config.log_path:
            log_path = str(Path(sandbox.config.log_directory, config.log_path))
        return ContainerRecord(
            id=id,
            pod_sandbox_id=sandbox.id,
            config=config,
            image_id=image.id,
            state=CREATED,
            created_ns=time.time_ns(),
            cgroup_path=f"{sandbox.cgroup_path}/{id}",
            log_path=log_path,
            user=user,
            stop_signal=_signal_number(config.stop_signal or image.config.stop_signal),
        )

    def dry_run(self, sandbox: SandboxRecord, config: ContainerConfig) -> Plan:
        """The plan `start` would run for a container that is not made. Raises what `create` would."""
        context = self._context
        image = context.images.resolve(config.image)
        record = self._new_record(sandbox, config, image, self._user(image, config))
        context.cgroups.check(container_resources(record))
        return compile_for(context, sandbox, record, image, dry_run=True)

    def _user(self, image: Image, config: ContainerConfig) -> User:
        security = config.security
        spec = security.run_as_username or ("" if security.run_as_user is None else str(security.run_as_user))
        resolved = resolve_user(
            self._context.images,
            image,
            spec or None,
            group=security.run_as_group,
            supplemental_groups=security.supplemental_groups,
            policy=security.supplemental_groups_policy,
        )
        if security.run_as_non_root and resolved.uid == 0:
            raise InvalidInput(
                f"container {config.name} must not run as root, but its user is uid 0",
                subject=config.name,
                hint="set runAsUser, or use an image with another user",
            )
        return User(resolved.uid, resolved.gid, resolved.groups, resolved.home)

    async def start(self, id: str, timeline: Timeline) -> None:
        """CREATED to RUNNING. A failure ends it as EXITED with StartError and raises PlanError or what it was."""
        context = self._context
        async with context.lock(id):
            record = context.container(id)
            sandbox = context.sandbox(record.pod_sandbox_id)
            if record.state != CREATED:
                raise Conflict(f"container {id} is {record.state.lower()}, only a created one can be started")
            monitor = context.monitor(sandbox.id)
            context.records.change_container(id, state=STARTING)
            context.exited[id] = asyncio.Event()
            try:
                with timeline.span("cgroups", record.config.name):
                    context.cgroups.create(record.cgroup_path, container_resources(record))
                request, owned = self._request(sandbox, record)
                begin = time.monotonic_ns()
                try:
                    result = await monitor.run(request)
                finally:
                    for fd in owned:
                        os.close(fd)
            except BaseException as error:
                await self._start_failed(id, error)
                raise
            _add_marks(timeline, record.config.name, begin, result)
            self._started(record, request.plan, result)

    def _request(self, sandbox: SandboxRecord, record: ContainerRecord) -> tuple[RunRequest, list[int]]:
        """The request and the descriptors opened for it, which the caller closes."""
        context = self._context
        image = context.images.resolve(record.image_id)
        _make_overlay_dirs(context.container_dir(record), Path(image.layers[-1]))
        plan = compile_for(context, sandbox, record, image)
        log_fd = _open_log(record.log_path)
        owned = [log_fd]
        fds = [context.pidfds[sandbox.id], log_fd]
        entry = context.cgroups.entry(record.cgroup_path)
        if entry.directory is not None:
            owned.append(os.open(entry.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            fds.append(owned[-1])
        request = RunRequest(
            process_id=record.id,
            plan=plan,
            fds=tuple(fds),
            clone_flags=container_clone_flags(sandbox.config),
            pidns_slot=PAUSE if sandbox.config.namespaces.pid is NamespaceMode.POD else -1,
            cgroup_slot=2 if entry.directory is not None else -1,
            log_slot=1,
            stdin=record.config.stdin and not record.config.tty,
            tty=record.config.tty,
        )
        return request, owned

    def _started(self, record: ContainerRecord, plan: Plan, result: RunResult) -> None:
        context = self._context
        context.keep_pidfd(record.id, result.pidfd)
        if context.records.containers[record.id].state == EXITED:
            return  # it ended before the answer was read
        try:
            start_time = ProcessIdentity.current(result.pid).start_time
        except (ProcessLookupError, NotFound):
            start_time = 0
        for index, errno in result.warnings:
            what, why = plan.ops[index].describe(), os.strerror(errno).lower()
            log.info("container %s goes on without %r: %s", record.id, what, why)
        context.records.change_container(
            record.id, state=RUNNING, pid=result.pid, start_time=start_time, started_ns=_exec_time_ns(result)
        )
        self.watch_oom(record.id)
        context.emit(RuntimeEvent("started", record.pod_sandbox_id, record.id))

    async def _start_failed(self, id: str, error: BaseException) -> None:
        context = self._context
        context.records.change_container(
            id,
            state=EXITED,
            finished_ns=time.time_ns(),
            exit_code=START_ERROR_CODE,
            reason="StartError",
            message=str(error) or type(error).__name__,
        )
        context.exited[id].set()
        record = context.container(id)
        if isinstance(error, PlanError):
            error.subject = record.config.name
        try:
            await context.cgroups.remove(record.cgroup_path)
        except SandboxError as failure:
            error.add_note(f"its cgroup could not be removed yet: {failure}")

    def adopt(self, record: ContainerRecord, process: ProcessInfo) -> None:
        """A container that a previous daemon started: it runs, or its exit is learnt now."""
        context = self._context
        if process.exit is not None:
            self.on_exit(process.exit)
            return
        try:
            identity = ProcessIdentity.current(process.pid)
            context.keep_pidfd(record.id, identity.pidfd())
        except ProcessLookupError:
            return  # it is ending now, the monitor tells
        context.records.change_container(
            record.id,
            state=RUNNING,
            pid=process.pid,
            start_time=identity.start_time,
            started_ns=record.started_ns or process.started_ns,
        )
        self.watch_oom(record.id)

    def never_started(self, record: ContainerRecord) -> None:
        """The daemon died between its intent and the monitor's hearing of it: the container is as it was, created."""
        self._context.records.change_container(record.id, state=CREATED)
        self._context.exited.pop(record.id, None)

    async def reopen_log(self, id: str) -> None:
        """A new log file where the old one was rotated away. Raises Conflict when it does not run."""
        record = self._context.container(id)
        if record.state != RUNNING:
            raise Conflict(f"container {id} is {record.state.lower()}, not running", subject=id)
        log_fd = _open_log(record.log_path)
        try:
            await self._context.monitor(record.pod_sandbox_id).reopen_log(id, log_fd)
        finally:
            os.close(log_fd)

    def watch_oom(self, id: str) -> None:
        """Tells of out-of-memory kills while the container runs."""
        context = self._context
        record = context.container(id)
        try:
            watch = context.cgroups.watch_oom(record.cgroup_path)
        except (OSError, SandboxError) as error:
            log.info("container %s: out-of-memory kills are not watched: %s", id, error)
            return
        loop = asyncio.get_running_loop()

        def readable() -> None:
            if watch.read() > 0 and id in context.records.containers:
                context.emit(RuntimeEvent("oom", record.pod_sandbox_id, id))

        def end() -> None:
            loop.remove_reader(watch.fileno())
            watch.close()

        loop.add_reader(watch.fileno(), readable)
        context.keep_watch(id, end)

    def on_exit(self, exit_record: ExitRecord) -> None:
        """The container's first process ended. Records it once; a repeated report changes nothing."""
        context = self._context
        id = exit_record.process_id
        record = context.records.containers.get(id)
        if record is None or record.state not in (STARTING, RUNNING):
            return
        reason = "Completed" if exit_record.code == 0 else "Error"
        if exit_record.signal == signal.SIGKILL and self._was_oom_killed(record):
            reason = "OOMKilled"
        context.records.change_container(
            id,
            state=EXITED,
            pid=exit_record.pid,
            # By the daemon's clock when it was told of the start, which a short life may precede.
            started_ns=min(record.started_ns or exit_record.started_ns or exit_record.time_ns, exit_record.time_ns),
            finished_ns=exit_record.time_ns,
            exit_code=exit_record.code,
            signal=exit_record.signal,
            reason=reason,
        )
        context.drop_watch(id)
        context.exited.setdefault(id, asyncio.Event()).set()
        context.emit(RuntimeEvent("exited", record.pod_sandbox_id, id))
        context.spawn_task(self._clean_up(record), f"cleaning up after container {id}")

    def _was_oom_killed(self, record: ContainerRecord) -> bool:
        try:
            return self._context.cgroups.oom_kills(record.cgroup_path) > 0
        except (OSError, SandboxError):
            return False

    async def _clean_up(self, record: ContainerRecord) -> None:
        """Ends what the first process left behind in a shared PID namespace; gives the cgroup back."""
        context = self._context
        context.drop_pidfd(record.id)
        await self._release_cgroup(record)
        monitor = context.monitors.get(record.pod_sandbox_id)
        if monitor is not None:
            await monitor.forget(record.id)

    async def _release_cgroup(self, record: ContainerRecord) -> None:
        cgroups = self._context.cgroups
        if cgroups.exists(record.cgroup_path):
            cgroups.kill(record.cgroup_path)
            await cgroups.remove(record.cgroup_path)

    async def stop(self, id: str, grace_s: float) -> None:
        """The stop signal, then after `grace_s` seconds SIGKILL. Idempotent; unknown ids are fine."""
        context = self._context
        record = context.records.containers.get(id)
        if record is None or record.state != RUNNING:
            return
        if grace_s > 0:
            try:
                await context.monitor(record.pod_sandbox_id).signal(id, record.stop_signal)
                await asyncio.wait_for(context.exited[id].wait(), grace_s)
            except TimeoutError:
                log.info("container %s did not stop within %s s", id, grace_s)
            except NotFound:
                pass  # it ended meanwhile
        await self.kill(id)

    async def kill(self, id: str) -> None:
        """SIGKILL to every process of the container, and its exit recorded. Idempotent."""
        context = self._context
        async with context.lock(id):
            record = context.records.containers.get(id)
            if record is None or record.state not in (RUNNING, STARTING):
                return
            monitor = context.monitors.get(record.pod_sandbox_id)
            if monitor is None:
                self._abandon(record)
                await self._clean_up(record)
                return
            with suppress(NotFound):  # its exit is on the way
                await monitor.signal(id, signal.SIGKILL)
            context.cgroups.kill(record.cgroup_path)
            try:
                await asyncio.wait_for(context.exited[id].wait(), KILL_TIMEOUT_S)
            except TimeoutError:
                raise SandboxError(
                    f"container {id} did not die within {KILL_TIMEOUT_S:g} s of SIGKILL",
                    operation="kill",
                    subject=id,
                    hint="a process in uninterruptible sleep (state D) dies when its I/O ends; try again",
                ) from None

    async def abandon(self, pod_sandbox_id: str) -> None:
        """The pod lost its monitor: ends what still runs and records what can be known of the exits. Idempotent."""
        for record in self._context.records.containers_of(pod_sandbox_id):
            if record.state in (STARTING, RUNNING):
                if self._context.cgroups.exists(record.cgroup_path):
                    self._context.cgroups.kill(record.cgroup_path)
                self._abandon(record)
                await self._clean_up(record)

    def _abandon(self, record: ContainerRecord) -> None:
        known = self._exit_on_disk(record)
        if known is not None:
            self.on_exit(known)
            return
        self._context.records.change_container(
            record.id,
            state=EXITED,
            finished_ns=time.time_ns(),
            exit_code=128 + signal.SIGKILL,
            signal=int(signal.SIGKILL),
            reason="ContainerStatusUnknown",
            message="the monitor of the pod died and with it the parent of this process",
        )
        self._context.exited.setdefault(record.id, asyncio.Event()).set()
        self._context.emit(RuntimeEvent("exited", record.pod_sandbox_id, record.id))

    def _exit_on_disk(self, record: ContainerRecord) -> ExitRecord | None:
        records = read_exit_records(self._context.pod_dir(record.pod_sandbox_id))
        return next((r for r in records if r.process_id == record.id), None)

    async def remove(self, id: str) -> None:
        """Kills it if it runs, removes its files and its record. Idempotent."""
        context = self._context
        if id not in context.records.containers:
            return
        await self.kill(id)
        async with context.lock(id):
            record = context.records.containers.get(id)
            if record is None:
                return
            await self._release_cgroup(record)
            await asyncio.to_thread(remove_tree, context.container_dir(record))
            context.records.drop_container(id)
        context.exited.pop(id, None)
        context.locks.pop(id, None)


def _make_overlay_dirs(directory: Path, top_layer: Path) -> None:
    """The upper directory is the root the container sees: it gets mode and owner of the image's own root."""
    for name in ("upper", "work"):
        (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    of_image = top_layer.stat()
    os.chown(directory / "upper", of_image.st_uid, of_image.st_gid)
    (directory / "upper").chmod(stat.S_IMODE(of_image.st_mode))


def _exec_time_ns(result: RunResult) -> int:
    """The wall clock when the plan came to its exec: the answer may be read after the app has ended already."""
    last_mark_ns = max(result.marks.values(), default=time.monotonic_ns())
    return time.time_ns() - max(0, time.monotonic_ns() - last_mark_ns)


def _add_marks(timeline: Timeline, name: str, begin_ns: int, result: RunResult) -> None:
    """A mark closes the span of its name; from the last one to now is the exec."""
    at = begin_ns
    for number, reached_ns in sorted(result.marks.items()):
        if MARK_NAMES[number] != "begin":
            timeline.add(MARK_NAMES[number], at, reached_ns, name)
        at = reached_ns
    timeline.add("exec", at, time.monotonic_ns(), name)


def _signal_number(name: str) -> int:
    """SIGTERM for "". Raises InvalidInput."""
    try:
        return signal_number(name or "SIGTERM")
    except ValueError:
        raise InvalidInput(f"{name!r} is not a signal", subject=name) from None


def _open_log(path: str) -> int:
    """The log file, appended to (0640); /dev/null when there is none. The caller owns it."""
    if not path:
        return os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    Path(path).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
