"""The cgroup v2 driver: one directory, controllers enabled from the top down."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import time
from contextlib import suppress
from typing import Any

from sandbox.cgroups import tree
from sandbox.cgroups.driver import CgroupEntry, CgroupStats, OomWatch
from sandbox.cgroups.files import read_file, write_file
from sandbox.cgroups.resources import CgroupResources
from sandbox.cgroups.v2.controllers import Core, Cpu, CpuSet, Devices, HugeTlb, Io, Memory, Pids
from sandbox.cgroups.v2.events import FileWatch, MemoryOomWatch
from sandbox.cgroups.values import check_values
from sandbox.errors import DeadlineExceeded, InvalidInput, KernelError, NotFound, SandboxError, UnsupportedByHost

CONTROLLERS = (Cpu, CpuSet, Memory, Pids, Io, HugeTlb)

AnyController = Cpu | CpuSet | Memory | Pids | Io | HugeTlb

KILL_ROUNDS = 100

_FILE_NAME = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+")


class V2Driver:
    """`root` is the cgroup2 mount. With `always`, every controller is enabled for every cgroup, so that all is
    measured and any limit can be set later; without (beside v1 controllers) only those a limit needs."""

    mode = "v2"

    def __init__(self, root: str, *, always: bool = True) -> None:
        self.root = root
        self._always = always
        known = {kind.name: kind for kind in CONTROLLERS}
        there = read_file(f"{root}/cgroup.controllers").split()
        self._kinds: dict[str, type[AnyController]] = {name: known[name] for name in known if name in there}
        self._raw = frozenset(there)
        self.controllers = frozenset(self._kinds) | {"devices"}

    def directory(self, path: str) -> str:
        return f"{self.root}/{tree.clean(path)}"

    def check(self, resources: CgroupResources) -> None:
        check_values(resources)
        for kind in CONTROLLERS:
            if kind.name not in self._kinds and kind.wanted(resources):
                raise UnsupportedByHost(
                    f"cgroup controller {kind.name} is not available", operation="check limits", subject=kind.name
                )
        for name, value in resources.unified:
            if not _FILE_NAME.fullmatch(name) or "\n" in value or len(value) > 4096:
                raise InvalidInput(f"cgroup file {name!r} is not a controller's", subject=name)
            controller = name.partition(".")[0]
            if controller not in self._raw and controller != "cgroup":
                raise UnsupportedByHost(
                    f"cgroup controller {controller} is not available", operation="check limits", subject=controller
                )

    def create(self, path: str, resources: CgroupResources) -> None:
        self.make(path, resources)

    def make(self, path: str, resources: CgroupResources) -> list[str]:
        """`create` that returns the directories it made, topmost first, for a caller's undo."""
        self.check(resources)
        directory = self.directory(path)
        made = tree.make(self.root, tree.clean(path))
        try:
            self._enable(tree.clean(path), self._needed(resources))
            self._apply(directory, resources)
        except BaseException:
            tree.unmake(made)
            raise
        return made

    def _needed(self, resources: CgroupResources) -> set[str]:
        needed = {name for name, kind in self._kinds.items() if kind.wanted(resources)}
        return needed | {name.partition(".")[0] for name, _ in resources.unified} - {"cgroup"}

    def _enable(self, path: str, needed: set[str]) -> None:
        """Lets `path` have its controllers: each ancestor, from the root on, hands them down."""
        wanted = needed | (set(self._kinds) if self._always else set())
        parent = self.root
        for part in path.split("/"):
            if not wanted:
                return
            control = f"{parent}/cgroup.subtree_control"
            missing = wanted - set(read_file(control).split())
            if missing:
                self._hand_down(control, missing, needed)
            parent += f"/{part}"

    def _hand_down(self, control: str, missing: set[str], needed: set[str]) -> None:
        with suppress(OSError):
            write_file(control, " ".join(f"+{name}" for name in sorted(missing)))
            return
        for name in sorted(missing):  # one that cannot be had (cpu with real-time groups) must not cost the others
            try:
                write_file(control, f"+{name}")
            except OSError as e:
                if name in needed:
                    raise KernelError(
                        f"cannot enable cgroup controller {name} in {control}",
                        operation="enable controller",
                        subject=name,
                        errno=e.errno or 0,
                        hint="a cgroup that has processes of its own hands nothing down",
                    ) from e

    def _apply(self, directory: str, resources: CgroupResources) -> None:
        for kind in self._kinds.values():
            if kind.wanted(resources):
                kind(directory).apply(resources)
        if Devices.wanted(resources):
            Devices(directory).apply(resources)
        for name, value in resources.unified:
            Core(directory).set_property(name, value)

    def update(self, path: str, resources: CgroupResources) -> None:
        self.check(resources)
        self._must_exist(path)
        self._enable(tree.clean(path), self._needed(resources))
        self._apply(self.directory(path), resources)

    def _must_exist(self, path: str) -> None:
        if not self.exists(path):
            raise NotFound(f"no cgroup {path}", subject=path)

    def entry(self, path: str, beside: int = 0) -> CgroupEntry:
        directory = self.directory(path)
        return CgroupEntry((), self._place_of(beside, directory) if beside else directory)

    def _place_of(self, pid: int, directory: str) -> str:
        """The cgroup of `pid` where it is below `directory`: what a container divided has no processes of its own."""
        try:
            own = [line[3:] for line in read_file(f"/proc/{pid}/cgroup").splitlines() if line.startswith("0::")]
        except OSError:
            return directory
        place = f"{self.root}{own[0]}" if own else ""
        return place if place.startswith(f"{directory}/") and os.access(place, os.F_OK) else directory

    def processes(self, path: str) -> list[int]:
        return sorted(tree.processes(self.directory(path)))

    def kill(self, path: str) -> None:
        core = Core(self.directory(path))
        if not self.exists(path):
            return
        if core.has("cgroup.kill"):  # Linux 5.14
            with suppress(NotFound):
                core.kill = "1"
            return
        with suppress(NotFound):
            core.freeze = "1"
        killed = {os.getpid()}
        for _ in range(KILL_ROUNDS):
            new = set(self.processes(path)) - killed
            if not new:
                break
            for pid in new:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed |= new
        with suppress(NotFound):
            core.freeze = "0"

    async def remove(self, path: str, timeout: float = 10.0) -> None:
        directory = self.directory(path)
        deadline = time.monotonic() + timeout
        if tree.rmdir_subtree(directory):
            return
        try:
            watch = FileWatch(f"{directory}/cgroup.events")
        except FileNotFoundError:
            return
        try:
            while not tree.rmdir_subtree(directory):
                if time.monotonic() >= deadline:
                    raise tree.too_late(directory, tree.processes(directory))
                if _populated(directory):
                    await tree.readable(watch.fileno(), deadline)
                    watch.drain()
                else:
                    # A cgroup made in it since, or a css on its way out: no event tells.
                    await tree.breathe()
        finally:
            watch.close()

    def freeze(self, path: str, timeout_s: float = 2.0) -> None:
        self._must_exist(path)
        core = Core(self.directory(path))
        watch = FileWatch(f"{core.directory}/cgroup.events")
        deadline = time.monotonic() + timeout_s
        try:
            core.freeze = "1"
            while core.events.get("frozen") != 1:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([watch.fileno()], [], [], left)[0]:
                    core.freeze = "0"
                    raise DeadlineExceeded(
                        f"cgroup {core.directory} did not freeze in {timeout_s:g} seconds",
                        operation="freeze",
                        subject=core.directory,
                    )
                watch.drain()
        finally:
            watch.close()

    def thaw(self, path: str) -> None:
        self._must_exist(path)
        Core(self.directory(path)).freeze = "0"

    def stats(self, path: str) -> CgroupStats:
        self._must_exist(path)
        return CgroupStats(time_ns=time.time_ns(), **self.measure(path))

    def measure(self, path: str) -> dict[str, Any]:
        """The fields of CgroupStats. cpu.stat and pressure need no controller."""
        directory = self.directory(path)
        fields: dict[str, Any] = Cpu(directory).measure()
        for name, kind in self._kinds.items():
            # Where a controller was not handed down its files are missing: not measured.
            with suppress(UnsupportedByHost):
                if name != "cpu":
                    fields.update(kind(directory).measure())
        fields["pressure"] = Core(directory).pressure()
        return fields

    def oom_kills(self, path: str) -> int:
        return self._memory(path).oom_kills()

    def watch_oom(self, path: str) -> OomWatch:
        memory = self._memory(path)
        try:
            return MemoryOomWatch(memory)
        except SandboxError:
            raise
        except OSError as e:
            if e.errno == errno.ENOENT:
                raise NotFound(f"no cgroup {memory.directory} with a memory controller", subject=path) from e
            raise KernelError(
                f"cannot watch memory of {memory.directory}", operation="inotify", errno=e.errno or 0
            ) from e

    def _memory(self, path: str) -> Memory:
        if "memory" not in self._kinds:
            raise UnsupportedByHost("cgroup controller memory is not available", operation="watch", subject="memory")
        return Memory(self.directory(path))

    def exists(self, path: str) -> bool:
        return os.access(self.directory(path), os.F_OK)

    def children(self, path: str) -> list[str]:
        return tree.children(self.directory(path))


def _populated(directory: str) -> bool:
    try:
        return Core(directory).events.get("populated") == 1
    except (NotFound, UnsupportedByHost):
        return False
