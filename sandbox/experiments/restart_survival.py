"""The demonstration: apps crash, the daemon is killed with SIGKILL, and a TCP connection into the pod does not notice.

Everything happens in a daemon of its own (`own_daemon`): no pod, bridge or directory of the host's daemon is touched.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sandbox.daemon.config import Config
from sandbox.errors import DeadlineExceeded, SandboxError
from sandbox.experiments.interrupts import interruptible, undisturbed
from sandbox.experiments.own_daemon import OwnDaemon, own_config
from sandbox.experiments.pods import LivePod, pod_manifest, shell_container, until
from sandbox.experiments.survival import Log, Row, Snapshot, compare, read_log

APP_PORT, ECHO_PORT = 8080, 7000
BACK_OFF_S = 0.1
"""Kubernetes waits 10 s before the second restart, then 20, 40, …: too long to watch."""
EXCHANGE_TIMEOUT_S = 5.0
RESTART_TIMEOUT_S = 30.0
TOKEN_BYTES = 64

# nc -ll serves one connection after the other, each with a process of its own: cat gives back what it gets.
STEADY = f"nc -ll -p {ECHO_PORT} -e cat & i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done"
APP = f"echo started; exec nc -ll -p {APP_PORT} -e echo hello"

Progress = Callable[[str], None]


class EchoConnection:
    """A TCP connection to the echo server in the pod, held open to the end."""

    def __init__(self, address: str) -> None:
        """Raises DeadlineExceeded when nothing listens."""
        self._socket = until(
            lambda: _connect(address, ECHO_PORT), EXCHANGE_TIMEOUT_S, f"an answer of {address}:{ECHO_PORT}"
        )
        self._state = f"open, port {self._socket.getsockname()[1]}"
        self.echoed_bytes = 0

    def close(self) -> None:
        self._socket.close()

    def exchange(self) -> str:
        """Sends bytes that were never sent before and waits for them. `open` with our port, or why it is broken."""
        token = secrets.token_bytes(TOKEN_BYTES)
        got = b""
        try:
            self._socket.sendall(token)
            while len(got) < len(token):
                data = self._socket.recv(len(token) - len(got))
                if not data:
                    return "closed"
                got += data
        except OSError as error:
            return f"broken: {error.strerror or error}"
        if got != token:
            return "wrong bytes"
        self.echoed_bytes += len(got)
        return self._state


def _connect(address: str, port: int) -> socket.socket | None:
    try:
        return socket.create_connection((address, port), EXCHANGE_TIMEOUT_S)
    except OSError:
        return None


def _answers(address: str) -> bool:
    connection = _connect(address, APP_PORT)
    if connection is None:
        return False
    with connection:
        try:
            return connection.recv(16) == b"hello\n"
        except OSError:
            return False


@dataclass
class Outcome:
    rows: list[Row]
    crashes: int
    daemon_restart_ms: float
    """From the start of the new daemon to its first answer, the pod taken up again."""
    pids_killed: list[int] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "demo": "restart-survival",
            "survived": self.ok,
            "crashes": self.crashes,
            "crashesWithoutDaemon": 1,
            "backOffSeconds": BACK_OFF_S,
            "daemonRestartMilliseconds": round(self.daemon_restart_ms, 1),
            "pidsKilled": self.pids_killed,
            "rows": [row.to_json() for row in self.rows],
        }


def demonstrate(base: Config, crashes: int, progress: Progress) -> Outcome:
    """Runs the whole demonstration; afterwards nothing of it is left on the host, also after Ctrl-C."""
    daemon = OwnDaemon(own_config(base, BACK_OFF_S))
    with interruptible():
        try:
            progress(f"starting a daemon of its own in {daemon.config.root}")
            daemon.start()
            manifest = pod_manifest(
                "survivor",
                namespace="demo",
                containers=[shell_container("app", APP), shell_container("steady", STEADY)],
                annotations={},
                restartPolicy="Always",
            )
            pod = LivePod(daemon.client, manifest)
            try:
                progress("running a pod of two containers")
                pod.create()
                return Demonstration(daemon, pod, crashes, progress).run()
            finally:
                progress("cleaning up")
                with undisturbed():
                    daemon.ensure()  # killed and not yet back: only a daemon removes pods
                    pod.remove()
        finally:
            with undisturbed():
                daemon.remove()


class Demonstration:
    """The acts, in order. The connection is open from the first to the last."""

    def __init__(self, daemon: OwnDaemon, pod: LivePod, crashes: int, progress: Progress) -> None:
        self._daemon, self._pod, self._crashes, self._progress = daemon, pod, crashes, progress
        self._killed: list[int] = []
        self._address = str(pod.status()["podIP"])

    def run(self) -> Outcome:
        connection = EchoConnection(self._address)
        try:
            self._log_beyond(-1)
            before = self._snapshot(connection)
            for number in range(1, self._crashes + 1):
                self._progress(f"crash {number} of {self._crashes} of the app")
                self._crash_app()
                connection.exchange()
                self._await_restarts(number)
            self._log_beyond(before.log.last)
            crashed = self._snapshot(connection)

            self._progress("killing the daemon with SIGKILL")
            self._daemon.kill()
            connection.exchange()
            # Nobody is there to see this one: the monitor records it, the next daemon reads it.
            self._kill_pid(crashed.app_pid)
            connection.exchange()
            self._progress("starting the daemon again")
            start = time.monotonic()
            self._daemon.start()
            restart_ms = 1000 * (time.monotonic() - start)
            self._await_restarts(self._crashes + 1)
            self._log_beyond(crashed.log.last)
            after = self._snapshot(connection)
        finally:
            connection.close()
        return Outcome(compare(before, crashed, after, self._crashes), self._crashes, restart_ms, self._killed)

    def _crash_app(self) -> None:
        self._kill_pid(self._container_pid("app"))

    def _kill_pid(self, pid: int) -> None:
        """SIGKILL from the host: PID 1 of a namespace can only be killed from outside (pid_namespaces(7))."""
        pidfd = os.pidfd_open(pid)
        try:
            own = f"/{self._daemon.config.cgroup_parent}/"
            with open(f"/proc/{pid}/cgroup", encoding="ascii") as cgroups:  # noqa: PTH123
                if own not in cgroups.read():
                    raise SandboxError(f"process {pid} is not one of this demonstration", operation="crash the app")
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
        self._killed.append(pid)

    def _container_pid(self, name: str) -> int:
        found = [c for c in self._pod.runtime()["containers"] if c["name"] == name]
        return int(found[0].get("pid") or 0)

    def _await_restarts(self, number: int) -> None:
        """Raises DeadlineExceeded with what the app waits for."""

        def back() -> bool:
            status = self._pod.container_status("app")
            return status["restartCount"] >= number and status["ready"] and _answers(self._address)

        try:
            until(back, RESTART_TIMEOUT_S, f"restart {number} of the app")
        except DeadlineExceeded as error:
            error.hint = f"its state is {self._pod.container_status('app').get('state')}"
            raise

    def _log_beyond(self, line: int) -> None:
        until(lambda: self._log().last > line, EXCHANGE_TIMEOUT_S, f"line {line + 1} of the log")

    def _log(self) -> Log:
        return read_log(self._pod.log("steady"))

    def _snapshot(self, connection: EchoConnection) -> Snapshot:
        runtime, app = self._pod.runtime(), self._pod.container_status("app")
        last = (app.get("lastState") or {}).get("terminated") or {}
        return Snapshot(
            pod_address=str(self._pod.status()["podIP"]),
            netns_inode=int(runtime["netnsInode"]),
            pause_pid=int(runtime["pausePid"]),
            monitor_pid=int(runtime["monitorPid"]),
            steady_pid=self._container_pid("steady"),
            steady_restarts=int(self._pod.container_status("steady")["restartCount"]),
            app_pid=self._container_pid("app"),
            app_restarts=int(app["restartCount"]),
            app_last_exit=last.get("exitCode"),
            app_answers=bool(until(lambda: _answers(self._address), EXCHANGE_TIMEOUT_S, "an answer of the app")),
            connection=connection.exchange(),
            echoed_bytes=connection.echoed_bytes,
            log=self._log(),
            daemon_pid=self._daemon.pid,
        )
