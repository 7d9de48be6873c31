"""The cgroup v1 driver: the same path in every hierarchy."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.cgroups import tree
from sandbox.cgroups.driver import CgroupEntry, CgroupStats, OomWatch
from sandbox.cgroups.resources import CgroupResources
from sandbox.cgroups.v1.blkio import BlkIO
from sandbox.cgroups.v1.cpu import Cpu, CpuAcct, CpuSet
from sandbox.cgroups.v1.memory import Memory, MemoryOomWatch
from sandbox.cgroups.v1.small import Devices, Freezer, HugeTlb, Pids
from sandbox.cgroups.values import check_values
from sandbox.errors import NotFound, UnsupportedByHost

CONTROLLERS = (Cpu, CpuAcct, CpuSet, Memory, Pids, BlkIO, HugeTlb, Devices, Freezer)

AnyController = Cpu | CpuAcct | CpuSet | Memory | Pids | BlkIO | HugeTlb | Devices | Freezer

KILL_ROUNDS = 100


class V1Driver:
    """`mounts`: controller → where its hierarchy is mounted; controllers mounted together share a directory."""

    mode = "v1"

    def __init__(self, mounts: Mapping[str, str]) -> None:
        known = {kind.name: kind for kind in CONTROLLERS}
        self._kinds: dict[str, type[AnyController]] = {n: known[n] for n in known if n in mounts}
        self._mounts = {name: mounts[name] for name in self._kinds}
        self._roots = tuple(dict.fromkeys(self._mounts.values()))
        self.controllers = frozenset(self._kinds)

    @property
    def mounts(self) -> Mapping[str, str]:
        """Controller → where its hierarchy is mounted."""
        return self._mounts

    def _controller(self, name: str, path: str) -> AnyController:
        return self._kinds[name](f"{self._mounts[name]}/{path}")

    def _all(self, path: str) -> Iterator[AnyController]:
        for name in self._kinds:
            yield self._controller(name, path)

    def _directories(self, path: str) -> list[str]:
        path = tree.clean(path)
        return [f"{root}/{path}" for root in self._roots]

    def check(self, resources: CgroupResources) -> None:
        check_values(resources)
        for kind in CONTROLLERS:
            if kind.name not in self._kinds and kind.wanted(resources):
                raise UnsupportedByHost(
                    f"cgroup controller {kind.name} is not mounted", operation="check limits", subject=kind.name
                )
        if resources.memory_high_bytes is not None:
            raise UnsupportedByHost(
                "memory.high needs cgroup v2, and the memory controller is mounted as v1",
                operation="check limits",
                subject="memory",
            )
        if resources.unified:
            raise UnsupportedByHost(
                f"{resources.unified[0][0]} needs cgroup v2", operation="check limits", subject="unified"
            )
        if resources.cpu_burst_us is not None and not os.access(f"{self._mounts['cpu']}/cpu.cfs_burst_us", os.F_OK):
            raise UnsupportedByHost("cpu burst needs Linux 5.14", operation="check limits", subject="cpu")

    def create(self, path: str, resources: CgroupResources) -> None:
        path = tree.clean(path)
        self.check(resources)
        made: list[str] = []
        try:
            for root in self._roots:
                made += tree.make(root, path)
            if "cpuset" in self._kinds:
                CpuSet(f"{self._mounts['cpuset']}/{path}").inherit()
            self._apply(path, resources)
        except BaseException:
            tree.unmake(made)
            raise

    def _apply(self, path: str, resources: CgroupResources) -> None:
        for name, kind in self._kinds.items():
            if kind.wanted(resources):
                self._controller(name, path).apply(resources)

    def update(self, path: str, resources: CgroupResources) -> None:
        path = tree.clean(path)
        self.check(resources)
        self._must_exist(path)
        self._apply(path, resources)

    def _must_exist(self, path: str) -> None:
        if not self.exists(path):
            raise NotFound(f"no cgroup {path}", subject=path)

    def entry(self, path: str, beside: int = 0) -> CgroupEntry:
        return CgroupEntry(tuple(f"{directory}/tasks" for directory in self._directories(path)), None)

    def processes(self, path: str) -> list[int]:
        found: set[int] = set()
        for directory in self._directories(path):
            found |= tree.processes(directory)
        return sorted(found)

    def kill(self, path: str) -> None:
        """Frozen, nobody escapes by forking while the list is read; a frozen task dies when it is thawed."""
        freezers = []
        if "freezer" in self._kinds:
            top = f"{self._mounts['freezer']}/{tree.clean(path)}"
            freezers = [Freezer(directory) for directory in tree.subtree(top)]
        try:
            for freezer in reversed(freezers):
                _ignoring_removal(lambda f=freezer: f.set_property("freezer.state", "FROZEN"))
            killed: set[int] = {os.getpid()}  # never ourselves
            for _ in range(KILL_ROUNDS):
                new = set(self.processes(path)) - killed
                if not new:
                    break
                for pid in new:
                    _send_kill(pid)
                killed |= new
        finally:
            # Also those that were frozen by `freeze`, on purpose: a frozen task never sees its SIGKILL.
            for freezer in reversed(freezers):
                _ignoring_removal(freezer.thaw)

    async def remove(self, path: str, timeout: float = 10.0) -> None:
        directories = self._directories(path)
        deadline = time.monotonic() + timeout
        while True:
            busy = [directory for directory in directories if not tree.rmdir_subtree(directory)]
            if not busy:
                return
            pids = set().union(*(tree.processes(directory) for directory in busy))
            if time.monotonic() >= deadline:
                raise tree.too_late(busy[0], pids)
            if pids:
                await tree.wait_for_exit(pids, deadline)
            else:
                # Listed no more, but not yet let go: v1 has no event for it, and it takes microseconds.
                await tree.breathe()

    def freeze(self, path: str) -> None:
        self._freezer(path).freeze()

    def thaw(self, path: str) -> None:
        self._freezer(path).thaw()

    def _freezer(self, path: str) -> Freezer:
        path = tree.clean(path)
        if "freezer" not in self._kinds:
            raise UnsupportedByHost("cgroup controller freezer is not mounted", operation="freeze", subject="freezer")
        self._must_exist(path)
        return Freezer(f"{self._mounts['freezer']}/{path}")

    def stats(self, path: str) -> CgroupStats:
        path = tree.clean(path)
        self._must_exist(path)
        return CgroupStats(time_ns=time.time_ns(), **self.measure(path))

    def measure(self, path: str) -> dict[str, Any]:
        """The fields of CgroupStats that the mounted controllers know."""
        fields: dict[str, Any] = {}
        for controller in self._all(path):
            fields.update(controller.measure())
        return fields

    def oom_kills(self, path: str) -> int:
        return self._memory(path).oom_kills()

    def watch_oom(self, path: str) -> OomWatch:
        return MemoryOomWatch(self._memory(path).directory)

    def _memory(self, path: str) -> Memory:
        path = tree.clean(path)
        if "memory" not in self._kinds:
            raise UnsupportedByHost("cgroup controller memory is not mounted", operation="watch", subject="memory")
        return Memory(f"{self._mounts['memory']}/{path}")

    def exists(self, path: str) -> bool:
        return any(os.access(directory, os.F_OK) for directory in self._directories(path))

    def children(self, path: str) -> list[str]:
        names: set[str] = set()
        for directory in self._directories(path):
            names.update(tree.children(directory))
        return sorted(names)


def _send_kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _ignoring_removal(action: Any) -> None:
    try:
        action()
    except NotFound:
        return
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.ENODEV):
            raise
