"""A real daemon with its own directories, bridge, subnet and cgroup parent, driven over its socket."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sandbox.cgroups.detect import detect
from sandbox.cli.client import ApiError, Client, target
from sandbox.daemon.config import Config, load
from sandbox.linux.mount import unpin

REPOSITORY = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 30.0


def pod_manifest(name: str, script: str, *, restart: str = "Never", **container: Any) -> dict[str, Any]:
    """A Pod of one busybox container that runs `script`."""
    main = {"name": "main", "image": "localhost/busybox", "command": ["sh", "-c", script], **container}
    spec = {"restartPolicy": restart, "terminationGracePeriodSeconds": 1, "containers": [main]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Daemon:
    """Made stopped. Everything it made is removed by `destroy`, which fails when something was left."""

    _subnets = iter(range(200, 250))

    def __init__(self, **settings: Any) -> None:
        tag = secrets.token_hex(3)
        self.tag = tag
        self.root = Path(tempfile.mkdtemp(prefix=f"sbd-{tag}-"))
        self.run_dir = Path(f"/run/sbd-{tag}")
        self.settings = {
            "root": self.root,
            "run_dir": self.run_dir,
            "cgroup_parent": f"sandbox-test-{tag}",
            "bridge": f"sb{tag}",
            "subnet": f"10.{next(self._subnets)}.0.0/24",
            "back_off_initial_s": 0.2,
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.client = Client(str(self.run_dir / "api.sock"))

    @property
    def config(self) -> Config:
        return load(self.settings, environ={})

    @property
    def log(self) -> str:
        path = self.root / "test.log"
        return path.read_text() if path.exists() else ""

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, "-m", "sandbox.daemon", *self.config.to_flags(), *flags]

    def start(self) -> Daemon:
        """Returns when it serves. Fails with its log when it does not."""
        read_end, write_end = os.pipe()
        with (self.root / "test.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(f"--ready-fd={write_end}"),
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                start_new_session=True,
                cwd=REPOSITORY,
            )
        os.close(write_end)
        with os.fdopen(read_end) as ready:
            line = ready.readline()
        assert line and json.loads(line)["ready"], f"the daemon is not ready: {line}\n{self.log}"
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def get(self, *segments: str, **query: Any) -> Any:
        return self.client.get(target("v1", *segments, query=list(query.items())))

    def pod_path(self, name: str, *more: str, **query: Any) -> str:
        return target("v1", "namespaces", "default", "pods", name, *more, query=list(query.items()))

    def apply(self, *objects: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
        """The lines of the stream."""
        files = [{"name": f"{n}.json", "content": json.dumps(o)} for n, o in enumerate(objects)]
        with self.client.request("POST", "/v1/apply", {"files": files, **body}, stream=True) as response:
            return list(response.events())

    def run(self, *objects: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
        """apply that must succeed; the pods as they became."""
        lines = self.apply(*objects, **body)
        assert lines[-1] == {"type": "end", "exitCode": 0}, f"{lines}\n{self.log}"
        return [line["pod"] for line in lines if line["type"] == "pod"]

    def pod(self, name: str) -> Any:
        return self.client.get(self.pod_path(name))

    def log_of(self, name: str, **query: Any) -> bytes:
        with self.client.request("GET", self.pod_path(name, "log", **query), stream=True) as response:
            return response.read()

    def delete(self, name: str) -> None:
        self.client.call("DELETE", self.pod_path(name, force=1))

    def destroy(self) -> None:
        """Removes every pod, stops the daemon, and checks that nothing is left."""
        try:
            if self.process is None or self.process.poll() is not None:
                self.start()
            for pod in self.get("pods", all=1)["items"]:
                with contextlib.suppress(ApiError):
                    metadata = pod["metadata"]
                    path = target("v1", "namespaces", metadata["namespace"], "pods", metadata["name"])
                    self.client.call("DELETE", path + "?force=1")
            self.client.call("POST", "/v1/shutdown", {"clean": True})
            assert self.process is not None and self.process.wait(timeout=20) == 0, self.log
            left = [p.name for p in (self.run_dir / "pods").iterdir()]
            assert not left, f"left in the run directory: {left}"
            assert not detect().exists(self.cgroup_parent)
            assert self.settings["bridge"] not in [name for _, name in socket.if_nameindex()]
        finally:
            if self.process is not None and self.process.poll() is None:
                self.kill()
            self._sweep()

    @property
    def cgroup_parent(self) -> str:
        return str(self.settings["cgroup_parent"])

    def _sweep(self) -> None:
        """What a failed test left: so that it disturbs no other."""
        ids = [p.name for p in self.run_dir.glob("pods/*")]
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if words[0] == b"sandbox-monitor" and words[1].decode() in ids:
                    children = (process / "task" / process.name / "children").read_text().split()
                    for pid in [process.name, *children]:
                        os.kill(int(pid), signal.SIGKILL)
        detect().kill(self.cgroup_parent)
        for id in ids:
            unpin(f"/run/netns/sandbox-{id}")
        for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            top = hierarchy / self.cgroup_parent
            if top.is_dir():
                for directory, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):
                        Path(directory).rmdir()
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.run_dir, ignore_errors=True)


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[Daemon]:
    daemon = Daemon(**settings)
    try:
        yield daemon.start()
    finally:
        daemon.destroy()


def eventually(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """The first true value of `condition`; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
