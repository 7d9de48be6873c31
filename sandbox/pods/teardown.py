"""How a pod ends: its containers stopped within one grace period, then everything that was made for it removed.

Every step is attempted even when one before it failed; what failed is tried again, later and later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from sandbox.errors import NotFound, SandboxError
from sandbox.pods import trees
from sandbox.pods.context import Context, PodEvents
from sandbox.pods.kube import PodManifest
from sandbox.pods.record import APP, INIT, SIDECAR, ContainerRecord, PodRecord, drop

logger = logging.getLogger(__name__)

DEFAULT_GRACE_S = 30.0


class Teardown:
    """Used by the pod's worker only; idempotent."""

    def __init__(self, context: Context, record: PodRecord, pod: PodManifest, observe: Callable[[], None]) -> None:
        """`observe` takes over the exits of stopped containers before the runtime forgets them."""
        self.error: SandboxError | None = None
        self._context = context
        self._record = record
        self._events = PodEvents(context.on_event, record)
        self._pod = pod
        self._observe = observe
        self._hurry = asyncio.Event()
        self._retry_s = 0.0

    def hurry(self) -> None:
        """Containers that are being stopped are killed now."""
        self._hurry.set()

    async def settle(self) -> float | None:
        """Nothing of the pod stays in the runtime or mounted. Returns the seconds until the next try when it failed."""
        record, runtime = self._record, self._context.runtime
        sandbox_id = record.sandbox_id
        steps: list[Callable[[], Awaitable[None]]] = [self._stop_containers]
        if sandbox_id:
            steps += [lambda: runtime.stop_pod_sandbox(sandbox_id), lambda: runtime.remove_pod_sandbox(sandbox_id)]
        steps.append(lambda: self._context.volumes.teardown(record.uid))
        retry_s = await self._all(steps)
        if retry_s is None and sandbox_id:
            record.sandbox_id, record.addresses = "", ()
            self._context.store(record)
        return retry_s

    async def remove(self) -> float | None:
        """The logs; the record stays until `drop_record`. Returns the seconds until the next try when it failed."""
        record = self._record
        directory = self._context.settings.log_directory(record.namespace, record.name, record.uid)
        return await self._all([lambda: trees.remove_tree(directory)])

    def drop_record(self) -> None:
        drop(self._context.database, self._record.uid)

    async def _all(self, steps: list[Callable[[], Awaitable[None]]]) -> float | None:
        failures: list[SandboxError] = []
        for step in steps:
            try:
                await step()
            except SandboxError as error:
                failures.append(error)
            except OSError as error:
                failures.append(
                    SandboxError(f"{error.filename} cannot be removed", operation="remove pod", errno=error.errno or 0)
                )
        if not failures:
            self.error, self._retry_s = None, 0.0
            return None
        settings = self._context.settings
        for failure in failures:
            logger.warning("pod %s/%s: %s", self._record.namespace, self._record.name, failure)
        self.error = failures[0]
        self._events.warning("FailedKillPod", f"error killing pod: {failures[0]}")
        self._retry_s = min(self._retry_s * 2 or settings.teardown_retry_s, settings.teardown_retry_max_s)
        return self._retry_s

    async def _stop_containers(self) -> None:
        """Init and app containers at once, then, with what is left of the grace period, sidecars in reverse."""
        deadline = time.monotonic() + self._grace_s()
        await self._stop_all([c for c in self._record.of_kind(INIT, APP) if _lives(c)], deadline)
        for sidecar in reversed(self._record.of_kind(SIDECAR)):
            if _lives(sidecar):
                await self._stop_all([sidecar], deadline)
        self._observe()

    async def _stop_all(self, containers: list[ContainerRecord], deadline: float) -> None:
        if not containers:
            return
        grace_s = 0.0 if self._hurry.is_set() else max(0.0, deadline - time.monotonic())
        for container in containers:
            if container.running:
                self._events.normal("Killing", f"Stopping container {container.name}", container.name)
        stops = [asyncio.ensure_future(self._stop(container, grace_s)) for container in containers]
        hurried = asyncio.ensure_future(self._hurry.wait())
        stopping = asyncio.ensure_future(asyncio.wait(stops))
        try:
            await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                stops += [asyncio.ensure_future(self._stop(container, 0.0)) for container in containers]
            results = await asyncio.gather(*stops, return_exceptions=True)
        finally:
            hurried.cancel()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _stop(self, container: ContainerRecord, grace_s: float) -> None:
        with contextlib.suppress(NotFound):
            await self._context.runtime.stop_container(container.container_id, grace_s)

    def _grace_s(self) -> float:
        if self._record.grace_s is not None:
            return self._record.grace_s
        seconds = self._pod.spec.terminationGracePeriodSeconds
        return DEFAULT_GRACE_S if seconds is None else float(seconds)


def _lives(container: ContainerRecord) -> bool:
    return bool(container.container_id) and container.termination is None
