"""`scripts/bench`: a pod's life with `sandbox` and with `podman kube play`, interleaved, as ratios of medians.

Both start the same one-container pod (busybox, `sleep`) with their default network, the image present, each through
its own command line. Absolute times belong to the machine and the hour; the ratios are what the table is for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sandbox.linux.netns import unshare_network
from tests.bench.podman import Podman

POD = """apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Never
    command: ["/bin/sleep", "100000"]
"""
STEPS = ("run to ready", "exec", "removal")


@dataclass
class Samples:
    """Milliseconds by step."""

    times: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})

    def measure(self, step: str, command: list[str], environment: dict[str, str]) -> None:
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.times[step].append((time.perf_counter() - start) * 1e3)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")

    def median(self, step: str) -> float:
        return statistics.median(self.times[step])


@dataclass
class Result:
    ours: Samples = field(default_factory=Samples)
    theirs: Samples = field(default_factory=Samples)
    inside: list[float] = field(default_factory=list)
    """Milliseconds from request to running inside the daemon, by its own timeline."""
    memory_kb: dict[str, float] = field(default_factory=dict)
    """PSS of the runtime's own processes, a pod."""


class Comparison:
    """One daemon and one podman with folders of their own."""

    def __init__(self, folder: Path, peer: Podman) -> None:
        self._peer = peer
        self._sandbox = str(Path(sys.executable).parent / "sandbox")
        self._environment = {
            **os.environ,
            "SANDBOX_ROOT": str(folder / "root"),
            "SANDBOX_RUN_DIR": str(folder / "run"),
        }
        self._ours, self._theirs = folder / "ours.yaml", folder / "theirs.yaml"

    def close(self) -> None:
        pods = self._run("ps", "-a", "-o", "name").split()
        if pods:
            self._run("rm", "-f", *pods)
        self._run("daemon", "stop", "--clean")

    def _run(self, *arguments: str) -> str:
        command = [self._sandbox, *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True).stdout

    def _write(self, name: str) -> None:
        self._ours.write_text(POD.format(name=name, image="localhost/busybox"))
        self._theirs.write_text(POD.format(name=name, image=self._peer.image))

    def lives(self, runs: int) -> Result:
        """A pod's life with each, `runs` times after one warm-up (daemon, bridge, pause image)."""
        result = Result()
        self._write("bench")
        for number in range(runs + 1):
            if number == 1:
                result = Result()
            for step, ours, theirs in (
                ("run to ready", ["run", str(self._ours)], ["kube", "play", str(self._theirs)]),
                ("exec", ["exec", "bench", "--", "/bin/true"], ["exec", "bench-main", "/bin/true"]),
                ("removal", ["rm", "-f", "bench"], ["pod", "rm", "-f", "-t", "0", "bench"]),
            ):
                result.ours.measure(step, [self._sandbox, *ours], self._environment)
                result.theirs.measure(step, self._peer.command(*theirs), self._peer.environment)
            timeline = json.loads(self._run("run", "--timeline", "-o", "json", str(self._ours)))["timelines"][0]
            self._run("rm", "-f", "bench")
            ends = (span["startMicroseconds"] + span["durationMicroseconds"] for span in timeline["spans"])
            result.inside.append(max(ends) / 1e3)
        return result

    def memory(self, pods: int) -> dict[str, float]:
        """PSS a pod of monitor and pause, and of conmon and podman's pause, with `pods` idle pods of each."""
        before = set(_processes("conmon") + _processes("catatonit"))
        ours: list[int] = []
        for number in range(pods):
            self._write(f"bench{number}")
            self._run("run", str(self._ours))
            runtime = json.loads(self._run("inspect", f"bench{number}"))["runtime"]
            ours += [runtime["pausePid"], runtime["monitorPid"]]
            self._peer.run("kube", "play", str(self._theirs))
        theirs = set(_processes("conmon") + _processes("catatonit")) - before
        return {"sandbox": sum(map(_pss_kb, ours)) / pods, "podman": sum(map(_pss_kb, theirs)) / pods}


def _processes(name: str) -> list[int]:
    done = subprocess.run(["pgrep", "-x", name], capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


def _pss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="interleaved runs of each (default 20)")
    parser.add_argument("--pods", type=int, default=10, help="idle pods whose memory is compared (default 10)")
    parser.add_argument("--output", type=Path, help="write the samples as JSON")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("error: the comparison makes pods: run it as root")
    unshare_network()  # bridges and rules of both stay out of the host's own network
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-") as folder:
        peer = Podman(Path(folder) / "podman")
        comparison = Comparison(Path(folder), peer)
        try:
            result = comparison.lives(arguments.runs)
            result.memory_kb = comparison.memory(arguments.pods)
        finally:
            comparison.close()
            peer.close()
    _print(result, arguments.runs, arguments.pods)
    if arguments.output:
        arguments.output.write_text(json.dumps(asdict(result), indent=1))


def _print(result: Result, runs: int, pods: int) -> None:
    print(f"medians of {runs} interleaved runs, milliseconds")
    print(f"{'':14}{'sandbox':>10}{'podman':>10}{'ratio':>8}")
    for step in STEPS:
        mine, other = result.ours.median(step), result.theirs.median(step)
        print(f"{step:14}{mine:10.1f}{other:10.1f}{mine / other:8.2f}")
    mine, other = result.memory_kb["sandbox"], result.memory_kb["podman"]
    print(f"{'memory, KB':14}{mine:10.0f}{other:10.0f}{mine / other:8.3f}   PSS a pod, {pods} idle pods")
    print(f"\nrequest to running inside the daemon: {statistics.median(result.inside):.1f} ms")


if __name__ == "__main__":
    main()
