"""One container of a pod: created, started, observed, ended, backed off. The worker says when.

Each step is stored before the runtime is asked for it, so that a killed daemon finds at every point either a container
that its record names, or one that no record names and that is therefore removed.
"""

from __future__ import annotations

import logging

from sandbox.errors import ImageNotFound, InvalidInput, NotFound, SandboxError
from sandbox.pods import policy, resize
from sandbox.pods.context import Context, PodEvents
from sandbox.pods.kube import Container, PodManifest
from sandbox.pods.record import ContainerRecord, PodRecord, Termination, now_ns
from sandbox.runtime.status import ContainerStatus
from sandbox.timeline import Timeline

logger = logging.getLogger(__name__)

START_ERROR_CODE = 128
KILLED_CODE = 137
UNKNOWN = "ContainerStatusUnknown"


class ContainerSteps:
    """The steps for the containers of one pod. Used by its worker only."""

    def __init__(self, context: Context, record: PodRecord, pod: PodManifest) -> None:
        self._context = context
        self._record = record
        self._events = PodEvents(context.on_event, record)
        self._pod = pod
        self._told_of_memory: set[str] = set()
        self._specs: dict[str, Container] = {c.name: c for c in pod.containers}

    def take(self, pod: PodManifest) -> None:
        """Another manifest of the same pod: of the next instances."""
        self._pod = pod
        self._specs = {c.name: c for c in pod.containers}

    def store(self) -> None:
        self._context.store(self._record)

    def observe(self, container: ContainerRecord, *, lost: bool) -> bool:
        """Takes over what the runtime says of a container that had not ended; True when anything changed.

        `lost`: its pod sandbox is gone, so what is not known to have ended has been killed.
        """
        if not container.container_id or container.termination is not None:
            return False
        try:
            status = self._context.runtime.container_status(container.container_id)
        except NotFound:
            message = "the container was not found in the runtime; how it ended is not known"
            self._ended(container, Termination(container.container_id, KILLED_CODE, UNKNOWN, 9, message))
            return True
        if status.state == "EXITED":
            self._ended(container, _termination(status))
        elif lost:
            message = "the pod sandbox was lost"
            ended = Termination(status.id, KILLED_CODE, "Error", 9, message, status.started_ns, now_ns())
            self._ended(container, ended)
        elif status.state == "RUNNING" and not container.running:
            self._started(container, status)
        else:
            return False
        return True

    def out_of_memory(self, container_id: str) -> None:
        """Told once an instance: a container whose workers are killed again and again does not fill the log."""
        for container in self._record.containers:
            if container.container_id == container_id and container.termination is None:
                self._tell_of_memory(container)

    def _tell_of_memory(self, container: ContainerRecord) -> None:
        if container.container_id not in self._told_of_memory:
            self._told_of_memory &= {c.container_id for c in self._record.containers}
            self._told_of_memory.add(container.container_id)
            sentence = f"Memory limit reached: the kernel killed a process of container {container.name}"
            self._events.warning("OOMKilling", sentence, container.name)

    def needs_start(self, container: ContainerRecord) -> bool:
        return not container.running and policy.will_restart(self._record, container)

    def delay_ns(self, container: ContainerRecord) -> int:
        """Nanoseconds until the next attempt may begin; not positive: now. Announces a back-off once."""
        if container.resize_restart:
            return 0
        now = now_ns()
        settings = self._context.settings
        if container.termination is None:
            return container.retry_ns - now
        wait = container.backoff.ready_ns(container.termination.finished_ns, settings.backoff_reset_s) - now
        if wait > 0 and not container.waiting_reason:
            where = f"{container.name} in pod {self._record.name}_{self._record.namespace}({self._record.uid})"
            container.waiting_reason = "CrashLoopBackOff"
            container.waiting_message = f"back-off {container.backoff.delay_s:g}s restarting failed container {where}"
            self._events.warning("BackOff", f"Back-off restarting failed container {where}", container.name)
            self.store()
        return wait

    async def start(self, container: ContainerRecord, timeline: Timeline, *, strict: bool) -> None:
        """Creates (unless a crash left it created) and starts the next instance.

        A failure is recorded with the time of the next attempt; `strict` raises it instead. Either way nothing of the
        attempt stays in the runtime.
        """
        previous = container.container_id
        try:
            if not await self._created(container, timeline, strict):
                return
            try:
                await self._context.runtime.start_container(container.container_id, timeline)
            except SandboxError as error:
                await self._discard(container.container_id)
                if strict:
                    _say_whose(container, error)
                    raise
                self._start_failed(container, error)
                return
        finally:
            if previous and previous != container.container_id:
                await self._discard(previous)
        with self._context.database.transaction():
            self._started(container, self._context.runtime.container_status(container.container_id))
            self.store()

    async def _created(self, container: ContainerRecord, timeline: Timeline, strict: bool) -> bool:
        if container.container_id and container.termination is None:
            return True  # a daemon before this one got that far
        try:
            await self._create(container, timeline)
        except SandboxError as error:
            if strict:
                _say_whose(container, error)
                raise
            self._creation_failed(container, error)
            return False
        return True

    async def _create(self, container: ContainerRecord, timeline: Timeline) -> None:
        settings = self._context.settings
        if container.termination is not None and not container.resize_restart:
            container.backoff.advance(
                container.termination.finished_ns,
                settings.backoff_base_s,
                settings.backoff_max_s,
                settings.backoff_reset_s,
            )
        resized = container.resize_restart
        container.begin_attempt()
        container.retry_ns = 0
        container.resources = resize.container_of(self._record.manifest, container.name).get("resources", {})
        self.store()
        record = self._record
        config = self._context.translator.container_config(
            self._pod, record.uid, self._specs[container.name], container.attempt, record.addresses
        )
        container.container_id = await self._context.runtime.create_container(record.sandbox_id, config, timeline)
        self.store()
        self._drop_old_log(container)
        if resized:
            self._events.normal("Resized", f"Container {container.name} starts with new limits", container.name)
        self._events.normal("Created", f"Created container: {container.name}", container.name)

    def _started(self, container: ContainerRecord, status: ContainerStatus) -> None:
        container.running = status.state == "RUNNING"
        container.started_ns = status.started_ns
        container.image_id = status.image_id
        container.waiting_reason = container.waiting_message = ""
        self._events.normal("Started", f"Started container {container.name}", container.name)
        if status.state == "EXITED":
            self._ended(container, _termination(status))

    def _ended(self, container: ContainerRecord, termination: Termination) -> None:
        container.end_attempt(termination)
        sentence = f"Container {container.name} exited with code {termination.exit_code}"
        if termination.signal:
            sentence += f" (signal {termination.signal})"
        if termination.reason == "OOMKilled":
            self._tell_of_memory(container)
        report = self._events.warning if termination.exit_code else self._events.normal
        report("Exited", sentence, container.name)

    def _creation_failed(self, container: ContainerRecord, error: SandboxError) -> None:
        if isinstance(error, ImageNotFound):
            container.waiting_reason = error.reason
        elif isinstance(error, InvalidInput):
            container.waiting_reason = "CreateContainerConfigError"
        else:
            container.waiting_reason = "CreateContainerError"
        container.waiting_message = str(error)
        settings, now = self._context.settings, now_ns()
        container.backoff.advance(now, settings.backoff_base_s, settings.backoff_max_s, settings.backoff_reset_s)
        container.retry_ns = now + int(container.backoff.delay_s * 1e9)
        self._events.warning("Failed", f"Error: {error}", container.name)
        self.store()

    def _start_failed(self, container: ContainerRecord, error: SandboxError) -> None:
        now = now_ns()
        message = str(error)
        container.end_attempt(Termination(container.container_id, START_ERROR_CODE, "StartError", 0, message, now, now))
        container.waiting_reason, container.waiting_message = "RunContainerError", message
        if not container.backoff.delay_s:  # a start that failed is not tried again at once
            settings = self._context.settings
            container.backoff.advance(now, settings.backoff_base_s, settings.backoff_max_s, settings.backoff_reset_s)
        self._events.warning("Failed", f"Error: {message}", container.name)
        self.store()

    async def _discard(self, container_id: str) -> None:
        """Removes an instance that is over. What cannot be removed now goes with the pod sandbox."""
        try:
            await self._context.runtime.remove_container(container_id)
        except SandboxError as error:
            logger.warning("container %s cannot be removed yet: %s", container_id, error)

    def _drop_old_log(self, container: ContainerRecord) -> None:
        """`logs --previous` needs the attempt before this one, nothing needs those before it."""
        record = self._record
        directory = self._context.settings.log_directory(record.namespace, record.name, record.uid)
        (directory / container.name / f"{container.attempt - 2}.log").unlink(missing_ok=True)


def _say_whose(container: ContainerRecord, error: SandboxError) -> None:
    """A pod has several containers: the sentence names the one."""
    if not error.message.startswith(f"container {container.name} "):
        error.message = f"container {container.name}: {error.message}"


def _termination(status: ContainerStatus) -> Termination:
    return Termination(
        container_id=status.id,
        exit_code=status.exit_code,
        reason=status.reason or ("Error" if status.exit_code else "Completed"),
        signal=status.signal,
        message=status.message,
        started_ns=status.started_ns,
        finished_ns=status.finished_ns or now_ns(),
    )
