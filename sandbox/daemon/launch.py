"""Starting a daemon from the CLI: a process of its own session that tells through a pipe when it serves.

No third-party import.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from contextlib import suppress

from sandbox.daemon.config import Config
from sandbox.daemon.process import make_private_directory
from sandbox.errors import DaemonUnavailable

MAX_ANSWER_BYTES = 64 << 10
MAX_LOG_BYTES = 16 << 20


def answers(config: Config) -> bool:
    """True when something listens at the API socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(config.socket_path))
        except OSError:
            return False
        return True


def start_daemon(config: Config, timeout_s: float = 30.0) -> int:
    """Starts a daemon with `config` in the background and returns its pid once it serves.

    Its log goes to ROOT/daemon.log. When another one wins the race for the run directory, waits for that one and
    returns 0. Raises DaemonUnavailable with the daemon's own sentence.
    """
    make_private_directory(config.root, "root")
    log = _open_log(config)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    command = [sys.executable, "-m", "sandbox.daemon", *config.to_flags(), f"--ready-fd={write_end}"]
    try:
        # The checkout that runs this CLI is the one whose daemon is started, also when it is not installed.
        package_parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package_parent, environment.get("PYTHONPATH"))))
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(write_end,),
            start_new_session=True,
            env=environment,
        )
    finally:
        os.close(log)
        os.close(write_end)
    try:
        return _await_answer(read_end, process, config, time.monotonic() + timeout_s)
    finally:
        os.close(read_end)


def _open_log(config: Config) -> int:
    """The daemon's log for appending; one that has grown large is set aside, once."""
    with suppress(FileNotFoundError):
        if config.log_path.stat().st_size > MAX_LOG_BYTES:
            config.log_path.replace(config.log_path.with_suffix(".log.1"))
    return os.open(config.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _await_answer(pipe: int, process: subprocess.Popen[bytes], config: Config, deadline: float) -> int:
    answer = b""
    while not answer.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise _unavailable(config, f"the daemon with pid {process.pid} is not ready in time")
        block = os.read(pipe, MAX_ANSWER_BYTES)
        if not block:
            raise _unavailable(config, f"the daemon ended with status {process.wait()} before it was ready")
        answer += block
    body = json.loads(answer)
    if body["ready"]:
        process.returncode = 0  # it outlives us: no warning about a child that still runs
        return int(body["pid"])
    process.wait()
    if body["error"]["reason"] == "Conflict":
        while time.monotonic() < deadline:
            if answers(config):
                return 0
            time.sleep(0.02)
    raise _unavailable(config, f"the daemon could not start: {body['error']['message']}", body["error"]["hint"])


def _unavailable(config: Config, message: str, hint: str = "") -> DaemonUnavailable:
    return DaemonUnavailable(
        message,
        operation="start the daemon",
        subject=str(config.run_dir),
        hint=hint or f"see {config.log_path}",
    )
