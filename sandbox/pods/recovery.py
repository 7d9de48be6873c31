"""What a killed daemon may have left: pod sandboxes, volumes and logs that no record names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from sandbox.errors import SandboxError
from sandbox.pods import trees
from sandbox.pods.ports import RuntimePort
from sandbox.pods.record import PodRecord
from sandbox.pods.settings import PodSettings
from sandbox.pods.translate import OWNER, OWNER_PODS
from sandbox.pods.volumes import Volumes

logger = logging.getLogger(__name__)


class Orphans:
    """Removes them in the background, each by itself: one that is stuck holds up neither the others nor the pods."""

    def __init__(self, runtime: RuntimePort, settings: PodSettings, volumes: Volumes) -> None:
        self._runtime = runtime
        self._settings = settings
        self._volumes = volumes
        self._tasks: set[asyncio.Task[None]] = set()

    def clear(self, records: Sequence[PodRecord]) -> None:
        """Starts the removal of what none of `records` names."""
        sandboxes = {record.sandbox_id for record in records if record.sandbox_id}
        uids = {record.uid for record in records}
        for status in self._runtime.list_pod_sandboxes():
            if (OWNER, OWNER_PODS) in status.config.labels and status.id not in sandboxes:
                self._start(self._remove_sandbox(status.id), f"pod sandbox {status.id}")
        named = {container.container_id for record in records for container in record.containers}
        strays = [c.id for id in sandboxes for c in self._runtime.list_containers(id) if c.id not in named]
        for id in strays:
            self._start(self._runtime.remove_container(id), f"container {id}")
        for uid in self._volumes.owners() - uids:
            self._start(self._volumes.teardown(uid), f"volumes of {uid}")
        if self._settings.logs_directory.is_dir():
            for entry in self._settings.logs_directory.iterdir():
                if entry.name.rpartition("_")[2] not in uids:
                    self._start(trees.remove_tree(entry), f"logs {entry.name}")

    async def close(self) -> None:
        """What is not done is found again by the next daemon."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _remove_sandbox(self, id: str) -> None:
        await self._runtime.stop_pod_sandbox(id)
        await self._runtime.remove_pod_sandbox(id)

    def _start(self, step: Coroutine[Any, Any, None], what: str) -> None:
        async def run() -> None:
            try:
                await step
            except (SandboxError, OSError) as error:
                logger.warning("%s belongs to no pod and cannot be removed: %s", what, error)

        task = asyncio.get_running_loop().create_task(run(), name=f"remove {what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
