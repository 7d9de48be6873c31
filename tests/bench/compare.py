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
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.linux.netns import unshare_network
from tests.bench.podman import Podman

POD = """apiVersion: v1
kind: Pod
metadata: {{name: bench}}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="interleaved runs of each (default 20)")
    parser.add_argument("--output", type=Path, help="write the samples as JSON")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("error: the comparison makes pods: run it as root")
    unshare_network()  # bridges and rules of both stay out of the host's own network
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-") as folder:
        peer = Podman(Path(folder) / "podman")
        try:
            ours, theirs, spans = _compare(Path(folder), peer, arguments.runs)
        finally:
            peer.close()
    _print(ours, theirs, spans, arguments.runs)
    if arguments.output:
        arguments.output.write_text(json.dumps({"sandbox": ours.times, "podman": theirs.times, "inside": spans}))


def _compare(folder: Path, peer: Podman, runs: int) -> tuple[Samples, Samples, list[float]]:
    sandbox = str(Path(sys.executable).parent / "sandbox")
    environment = {
        **os.environ,
        "SANDBOX_ROOT": str(folder / "root"),
        "SANDBOX_RUN_DIR": str(folder / "run"),
    }
    (folder / "ours.yaml").write_text(POD.format(image="localhost/busybox"))
    (folder / "theirs.yaml").write_text(POD.format(image=peer.image))
    ours, theirs, inside = Samples(), Samples(), []
    podman_environment = peer.environment
    try:
        for number in range(runs + 1):
            if number == 1:  # the first of each is a warm-up: daemon, bridge, pause image
                ours, theirs, inside = Samples(), Samples(), []
            ours.measure("run to ready", [sandbox, "run", str(folder / "ours.yaml")], environment)
            theirs.measure(
                "run to ready", peer.command("kube", "play", str(folder / "theirs.yaml")), podman_environment
            )
            ours.measure("exec", [sandbox, "exec", "bench", "--", "/bin/true"], environment)
            theirs.measure("exec", peer.command("exec", "bench-main", "/bin/true"), podman_environment)
            ours.measure("removal", [sandbox, "rm", "-f", "bench"], environment)
            theirs.measure("removal", peer.command("pod", "rm", "-f", "-t", "0", "bench"), podman_environment)
            inside.append(_inside(sandbox, folder, environment))
    finally:
        subprocess.run([sandbox, "rm", "-f", "bench"], env=environment, capture_output=True)
        subprocess.run([sandbox, "daemon", "stop"], env=environment, capture_output=True)
    return ours, theirs, inside


def _inside(sandbox: str, folder: Path, environment: dict[str, str]) -> float:
    """Milliseconds from request to running inside the daemon, by its own timeline."""
    manifest = str(folder / "ours.yaml")
    done = subprocess.run(
        [sandbox, "run", "--timeline", "-o", "json", manifest], env=environment, capture_output=True, text=True
    )
    subprocess.run([sandbox, "rm", "-f", "bench"], env=environment, capture_output=True)
    spans = json.loads(done.stdout)["timelines"][0]["spans"]
    return max(span["startMicroseconds"] + span["durationMicroseconds"] for span in spans) / 1e3


def _print(ours: Samples, theirs: Samples, inside: list[float], runs: int) -> None:
    print(f"medians of {runs} interleaved runs, milliseconds")
    print(f"{'':14}{'sandbox':>10}{'podman':>10}{'ratio':>8}")
    for step in STEPS:
        mine, other = ours.median(step), theirs.median(step)
        print(f"{step:14}{mine:10.1f}{other:10.1f}{mine / other:8.2f}")
    if inside:
        print(f"\nrequest to running inside the daemon: {statistics.median(inside):.1f} ms")


if __name__ == "__main__":
    main()
