"""The life of one pod: a task that looks at what is wanted and what is, and takes the next step.

    run:     pod sandbox ─▶ volumes ─▶ init containers, one after the other ─▶ app containers, all at once
    settle:  (stopped, finished, over its deadline) stop containers ─▶ remove the pod sandbox ─▶ volumes
    remove:  settle ─▶ logs ─▶ record

The worker is level-triggered: an event only wakes it. Every round starts from the record and the runtime's answer, so
that a round after a crash, a lost event or a failed step is like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from sandbox.errors import SandboxError
from sandbox.pods import policy, status
from sandbox.pods.containers import ContainerSteps
from sandbox.pods.context import Context, PodEvents
from sandbox.pods.kube import PodManifest
from sandbox.pods.record import APP, INIT, REMOVED, RUNNING, SIDECAR, ContainerRecord, Finish, PodRecord, now_ns
from sandbox.pods.resize import Resize
from sandbox.pods.resizing import ResizeSteps
from sandbox.pods.sandboxes import SandboxSteps
from sandbox.pods.teardown import Teardown
from sandbox.runtime.updates import ResourceChange
from sandbox.timeline import Timeline

logger = logging.getLogger(__name__)

MAX_SPANS = 1000


class PodWorker:
    """One a pod. `strict`: somebody waits for the first start; its failure removes the pod and becomes `failure`."""

    def __init__(self, context: Context, record: PodRecord, pod: PodManifest) -> None:
        self.record = record
        self.pod = pod
        self.strict = False
        self.timeline = Timeline()
        self.failure: SandboxError | None = None
        """Why the pod was removed again."""
        self.last_object: dict[str, Any] | None = None
        """The Pod object as it was when the record was dropped."""
        self.gone = False
        self._context = context
        self._events = PodEvents(context.on_event, record)
        self._steps = ContainerSteps(context, record, pod)
        self._sandbox = SandboxSteps(context, record, pod)
        self._resizing = ResizeSteps(context, record)
        self._teardown = Teardown(context, record, pod, self._observe)
        self._was_ready = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    # What the controller calls ------------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"pod {self.record.name}")

    def wake(self) -> None:
        self._wake.set()

    def out_of_memory(self, container_id: str) -> None:
        """The kernel killed a process of this container; the container may live on."""
        self._steps.out_of_memory(container_id)

    def resize_changes(self, wanted: Resize) -> list[ResourceChange]:
        """What the runtime has to write at once for other limits."""
        return self._resizing.changes(wanted.pod, wanted)

    def accept_resize(self, wanted: Resize) -> None:
        """The limits that could be are written: stores the manifest, and sets the worker to what is left."""
        if self.gone:
            return
        self._resizing.accept(wanted)
        self.pod = wanted.pod
        self._steps.take(wanted.pod)
        self._sandbox.take(wanted.pod)
        self._store()
        self.wake()

    def want(self, desired: str, grace_s: float | None) -> None:
        """Stores what is wanted and sets the worker to it; a shorter grace overtakes one that runs. Idempotent."""
        record = self.record
        if desired == REMOVED and not record.deleted_ns:
            record.deleted_ns = now_ns()
        if record.desired != REMOVED:
            record.desired = desired
        if grace_s is not None:
            record.grace_s = grace_s
            if grace_s == 0:
                self._teardown.hurry()
        self._teardown.error = None
        self._store()
        self.wake()

    def object(self) -> dict[str, Any]:
        return self.last_object or status.pod_object(self.record, self.pod, self._context.settings.host_ip)

    @property
    def teardown_error(self) -> SandboxError | None:
        """Why the last attempt to stop or remove the pod did not finish; it is tried again."""
        return self._teardown.error

    async def changed(self) -> None:
        """Returns at the next stored change of the pod, or when it is gone."""
        if self.gone:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def notify(self) -> None:
        """Wakes those in `changed`."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def close(self) -> None:
        """Ends the task, not the pod."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._resizing.close()

    # The loop -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self.gone:
            self._wake.clear()
            try:
                delay_s = await self._round()
            except SandboxError as error:
                delay_s = self._failed(error)
            except Exception as error:  # the pod's own fault or ours: the other pods go on
                logger.exception("pod %s/%s: a round failed", self.record.namespace, self.record.name)
                delay_s = self._failed(SandboxError(f"internal error: {error!r}", operation="run pod"))
            if not self.gone:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), delay_s)

    async def _round(self) -> float | None:
        """One step towards what is wanted; returns the seconds after which to look again (None: only when woken)."""
        record = self.record
        self._observe()
        if record.desired == RUNNING and record.finish is None:
            record.finish = policy.natural_finish(record) or self._overdue()
            if record.finish is not None:
                self._store()
        if record.desired == RUNNING and record.finish is None:
            return await self._advance()
        if record.desired == REMOVED:
            return await self._remove()
        if not record.settled:
            retry_s = await self._teardown.settle()
            if retry_s is not None:
                return retry_s
            record.settled = True
            self._store()
        if record.remove_when_done:
            self.want(REMOVED, None)
        return None

    def _failed(self, error: SandboxError) -> float:
        """A round ended with an error: the first start is undone, later ones are tried again."""
        if self.strict and self.record.desired == RUNNING:
            self._events.warning("Failed", f"Error: {error}")
            self.strict = False
            self.failure = error
            self.want(REMOVED, 0)
        else:
            logger.warning("pod %s/%s: %s", self.record.namespace, self.record.name, error)
            if self.record.desired != RUNNING:
                self._teardown.error = error  # who waits for the end is told, and the end is tried again
                self.notify()
        return self._context.settings.teardown_retry_s

    def _observe(self) -> None:
        """Exits are stored in the transaction that tells of them: each is told once, whenever the daemon dies."""
        lost = self._sandbox.lost()
        with self._context.database.transaction():
            changed = [self._steps.observe(container, lost=lost) for container in self.record.containers]
            if any(changed):
                self._store()

    def _overdue(self) -> Finish | None:
        left = self._deadline_left_s()
        if left is None or left > 0:
            return None
        sentence = "Pod was active on the node longer than the specified deadline"
        self._events.normal("DeadlineExceeded", sentence)
        return Finish(policy.FAILED, "DeadlineExceeded", sentence)

    def _deadline_left_s(self) -> float | None:
        seconds = self.pod.spec.activeDeadlineSeconds
        if seconds is None or not self.record.started_ns:
            return None
        return float(seconds) - (now_ns() - self.record.started_ns) / 1e9

    async def _advance(self) -> float | None:
        record = self.record
        if not record.started_ns:
            record.started_ns = now_ns()
        retry_s = await self._sandbox.ensure(self._spans(), strict=self.strict)
        if retry_s is None:
            retry_s = await self._advance_containers()
        if record.resizing and retry_s is None:
            retry_s = await self._resizing.settle(self.pod)
        if policy.is_ready(record):
            self.strict, self._was_ready = False, True
        left = self._deadline_left_s()
        delays = [seconds for seconds in (retry_s, left) if seconds is not None]
        return max(0.0, min(delays)) if delays else None

    async def _advance_containers(self) -> float | None:
        record = self.record
        if not record.initialized:
            for container in record.of_kind(INIT, SIDECAR):
                if container.succeeded if container.kind == INIT else container.running:
                    continue
                wait_s = await self._bring(container)
                if container.kind == INIT or not container.running:
                    return wait_s
            record.initialized = True
            self._store()
        due = [c for c in record.of_kind(SIDECAR, APP) if self._steps.needs_start(c)]
        if len(due) == 1:
            return await self._bring(due[0])
        results = await asyncio.gather(*(self._bring(c) for c in due), return_exceptions=True)
        delays = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            if result is not None:
                delays.append(result)
        return min(delays, default=None)

    async def _bring(self, container: ContainerRecord) -> float | None:
        """Starts the container when its time has come; returns the seconds until then otherwise."""
        if container.running:
            return None
        wait_ns = self._steps.delay_ns(container)
        if wait_ns <= 0:
            await self._steps.start(container, self._spans(), strict=self.strict)
            if container.running:
                return None
            self.wake()  # it ended at once, or failed: the next round decides
            return None
        return wait_ns / 1e9

    async def _remove(self) -> float | None:
        retry_s = await self._teardown.settle()
        if retry_s is None:
            retry_s = await self._teardown.remove()
        if retry_s is not None:
            self.notify()
            return retry_s
        self.last_object = self.object()
        self._teardown.drop_record()
        self.gone = True
        self._context.changed(self.record)
        self.notify()
        return None

    def _spans(self) -> Timeline:
        """The pod's timeline until it is ready for the first time; restarts are not part of it."""
        return Timeline() if self._was_ready or len(self.timeline.spans) > MAX_SPANS else self.timeline

    def _store(self) -> None:
        self._steps.store()
