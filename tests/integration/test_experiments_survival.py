"""The restart-survival demonstration, on the real thing: it succeeds, and leaves nothing, however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.cgroups.detect import detect
from sandbox.daemon.process import read_pid

REPOSITORY = Path(__file__).resolve().parents[2]


class Place:
    """Directories of a daemon that does not run: the demonstration puts its own beside them."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.cgroup_parent = f"sandbox-test-{top.name}"
        self.environment = {
            **os.environ,
            "SANDBOX_ROOT": str(top / "root"),
            "SANDBOX_RUN_DIR": str(top / "run"),
            "SANDBOX_CGROUP_PARENT": self.cgroup_parent,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "sandbox.cli", "demo", "restart-survival", *arguments]
        return subprocess.Popen(
            line, cwd=REPOSITORY, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def daemon_pid(self) -> int:
        return next((read_pid(path) or 0 for path in self.top.glob("run-demo-*/daemon.pid")), 0)

    def monitor_sockets(self) -> list[Path]:
        return list(self.top.glob("run-demo-*/pods/*/monitor.sock"))

    def left(self) -> list[str]:
        """Everything of a demonstration that is still on the host."""
        found = [str(path) for path in self.top.glob("*-demo-*")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{self.cgroup_parent}-demo-*")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"{self.cgroup_parent}-demo-*")]
        found += [name for _, name in socket.if_nameindex() if name.startswith("sbdemo-")]
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if os.fsencode(self.top) in process.read_bytes():
                    found.append(str(process))
            except OSError:
                continue
        return found


@pytest.fixture
def place() -> Iterator[Place]:
    one = Place(Path(tempfile.mkdtemp(prefix="sbx-")))
    yield one
    shutil.rmtree(one.top, ignore_errors=True)


def eventually(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)


def test_everything_survives_and_nothing_is_left(place: Place) -> None:
    process = place.start("--crashes", "2", "-o", "json")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, out + said
    answer = json.loads(out)
    assert answer["survived"] is True
    rows = {row["what"]: row for row in answer["rows"]}
    assert len(rows) == 14
    assert all(row["ok"] for row in rows.values())
    inode = rows["network namespace (inode)"]
    assert inode["before"] == inode["afterDaemonKill"] != str(Path("/proc/self/ns/net").stat().st_ino)
    assert rows["app (restarts)"]["afterAppCrashes"] == "2"
    assert rows["app (restarts)"]["afterDaemonKill"] == "3"
    assert rows["daemon (pid)"]["before"] != rows["daemon (pid)"]["afterDaemonKill"]
    assert len(set(answer["pidsKilled"])) == 3
    assert place.left() == []
    assert detect().processes(place.cgroup_parent) == []


def test_the_table_is_printed(place: Place) -> None:
    process = place.start("--crashes", "1")
    out, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, ""), "progress is for terminals"
    lines = out.splitlines()
    assert lines[-1] == "survived"
    assert any(line.split()[:2] == ["pod", "address"] and line.endswith("same") for line in lines)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("moment", ["daemon", "pod", "killed"])
def test_an_interrupt_leaves_nothing_at_any_moment(place: Place, moment: str) -> None:
    process = place.start("--crashes", "1" if moment == "killed" else "50")
    eventually(place.daemon_pid, process)
    if moment != "daemon":
        eventually(place.monitor_sockets, process)
    if moment == "killed":
        eventually(lambda: not place.daemon_pid(), process)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130, out + said
    assert "Traceback" not in said
    assert place.left() == []
