"""The pod sandbox of a pod: made, lost, made again."""

from __future__ import annotations

from sandbox.errors import NotFound, SandboxError
from sandbox.pods.context import Context, PodEvents
from sandbox.pods.kube import PodManifest
from sandbox.pods.record import INIT, PodRecord, now_ns
from sandbox.timeline import Timeline


class SandboxSteps:
    """Used by the pod's worker only."""

    def __init__(self, context: Context, record: PodRecord, pod: PodManifest) -> None:
        self._context = context
        self._record = record
        self._events = PodEvents(context.on_event, record)
        self._pod = pod

    def take(self, pod: PodManifest) -> None:
        """Another manifest of the same pod: of the next pod sandbox."""
        self._pod = pod

    def lost(self) -> bool:
        """The record names a pod sandbox that no longer holds the pod's namespaces."""
        if not self._record.sandbox_id:
            return False
        try:
            return self._context.runtime.pod_sandbox_status(self._record.sandbox_id).state != "READY"
        except NotFound:
            return True

    async def ensure(self, timeline: Timeline, *, strict: bool) -> float | None:
        """A pod sandbox and the volumes; returns the seconds until the next attempt when that has to wait.

        `strict` raises a failure instead. A lost pod sandbox is removed and followed by a new one, in which the init
        containers run again.
        """
        record = self._record
        if record.sandbox_id and not self.lost():
            return None
        wait_ns = record.sandbox_retry_ns - now_ns()
        if wait_ns > 0:
            return wait_ns / 1e9
        try:
            if record.sandbox_id:
                await self._drop_lost()
            await self._create(timeline)
        except SandboxError as error:
            if strict:
                raise
            return self._failed(error)
        return None

    async def _drop_lost(self) -> None:
        record = self._record
        self._events.normal("SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        await self._context.runtime.stop_pod_sandbox(record.sandbox_id)
        await self._context.runtime.remove_pod_sandbox(record.sandbox_id)
        record.sandbox_id, record.addresses = "", ()
        record.sandbox_attempt += 1
        record.initialized = False
        for container in record.of_kind(INIT):  # as the kubelet has it, they run again
            if container.termination is not None:
                container.begin_attempt()
                container.waiting_reason = ""
        self._store()

    async def _create(self, timeline: Timeline) -> None:
        record, context = self._record, self._context
        record.waiting_reason, record.waiting_message = "ContainerCreating", ""
        self._store()
        with timeline.span("volumes"):
            context.volumes.prepare(self._pod, record.uid)
        config = context.translator.sandbox_config(self._pod, record.uid, record.sandbox_attempt)
        record.sandbox_id = await context.runtime.run_pod_sandbox(config, timeline)
        record.addresses = context.runtime.pod_sandbox_status(record.sandbox_id).addresses
        record.waiting_reason, record.sandbox_retry_ns = "", 0
        self._store()

    def _failed(self, error: SandboxError) -> float:
        record, settings, now = self._record, self._context.settings, now_ns()
        reason = "FailedMount" if error.operation.startswith(("make volume", "mount tmpfs", "check hostPath")) else ""
        record.waiting_reason = reason or "FailedCreatePodSandBox"
        record.waiting_message = str(error)
        record.sandbox_backoff.advance(now, settings.backoff_base_s, settings.backoff_max_s, settings.backoff_reset_s)
        record.sandbox_retry_ns = now + int(record.sandbox_backoff.delay_s * 1e9)
        self._events.warning(record.waiting_reason, f"Failed to create pod sandbox: {error}")
        self._store()
        return record.sandbox_backoff.delay_s

    def _store(self) -> None:
        self._context.store(self._record)
