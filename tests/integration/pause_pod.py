"""A monitor with a tiny root file system, for tests of the C program through its Python client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sandbox.linux import constants as k
from sandbox.runtime import ops
from sandbox.runtime.monitor import ExitRecord, Monitor, PauseBinary, RunRequest, RunResult

PAUSE = Path(os.environ.get("PAUSE_BINARY") or Path(__file__).parents[2] / "pause" / "build" / "pause")
SANITIZED = "PAUSE_BINARY" in os.environ
"""A build for finding errors: its size says nothing."""
ENV = ("PATH=/bin", "HOME=/root")
LINE = re.compile(rb"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([FP]) (.*)$", re.DOTALL)


def make_layer(folder: Path) -> Path:
    """A root file system of nothing but busybox."""
    layer = folder / "layer"
    for name in ("bin", "proc", "dev", "tmp", "etc"):
        (layer / name).mkdir(parents=True)
        (layer / name).chmod(0o755)
    shutil.copy("/bin/busybox", layer / "bin" / "busybox")
    for tool in ("sh", "cat", "ls", "sleep", "id", "stty", "readlink", "kill", "ps", "yes", "head", "mkdir", "touch"):
        (layer / "bin" / tool).symlink_to("busybox")
    return layer


class Pod:
    """`steps(...)` builds a container's plan: its root is in slot ROOT, slot 0 is the log."""

    LOG, ROOT, DEV, PROC, PTS, TTY, FREE = range(7)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.socket = folder / "run" / "monitor.sock"
        self.exits: dict[str, ExitRecord] = {}
        self.lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._owned: list[int] = []
        self.binary = PauseBinary.load(PAUSE)
        self.layer = make_layer(folder)
        for path in (self.state_dir, self.socket.parent, folder / "mnt"):
            path.mkdir()
        self.log_path = folder / "log"
        self.log_fd = os.open(self.log_path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self.monitor: Monitor

    async def start(self) -> None:
        self.monitor = await Monitor.spawn(
            self.binary, "test-pod", self.socket, self.state_dir, self._exited, self.lost.set
        )

    async def reconnect(self) -> None:
        self.monitor = await Monitor.connect(self.socket, self._exited, self.lost.set)

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self.monitor.shutdown()
        for fd in (*self._owned, self.log_fd):
            os.close(fd)
        self.binary.close()

    def _exited(self, record: ExitRecord) -> None:
        assert record.process_id not in self.exits, "told twice"
        self.exits[record.process_id] = record
        self._changed.set()

    async def exit_of(self, process_id: str) -> ExitRecord:
        async with asyncio.timeout(10):
            while process_id not in self.exits:
                self._changed.clear()
                await self._changed.wait()
        return self.exits[process_id]

    def overlay(self) -> list[ops.Op]:
        """The root, mounted on a directory of this test, in a mount namespace of its own, with /dev and /proc."""
        upper, work = self.folder / "upper", self.folder / "work"
        upper.mkdir(exist_ok=True)
        upper.chmod(0o755)  # the root of what is run: also for other users
        work.mkdir(exist_ok=True)
        return [
            ops.Unshare(k.CLONE_NEWNS),
            ops.RootPropagation(k.MS_REC | k.MS_PRIVATE),
            ops.Overlay(self.ROOT, (str(self.layer),), str(upper), str(work)),
            ops.MoveMount(self.ROOT, ops.HOST, str(self.folder / "mnt")),
            ops.Filesystem(self.DEV, "tmpfs", ("mode=755", "size=64k"), source="dev"),
            ops.MoveMount(self.DEV, self.ROOT, "/dev", create="dir", no_symlinks=True),
            ops.Mknod(self.DEV, "null", 0o20666, os.makedev(1, 3)),
            ops.Symlink(self.DEV, "fd", "/proc/self/fd"),
            ops.Mkdir(self.DEV, "pts"),
            ops.Filesystem(self.PTS, "devpts", ("newinstance", "ptmxmode=0666", "mode=0620"), source="devpts"),
            ops.MoveMount(self.PTS, self.DEV, "pts"),
            ops.Filesystem(self.PROC, "proc", source="proc"),
            ops.MoveMount(self.PROC, self.ROOT, "/proc", create="dir", no_symlinks=True),
        ]

    def plan(self, command: str | tuple[str, ...], *middle: ops.Op, last: tuple[ops.Op, ...] = ()) -> ops.Plan:
        argv = ("sh", "-c", command) if isinstance(command, str) else command
        steps = (*self.overlay(), *middle, ops.PivotRoot(self.ROOT), *last, ops.Exec(argv, ENV))
        return ops.Plan(steps, given=("log",))

    async def run(
        self,
        command: str | tuple[str, ...],
        *middle: ops.Op,
        id: str = "c",
        last: tuple[ops.Op, ...] = (),
        **changes: object,
    ) -> RunResult:
        """Runs `command` in the container; `middle` before the pivot, `last` after it."""
        return await self.run_plan(self.plan(command, *middle, last=last), id=id, **changes)

    async def run_plan(self, plan: ops.Plan, *, id: str = "c", **changes: object) -> RunResult:
        request = RunRequest(id, plan, (self.log_fd,), clone_flags=k.CLONE_NEWPID, log_slot=0)
        result = await self.monitor.run(replace(request, **changes))  # type: ignore[arg-type]
        self._owned += [result.pidfd, *result.fds]
        return result

    async def output(self, command: str | tuple[str, ...], *middle: ops.Op, **changes: object) -> str:
        """What `command` wrote to standard output, when it ended."""
        os.truncate(self.log_path, 0)
        id = f"o{len(self.exits)}"
        await self.run(command, *middle, id=id, **changes)
        await self.exit_of(id)
        return self.logged("stdout").decode()

    def lines(self) -> list[tuple[str, str, bytes]]:
        """(stream, tag, content) of every line of the log; each must have the format."""
        found = []
        for line in self.log_path.read_bytes().split(b"\n")[:-1]:
            match = LINE.match(line)
            assert match is not None, line
            found.append((match[1].decode(), match[2].decode(), match[3]))
        return found

    def logged(self, stream: str) -> bytes:
        """The bytes a reader of the log gets back."""
        return b"".join(text + (b"\n" if tag == "F" else b"") for name, tag, text in self.lines() if name == stream)


async def until(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    """Waits for something that no event tells of."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)
