"""`python -m tests.bench.stats`: CPU time of one sample of many pods, with `sandbox` and with podman, in one run.

Ours is what the daemon uses for a sample of `sandbox stats -w` (its process time over many samples), and the whole of
`sandbox stats -o json`, client included. podman has no daemon: its sample is one `podman stats --no-stream`, children
included. Every pod is one sleeping container, so that all that is measured is the measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sandbox.cli.client import Client
from sandbox.cli.usage import samples, stats_target
from sandbox.linux.netns import unshare_network
from tests.bench.podman import Podman

POD = """---
apiVersion: v1
kind: Pod
metadata: {{name: stats-{number}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Never
    command: ["/bin/sleep", "100000"]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=100, help="of each (default 100)")
    parser.add_argument("--samples", type=int, default=20, help="of each (default 20)")
    parser.add_argument("--without-podman", action="store_true", help="measure ours alone")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("error: the comparison makes pods: run it as root")
    unshare_network()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    figures: dict[str, float] = {"pods": arguments.pods}
    with tempfile.TemporaryDirectory(prefix="sandbox-stats-") as folder:
        figures |= _ours(Path(folder), arguments.pods, arguments.samples)
        if not arguments.without_podman:
            figures |= _podman(Path(folder) / "podman", arguments.pods, max(3, arguments.samples // 4))
    for name, value in figures.items():
        print(f"{name:44}{value:10.1f}")
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


def _ours(folder: Path, pods: int, count: int) -> dict[str, float]:
    sandbox = str(Path(sys.executable).parent / "sandbox")
    environment = {**os.environ, "SANDBOX_ROOT": str(folder / "root"), "SANDBOX_RUN_DIR": str(folder / "run")}

    def run(*words: str) -> None:
        subprocess.run([sandbox, *words], env=environment, check=True, capture_output=True)

    manifest = folder / "pods.yaml"
    manifest.write_text("".join(POD.format(number=number, image="localhost/busybox") for number in range(pods)))
    try:
        run("run", str(manifest))
        client = Client(str(folder / "run" / "api.sock"))
        pid = int(client.get("/v1/version")["pid"])
        daemon = _daemon(client, pid, pods, count)
        command = [_children(lambda: run("stats", "-o", "json")) for _ in range(count)]
        before = _process_ms(pid)
        for _ in range(count):
            client.get("/v1/stats")
        single = (_process_ms(pid) - before) / count
    finally:
        subprocess.run([sandbox, "down", str(manifest)], env=environment, capture_output=True)
        subprocess.run([sandbox, "daemon", "stop", "--clean"], env=environment, capture_output=True)
    return {
        "sandbox: daemon, a sample of a stream (ms)": daemon,
        "sandbox: daemon, a single sample (ms)": single,
        "sandbox: command `stats -o json` alone (ms)": statistics.median(command),
    }


def _daemon(client: Client, pid: int, pods: int, count: int) -> float:
    """Milliseconds of CPU time a sample; the first opens the files and is not counted."""
    path = stats_target(None, (), watch=True, interval_s=0.1)
    with client.request("GET", path, stream=True) as stream:
        before = 0.0
        for number, sample in enumerate(samples(stream)):
            if len(sample) != pods or any(len(pod["containers"]) != 1 for pod in sample):
                raise SystemExit(f"a sample has {len(sample)} pods, not {pods}")
            if number == 0:
                before = _process_ms(pid)
            if number == count:
                break
        return (_process_ms(pid) - before) / count


def _process_ms(pid: int) -> float:
    """CPU time of every thread of a process (proc(5), schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


def _children(action: Callable[[], object]) -> float:
    """Milliseconds of CPU time of the processes that `action` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    action()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1e3


def _podman(folder: Path, pods: int, count: int) -> dict[str, float]:
    peer = Podman(folder)
    try:
        manifest = folder / "pods.yaml"
        manifest.write_text("".join(POD.format(number=number, image=peer.image) for number in range(pods)))
        peer.run("kube", "play", str(manifest))
        shown = json.loads(peer.run("stats", "--no-stream", "--format", "json"))
        if len(shown) < pods:
            raise SystemExit(f"podman shows {len(shown)} containers, not {pods}")
        used, took = [], []
        for _ in range(count):
            start = time.monotonic()
            used.append(_children(lambda: peer.run("stats", "--no-stream", "--format", "json")))
            took.append((time.monotonic() - start) * 1e3)
    finally:
        peer.close()
    return {
        "podman: `stats --no-stream` (ms)": statistics.median(used),
        "podman: the same, wall clock (ms)": statistics.median(took),
    }


if __name__ == "__main__":
    main()
