"""After a restart of the daemon: what runs is adopted again, what ended meanwhile is learnt, what was begun is undone.

Every kernel object is found from a record that was written before it was made. A pod whose monitor does not answer in
time is handled by itself; it holds up no other.
"""

from __future__ import annotations

import asyncio

from sandbox.errors import SandboxError
from sandbox.linux.process import ProcessIdentity
from sandbox.runtime.containers import Containers
from sandbox.runtime.context import PAUSE_PROCESS, Context, log
from sandbox.runtime.monitor import Monitor, ProcessInfo
from sandbox.runtime.records import CREATING, NOTREADY, READY, RUNNING, STARTING, ContainerRecord, SandboxRecord
from sandbox.runtime.sandboxes import PodSandboxes

CONNECT_TIMEOUT_S = 5.0


async def recover(context: Context, sandboxes: PodSandboxes, containers: Containers) -> None:
    """Adopts, learns, undoes. Called once, before anything else is asked of the runtime."""
    records = list(context.records.sandboxes.values())
    results = await asyncio.gather(
        *(_recover_one(context, sandboxes, containers, record) for record in records), return_exceptions=True
    )
    for record, result in zip(records, results, strict=True):
        if isinstance(result, SandboxError | OSError):
            log.error("pod sandbox %s could not be recovered yet: %s", record.id, result)
        elif isinstance(result, BaseException):
            raise result
    known = {r.id for r in context.records.sandboxes.values() if r.state == READY and r.netns_path}
    await context.network.reconcile(known)


async def _recover_one(
    context: Context, sandboxes: PodSandboxes, containers: Containers, record: SandboxRecord
) -> None:
    monitor = await _connect(context, sandboxes, record)
    if record.state == CREATING:
        # Nobody was told of this sandbox: undo it.
        await sandboxes.remove(record.id)
        return
    if monitor is None or record.state == NOTREADY:
        if record.state == READY:
            context.records.change_sandbox(record.id, state=NOTREADY)
        await containers.abandon(record.id)
        await sandboxes.stop(record.id)
        return
    identity = ProcessIdentity(record.pause_pid, record.pause_start_time, record.boot_id)
    context.keep_pidfd(record.id, identity.pidfd())
    running = {p.process_id: p for p in await monitor.processes()}
    for container in context.records.containers_of(record.id):
        await _recover_container(context, containers, container, running)
    for process in running.values():
        if process.process_id not in context.records.containers and process.process_id != PAUSE_PROCESS:
            # An exec'd process whose client is gone, or a container that was never recorded.
            if process.exit is None:
                await monitor.signal(process.process_id, 9)
            else:
                await monitor.forget(process.process_id)


async def _connect(context: Context, sandboxes: PodSandboxes, record: SandboxRecord) -> Monitor | None:
    """The live monitor of this boot, or None."""
    if record.boot_id != context.boot_id:
        return None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            monitor = await Monitor.connect(
                context.monitor_socket(record.id),
                lambda exit_record: sandboxes.on_exit(record.id, exit_record),
                lambda: sandboxes.on_lost(record.id),
            )
    except (SandboxError, OSError, TimeoutError) as error:
        log.warning("the monitor of pod sandbox %s does not answer: %s", record.id, error)
        return None
    context.monitors[record.id] = monitor
    return monitor


async def _recover_container(
    context: Context, containers: Containers, record: ContainerRecord, running: dict[str, ProcessInfo]
) -> None:
    if record.state not in (STARTING, RUNNING):
        return
    context.exited.setdefault(record.id, asyncio.Event())
    process = running.get(record.id)
    if process is None:
        containers.never_started(record)
    else:
        containers.adopt(record, process)
