"""A resize of one pod carried out: what can change in place first, then, container by container, restarts.

`PodRecord.resizing` says that something is left. The worker looks in every round, so that a daemon that died in between
changes nothing: containers marked `resize_restart` are stopped and start with their new limits, and whatever differs
from the manifest afterwards (a container that was just being created, the pod's own cgroup) follows.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sandbox.cgroups.changes import wider
from sandbox.errors import NotFound, SandboxError
from sandbox.pods import limits, resize
from sandbox.pods.context import Context, PodEvents
from sandbox.pods.kube import PodManifest
from sandbox.pods.record import APP, SIDECAR, ContainerRecord, PodRecord
from sandbox.runtime.updates import ResourceChange

logger = logging.getLogger(__name__)

RETRY_S = 10.0
DEFAULT_GRACE_S = 30.0


class ResizeSteps:
    """Used by the pod's worker only."""

    def __init__(self, context: Context, record: PodRecord) -> None:
        self._context = context
        self._record = record
        self._events = PodEvents(context.on_event, record)
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._told = ""

    def changes(self, pod: PodManifest, wanted: resize.Resize | None = None) -> list[ResourceChange]:
        """What the runtime's limits lack of those of `pod`, without containers that are, or by `wanted` will be,
        restarted; while there are any the pod's own limits only grow."""
        record, runtime, settings = self._record, self._context.runtime, self._context.settings
        restarted = {each.name for each in wanted.containers if each.restart} if wanted else set()
        specs = {container.name: container for container in pod.containers}
        found: list[ResourceChange] = []
        waiting = False
        for container in record.containers:
            if not container.container_id or container.termination is not None:
                continue
            if container.resize_restart or (container.name in restarted and container.running):
                waiting = True
                continue
            try:
                status = runtime.container_status(container.container_id)
            except NotFound:
                continue
            resources = limits.container_resources(pod, specs[container.name], settings)
            if status.state != "EXITED" and status.config.resources != resources:
                found.append(ResourceChange(container.container_id, resources))
        try:
            sandbox = runtime.pod_sandbox_status(record.sandbox_id)
        except NotFound:
            return found
        resources = limits.pod_resources(pod, settings)
        if waiting:
            resources = wider(sandbox.config.resources, resources)
        if sandbox.state == "READY" and sandbox.config.resources != resources:
            found.append(ResourceChange(sandbox.id, resources))
        return found

    def accept(self, wanted: resize.Resize) -> None:
        """Takes the new manifest into the record, and tells; what can change in place has changed."""
        record = self._record
        record.manifest = wanted.pod.to_json()
        for each in wanted.containers:
            container = record.container(each.name)
            assert container is not None
            if each.restart and container.running:
                container.resize_restart = True
                sentence = f"Container {container.name} is restarted to change {', '.join(each.changes)}"
                self._events.normal("ResizeStarted", sentence, container.name)
            elif container.container_id and container.termination is None:
                container.resources = _resources(record, container)
                self._events.normal("Resized", f"Resized container {each}", container.name)
        record.resizing = bool(record.sandbox_id)

    async def settle(self, pod: PodManifest) -> float | None:
        """Goes on with what is left; returns the seconds until the next try when that failed."""
        record = self._record
        pending = [c for c in record.of_kind(SIDECAR, APP) if c.resize_restart]
        for container in pending:
            if container.running and container.container_id not in self._stopping:
                task = asyncio.get_running_loop().create_task(self._stop(container, pod))
                self._stopping[container.container_id] = task
        if pending:
            return None
        try:
            changes = self.changes(pod)
            if changes:
                await self._context.runtime.update_resources(changes)
        except SandboxError as error:
            return self._failed(error)
        for container in record.containers:
            if container.container_id in {change.id for change in changes}:
                container.resources = _resources(record, container)
        record.resizing = False
        self._context.store(record)
        return None

    def _failed(self, error: SandboxError) -> float:
        if str(error) != self._told:
            self._told = str(error)
            self._events.warning("ResizeFailed", f"Error: {error}")
        return RETRY_S

    async def _stop(self, container: ContainerRecord, pod: PodManifest) -> None:
        id = container.container_id
        seconds = pod.spec.terminationGracePeriodSeconds
        self._events.normal("Killing", f"Stopping container {container.name} to change its limits", container.name)
        try:
            await self._context.runtime.stop_container(id, DEFAULT_GRACE_S if seconds is None else float(seconds))
        except SandboxError as error:
            logger.warning("container %s cannot be stopped to change its limits yet: %s", id, error)
        finally:
            self._stopping.pop(id, None)

    async def close(self) -> None:
        tasks = list(self._stopping.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _resources(record: PodRecord, container: ContainerRecord) -> dict[str, Any]:
    return resize.container_of(record.manifest, container.name).get("resources") or {}
