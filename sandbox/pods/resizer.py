"""Resizes of several pods as one: planned, checked and written together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from sandbox.errors import Conflict
from sandbox.pods import resize
from sandbox.pods.context import Context
from sandbox.pods.kube import PodManifest
from sandbox.pods.record import REMOVED
from sandbox.pods.resize import Patch, Resize
from sandbox.pods.worker import PodWorker

Planned = list[tuple[PodWorker, Resize]]


class Resizer:
    """`lock`: a plan holds only for the manifest it was made from, so nothing comes between it and its end."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.lock = asyncio.Lock()

    def plan(self, pods: Iterable[PodManifest], workers: Mapping[tuple[str, str], PodWorker]) -> Planned:
        """Those of `pods` that are there with other limits. Raises Conflict when other things differ."""
        planned: Planned = []
        for pod in pods:
            worker = workers.get((pod.namespace, pod.name))
            if worker is None or worker.record.desired == REMOVED:
                continue
            wanted = resize.plan(worker.pod, pod)
            if wanted is not None:
                self._check(worker)
                planned.append((worker, wanted))
        return planned

    def _check(self, worker: PodWorker) -> None:
        record = worker.record
        subject = f"{record.namespace}/{record.name}"
        if record.finish is not None or record.desired == REMOVED:
            what = "is being removed" if record.desired == REMOVED else "has ended"
            hint = f"remove it first with `sandbox rm {record.name}`"
            raise Conflict(f"pod {subject} {what}, its limits stay", operation="resize", subject=subject, hint=hint)

    async def apply(self, planned: Planned) -> None:
        """All or nothing, but for the restarts, which follow. Raises InvalidInput, KernelError."""
        changes = [change for worker, wanted in planned for change in worker.resize_changes(wanted)]

        def stored() -> None:
            for worker, wanted in planned:
                worker.accept_resize(wanted)

        await self._context.runtime.update_resources(changes, stored)

    async def run(
        self, pods: Iterable[PodManifest], workers: Mapping[tuple[str, str], PodWorker], check: Callable[[], None]
    ) -> None:
        """Resizes those of `pods` that are there with other limits; `check` raises what forbids the rest before."""
        if not self.plan(pods, workers):
            return  # nearly always: nobody waits for a resize of another pod
        async with self.lock:
            planned = self.plan(pods, workers)
            check()
            await self.apply(planned)

    async def patch(self, worker: PodWorker, patch: Patch) -> list[str]:
        """New values for one container; what changed, in words. Raises as `apply`, and Conflict."""
        async with self.lock:
            self._check(worker)
            wanted = resize.plan(worker.pod, resize.patched(worker.pod, patch))
            if wanted is None:
                return []
            await self.apply([(worker, wanted)])
            return [str(each) for each in wanted.containers]
