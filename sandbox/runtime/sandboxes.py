"""Pod sandboxes: made, stopped, removed.

Undoing is one path for everything: `stop` and `remove` work from the record alone and are idempotent, so a failed
`run`, a crash in the middle of it and an ordinary removal all end in the same code.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time

from sandbox.errors import Conflict, SandboxError
from sandbox.linux.mount import bind_netns, unpin
from sandbox.linux.process import ProcessIdentity, pidfd_send_signal
from sandbox.linux.trees import remove_tree
from sandbox.network.manager import Attachment, HostPort
from sandbox.runtime.config import NamespaceMode, PodSandboxConfig
from sandbox.runtime.containers import KILL_TIMEOUT_S, Containers
from sandbox.runtime.context import PAUSE_PROCESS, Context, log
from sandbox.runtime.files import write_pod_files
from sandbox.runtime.monitor import ExitRecord, Monitor, RunRequest
from sandbox.runtime.records import CREATING, NOTREADY, READY, SandboxRecord
from sandbox.runtime.sandbox_plan import check_sysctls, compile_sandbox, sandbox_clone_flags
from sandbox.runtime.sessions import Sessions
from sandbox.runtime.status import RuntimeEvent
from sandbox.timeline import Timeline

NETNS_DIRECTORY = "/run/netns"


class PodSandboxes:
    def __init__(self, context: Context, containers: Containers, sessions: Sessions) -> None:
        self._context = context
        self._containers = containers
        self._sessions = sessions

    async def run(self, config: PodSandboxConfig, timeline: Timeline) -> str:
        """Makes a pod sandbox and returns its id. A failure leaves nothing, or a record that `remove` finishes."""
        context = self._context
        check_sysctls(config)
        context.cgroups.check(config.resources)
        with timeline.span("record"):
            record = context.records.put_sandbox(self.new_record(config))
        try:
            async with context.lock(record.id):
                await self._make(record, timeline)
        except BaseException as error:
            try:
                await asyncio.shield(self.remove(record.id))
            except SandboxError as failure:
                error.add_note(f"undoing it failed too, the next removal goes on: {failure}")
            raise
        return record.id

    def new_record(self, config: PodSandboxConfig) -> SandboxRecord:
        """A record with a fresh id; not stored."""
        context = self._context
        id = secrets.token_hex(16)
        qos = "" if config.qos_class == "Guaranteed" else config.qos_class.lower() + "/"
        own = f"{context.cgroup_parent}/{qos}pod{config.metadata.uid}"
        own_network = config.namespaces.network is NamespaceMode.POD
        return SandboxRecord(
            id=id,
            config=config,
            state=CREATING,
            created_ns=time.time_ns(),
            boot_id=context.boot_id,
            cgroup_path=config.cgroup_parent or own,
            owns_cgroup=not config.cgroup_parent,
            hostname=(config.hostname or config.metadata.name) if own_network else socket.gethostname(),
            netns_path=f"{NETNS_DIRECTORY}/sandbox-{id}" if own_network else "",
        )

    async def _make(self, record: SandboxRecord, timeline: Timeline) -> None:
        context = self._context
        with timeline.span("cgroups"):
            if record.owns_cgroup:
                context.cgroups.create(record.cgroup_path, record.config.resources)
        with timeline.span("namespaces"):
            fds = await self._start_pause(record)
        try:
            if record.netns_path:
                netlink_fd, netns_fd = fds
                bind_netns(netns_fd, record.netns_path)
                with timeline.span("network"):
                    result = await context.network.setup(self._attachment(record, netns_fd, netlink_fd))
                addresses = result.addresses
            else:
                addresses = ()
        finally:
            for fd in fds:
                os.close(fd)
        with timeline.span("record"):
            write_pod_files(context.pod_dir(record.id), record.config, addresses, record.hostname)
            context.records.change_sandbox(record.id, state=READY, addresses=addresses)

    async def _start_pause(self, record: SandboxRecord) -> tuple[int, ...]:
        """Monitor and pause process; returns the descriptors that the plan hands over (caller owns)."""
        context = self._context
        pod_dir, run_dir = context.pod_dir(record.id), context.pod_run_dir(record.id)
        (pod_dir / "exits").mkdir(mode=0o700, parents=True)
        run_dir.mkdir(mode=0o700, parents=True)
        monitor = await Monitor.spawn(
            context.binary,
            record.id,
            context.monitor_socket(record.id),
            pod_dir,
            lambda exit_record: self.on_exit(record.id, exit_record),
            lambda: self.on_lost(record.id),
        )
        context.monitors[record.id] = monitor
        result = await monitor.run(
            RunRequest(
                process_id=PAUSE_PROCESS,
                plan=compile_sandbox(record.config, str(run_dir)),
                fds=(context.binary.fd,),
                clone_flags=sandbox_clone_flags(record.config),
                capture=False,
                record_exit=True,
            )
        )
        context.keep_pidfd(record.id, result.pidfd)
        context.records.change_sandbox(
            record.id,
            monitor_pid=monitor.pid,
            monitor_start_time=monitor.start_time,
            pause_pid=result.pid,
            pause_start_time=ProcessIdentity.current(result.pid).start_time,
        )
        return result.fds

    def _attachment(self, record: SandboxRecord, netns_fd: int | None, netlink_fd: int | None) -> Attachment:
        metadata = record.config.metadata
        return Attachment(
            pod_sandbox_id=record.id,
            pod_name=metadata.name,
            pod_namespace=metadata.namespace,
            pod_uid=metadata.uid,
            netns_path=record.netns_path,
            netns_fd=netns_fd,
            netlink_fd=netlink_fd,
            port_mappings=tuple(
                HostPort(m.host_ip, m.host_port, m.container_port, m.protocol) for m in record.config.port_mappings
            ),
            annotations=record.config.annotations,
        )

    async def stop(self, id: str) -> None:
        """Ends every process of the pod and gives its network back: NOTREADY. Idempotent; unknown ids are fine."""
        async with self._context.lock(id):
            await self._stop(id)

    async def _stop(self, id: str) -> None:
        context = self._context
        record = context.records.sandboxes.get(id)
        if record is None:
            return
        if record.state == READY:
            context.records.change_sandbox(id, state=NOTREADY)
        await asyncio.gather(*(self._containers.kill(c.id) for c in context.records.containers_of(id)))
        if record.netns_path:
            await context.network.teardown(id)
            unpin(record.netns_path)
        monitor = context.monitors.pop(id, None)
        if monitor is not None:
            await monitor.shutdown()
            monitor.close()
        else:
            await self._kill_pause(record)
        context.drop_pidfd(id)

    async def _kill_pause(self, record: SandboxRecord) -> None:
        """Ends a pause process that lost its monitor, and waits for its end. Idempotent."""
        if not record.pause_pid:
            return  # the daemon died before it had one: without its monitor it is gone
        try:
            pidfd = ProcessIdentity(record.pause_pid, record.pause_start_time, record.boot_id).pidfd()
        except ProcessLookupError:
            return
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(pidfd, ended.set)
            pidfd_send_signal(pidfd, signal.SIGKILL)
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    async def remove(self, id: str) -> None:
        """Stops it and removes its containers, files, cgroup and record. Idempotent."""
        context = self._context
        async with context.lock(id):
            record = context.records.sandboxes.get(id)
            if record is None:
                return
            await self._stop(id)
            for container in context.records.containers_of(id):
                await self._containers.remove(container.id)
            if record.owns_cgroup:
                context.cgroups.kill(record.cgroup_path)
                await context.cgroups.remove(record.cgroup_path)
            for directory in (context.pod_run_dir(id), context.pod_dir(id)):
                await asyncio.to_thread(remove_tree, directory)
            context.records.drop_sandbox(id)
        context.locks.pop(id, None)

    def on_exit(self, id: str, exit_record: ExitRecord) -> None:
        """A process of the pod ended; the monitor tells."""
        if exit_record.process_id == PAUSE_PROCESS:
            record = self._context.records.sandboxes.get(id)
            if record is not None and record.state == READY:
                log.warning("the pause process of pod sandbox %s died with code %d", id, exit_record.code)
                self._lose(id)
            return
        if not self._sessions.on_exit(id, exit_record):
            self._containers.on_exit(exit_record)

    def on_lost(self, id: str) -> None:
        """The connection to the monitor broke: it died, for nothing else ends it."""
        context = self._context
        monitor = context.monitors.pop(id, None)
        if monitor is None:
            return
        monitor.close()
        record = context.records.sandboxes.get(id)
        if record is not None and record.state == READY:
            log.warning("the monitor of pod sandbox %s died", id)
            self._lose(id)

    def _lose(self, id: str) -> None:
        """Without its monitor or its pause process a pod cannot go on: its exits would be lost, its network gone."""
        self._context.records.change_sandbox(id, state=NOTREADY)
        self._sessions.on_pod_lost(id)
        self._context.spawn_task(self._finish_lost(id), f"stopping lost pod sandbox {id}")

    async def _finish_lost(self, id: str) -> None:
        await self._containers.abandon(id)
        await self.stop(id)
        self._context.emit(RuntimeEvent("pod-lost", id))

    def require_ready(self, id: str) -> SandboxRecord:
        """The record of a READY sandbox. Raises NotFound or Conflict."""
        record = self._context.sandbox(id)
        if record.state != READY:
            raise Conflict(f"pod sandbox {id} is not ready", subject=id, hint="it was stopped, or its processes died")
        return record
