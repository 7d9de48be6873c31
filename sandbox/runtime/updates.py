"""Limits of what runs, changed in place: everything is checked first, and undone together when the kernel refuses.

The change is stored as an intent before the kernel is touched: what a daemon killed half way has written is taken back
by the next one.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from sandbox.cgroups.changes import NOTHING, lowers_memory, merged, transition, wider
from sandbox.cgroups.driver import CgroupDriver
from sandbox.cgroups.resources import CgroupResources
from sandbox.errors import Conflict, InvalidInput, KernelError, NotFound, SandboxError
from sandbox.runtime.context import Context, log
from sandbox.runtime.records import EXITED, RUNNING, ContainerRecord, SandboxRecord


@dataclass(frozen=True)
class ResourceChange:
    """`id` of a pod sandbox or a container; `resources` are all its limits as they shall be."""

    id: str
    resources: CgroupResources


@dataclass(frozen=True)
class _Write:
    """One step: the limits of the cgroup `path` from `old` to `new`. `subject` is whose they are, in words."""

    path: str
    subject: str
    old: CgroupResources
    new: CgroupResources


class Updates:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def update_container(self, id: str, resources: CgroupResources) -> None:
        """UpdateContainerResources: what is None stays. Raises Conflict for a container that has ended."""
        record = self._context.container(id)
        if record.state == EXITED:
            raise Conflict(f"container {id} has ended", operation="update limits", subject=id)
        await self.apply([ResourceChange(id, merged(record.config.resources, resources))])

    def check(self, changes: Sequence[ResourceChange]) -> None:
        """Raises what can be known before: UnsupportedByHost, InvalidInput (also memory below the present use)."""
        for change in changes:
            record = self._record(change.id)
            present = record.config.resources
            self._context.cgroups.check(change.resources)
            self._context.cgroups.check(transition(present, change.resources))
            if _is_there(record) and lowers_memory(present, change.resources):
                self._check_memory(record, change.resources.memory_limit_bytes or 0)

    def _check_memory(self, record: ContainerRecord | SandboxRecord, limit: int) -> None:
        """The working set, as `stats` shows it: inactive file pages give way, nothing else is sure to."""
        try:
            used = self._context.cgroups.stats(record.cgroup_path).memory_working_set_bytes
        except NotFound:
            return
        if used is not None and used > limit:
            raise _below_use(_subject(record), limit, f"uses {_mebibytes(used)}")

    async def apply(self, changes: Sequence[ResourceChange], stored: Callable[[], None] = lambda: None) -> None:
        """All or nothing. `stored` runs in the transaction that stores the new limits.

        Goes on to its end when the caller is cancelled. Raises as `check` does, NotFound, and KernelError when the
        kernel refused what was checked.
        """
        await self._context.protect(self._apply(changes, stored))

    async def _apply(self, changes: Sequence[ResourceChange], stored: Callable[[], None]) -> None:
        context = self._context
        sandboxes = sorted(c.id for c in changes if c.id in context.records.sandboxes)
        containers = sorted({c.id for c in changes}.difference(sandboxes))
        async with AsyncExitStack() as held:
            for id in (*sandboxes, *containers):  # in the order in which a removal takes them
                await held.enter_async_context(context.lock(id))
            self.check(changes)
            wanted = {change.id: change.resources for change in changes}
            writes = self._plan({id: self._record(id).config.resources for id in wanted}, wanted)
            self._intend(wanted)
            try:
                # In a thread: a smaller memory limit makes the kernel reclaim, for as long as that takes.
                await asyncio.to_thread(_write_all, context.cgroups, writes)
            except BaseException:
                self._intend(dict.fromkeys(wanted))
                raise
            with context.records.transaction():
                for id, resources in wanted.items():
                    self._put(id, resources, None)
                stored()

    def _intend(self, wanted: dict[str, CgroupResources] | dict[str, None]) -> None:
        with self._context.records.transaction():
            for id, resources in wanted.items():
                self._put(id, self._record(id).config.resources, resources)

    def _put(self, id: str, resources: CgroupResources, updating: CgroupResources | None) -> None:
        records = self._context.records
        record = self._record(id)
        if isinstance(record, SandboxRecord):
            sandbox_config = replace(record.config, resources=resources)
            records.put_sandbox(replace(record, config=sandbox_config, updating=updating))
        else:
            container_config = replace(record.config, resources=resources)
            records.put_container(replace(record, config=container_config, updating=updating))

    def _record(self, id: str) -> ContainerRecord | SandboxRecord:
        return self._context.records.sandboxes.get(id) or self._context.container(id)

    def _plan(self, old: dict[str, CgroupResources], new: dict[str, CgroupResources]) -> list[_Write]:
        """Pods grow first, then their containers change, then pods shrink: a child never has more than its parent."""
        first, middle, last = [], [], []
        for id, wanted in new.items():
            record = self._record(id)
            if not _is_there(record):
                continue
            path, subject, present = record.cgroup_path, _subject(record), old[id]
            if isinstance(record, SandboxRecord):
                between = wider(present, wanted)
                first.append(_Write(path, subject, present, between))
                last.append(_Write(path, subject, between, wanted))
            else:
                middle.append(_Write(path, subject, present, wanted))
        return [write for write in (*first, *middle, *last) if transition(write.old, write.new) != NOTHING]

    def undo_interrupted(self) -> None:
        """After a restart: takes back what a daemon that died in the middle of an update had written."""
        records = self._context.records
        known: list[ContainerRecord | SandboxRecord] = [*records.sandboxes.values(), *records.containers.values()]
        began = {record.id: record.updating for record in known if record.updating is not None}
        before = {id: self._record(id).config.resources for id in began}
        for write in self._plan(began, before):
            log.warning("limits of %s are taken back: the daemon died while they were changed", write.subject)
            try:
                self._context.cgroups.update(write.path, transition(write.old, write.new))
            except (SandboxError, OSError) as error:
                log.error("limits of %s cannot be taken back: %s", write.subject, error)
        self._intend(dict.fromkeys(began))


def _is_there(record: ContainerRecord | SandboxRecord) -> bool:
    """Whether it has a cgroup of ours to write to; the limits of the others are those they will be made with."""
    return record.owns_cgroup if isinstance(record, SandboxRecord) else record.state == RUNNING


def _subject(record: ContainerRecord | SandboxRecord) -> str:
    if isinstance(record, SandboxRecord):
        return f"pod {record.config.metadata.namespace}/{record.config.metadata.name}"
    return f"container {record.config.name}"


def _write_all(cgroups: CgroupDriver, writes: Iterable[_Write]) -> None:
    done: list[_Write] = []
    for write in writes:
        done.append(write)  # before it is tried: what fails may have failed half way
        try:
            cgroups.update(write.path, transition(write.old, write.new))
        except NotFound:
            done.pop()  # it ended meanwhile
        except (SandboxError, OSError) as error:
            for each in reversed(done):
                _undo(cgroups, each, error)
            if isinstance(error, KernelError) and error.errno == errno.EBUSY and "memory." in error.subject:
                limit = write.new.memory_limit_bytes or 0
                raise _below_use(write.subject, limit, "cannot give up enough of what it uses") from error
            raise


def _undo(cgroups: CgroupDriver, write: _Write, error: Exception) -> None:
    try:
        cgroups.update(write.path, transition(write.new, write.old))
    except NotFound:
        return
    except (SandboxError, OSError) as failure:
        log.error("limits of %s cannot be taken back: %s", write.subject, failure)
        error.add_note(f"limits of {write.subject} could not be taken back: {failure}")


def _below_use(subject: str, limit: int, why: str) -> InvalidInput:
    return InvalidInput(
        f"memory limit {_mebibytes(limit)} of {subject} is below its present use: it {why}",
        operation="update limits",
        subject=subject,
        hint="see `sandbox stats`; a container whose resizePolicy says RestartContainer is restarted instead",
    )


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
