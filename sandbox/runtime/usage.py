"""What every pod uses now, in one pass over the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sandbox.cgroups.driver import CgroupStats
from sandbox.cgroups.sampler import Sampler
from sandbox.errors import NotFound
from sandbox.runtime.context import Context
from sandbox.runtime.records import READY, RUNNING


@dataclass(frozen=True)
class PodUsage:
    """`containers`: name and use of those that run."""

    namespace: str
    name: str
    stats: CgroupStats
    containers: tuple[tuple[str, CgroupStats], ...]


class Usage:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._sampler = Sampler(context.cgroups)

    def watched(self) -> AbstractContextManager[None]:
        """While it is, the files that `read` reads stay open."""
        return self._sampler.watched()

    def read(self, namespace: str = "", names: Collection[str] = ()) -> list[PodUsage]:
        """Pods that run: all, or those of a namespace and of these names. What ends meanwhile is left out."""
        records = self._context.records
        running = defaultdict(list)
        for container in records.containers.values():
            if container.state == RUNNING:
                running[container.pod_sandbox_id].append(container)
        found: list[PodUsage] = []
        for sandbox in records.sandboxes.values():
            pod = sandbox.config.metadata
            if sandbox.state != READY or namespace not in ("", pod.namespace) or (names and pod.name not in names):
                continue
            whole = self._sample(sandbox.cgroup_path)
            if whole is not None:
                each = [(c.config.name, self._sample(c.cgroup_path)) for c in running[sandbox.id]]
                use = tuple((name, stats) for name, stats in each if stats is not None)
                found.append(PodUsage(pod.namespace, pod.name, whole, use))
        if self._sampler.kept:
            live = {record.cgroup_path for record in records.sandboxes.values()}
            self._sampler.retain(live | {record.cgroup_path for record in records.containers.values()})
        return found

    def of(self, path: str) -> CgroupStats:
        """Of one cgroup. Raises NotFound."""
        return self._sampler.sample(path)

    def _sample(self, path: str) -> CgroupStats | None:
        try:
            return self._sampler.sample(path)
        except NotFound:
            return None
