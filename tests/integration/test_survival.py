"""The two promises: pods outlive their daemon, and what is taken down leaves nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from daemon_harness import Daemon, eventually, pod_manifest, running

from sandbox.cli.client import target
from sandbox.linux.process import ProcessIdentity

PODS = KILLS = int(os.environ.get("SANDBOX_TEST_ROUNDS", "10"))
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def facts(daemon: Daemon, name: str) -> dict[str, Any]:
    """What must not change of a pod: processes for all time, address, network namespace, restarts, container ids."""
    runtime = daemon.client.get(daemon.pod_path(name, "describe"))["runtime"]
    status = daemon.pod(name)["status"]
    pids = [runtime["pausePid"], runtime["monitorPid"], *(c["pid"] for c in runtime["containers"])]
    return {
        "processes": [ProcessIdentity.current(pid) for pid in pids],
        "address": status["podIP"],
        "netns": (runtime["netnsPath"], runtime["netnsInode"]),
        "containers": [(c["containerID"], c["restartCount"]) for c in status["containerStatuses"]],
    }


def test_ten_pods_and_ten_kills_of_the_daemon() -> None:
    """Every pid, address and exit code as before, a connection held open, every line of every log."""
    with running() as daemon:
        for n in range(PODS):
            daemon.run(pod_manifest(f"steady{n}", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.02; done"))
        echo = pod_manifest("echo", "exec nc -ll -p 7000 -e cat", restart="Always")
        daemon.run(echo)
        before = {name: facts(daemon, name) for name in [*(f"steady{n}" for n in range(PODS)), "echo"]}
        connection = eventually(lambda: _connect(before["echo"]["address"], 7000))
        for round in range(KILLS):
            code = 10 + round
            daemon.run(pod_manifest(f"ends{round}", f"sleep 0.3; exit {code}"), wait="none")
            eventually(lambda r=round: daemon.pod(f"ends{r}")["status"]["phase"] == "Running")
            daemon.kill()
            connection.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"
            daemon.start()
            for name, fact in before.items():
                assert facts(daemon, name) == fact, f"{name} changed in round {round}"
        connection.sendall(b"to the end")
        assert connection.recv(100) == b"to the end"
        connection.close()
        for round in range(KILLS):
            eventually(lambda r=round: daemon.pod(f"ends{r}")["status"]["phase"] == "Failed")
            (status,) = daemon.pod(f"ends{round}")["status"]["containerStatuses"]
            assert status["state"]["terminated"]["exitCode"] == 10 + round
        for n in range(PODS):
            lines = [int(line) for line in daemon.log_of(f"steady{n}").splitlines()]
            assert lines == list(range(len(lines))) and len(lines) > 50


def _connect(address: str, port: int) -> socket.socket | None:
    try:
        return socket.create_connection((address, port), timeout=5)
    except OSError:
        return None


def run(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def host_objects(tag: str, run_dir: Path) -> dict[str, list[str]]:
    """Everything a pod could leave on this host, by kind, as lines that can be compared."""
    monitors = [line for line in run("ps", "-eo", "pid,args") if str(run_dir) in line or tag in line]
    mounts = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]  # of v2 alone, of v1
    cgroups = [str(p) for mount in mounts for p in mount.glob(f"*{tag}*")]
    return {
        "processes": [line for line in monitors if "sandbox.daemon" not in line],
        "links": sorted(line.split(":")[1] for line in run("ip", "-o", "link")),
        "addresses": sorted(" ".join(line.split()[1:4]) for line in run("ip", "-o", "address")),
        "routes": sorted(line.replace(" linkdown", "").strip() for line in run("ip", "route", "show", "table", "all")),
        "rules": run("nft", "list", "ruleset"),
        "cgroups": cgroups,
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if tag in line],
        "forwarding": [Path("/proc/sys/net/ipv4/ip_forward").read_text()],
    }


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


def test_down_leaves_nothing() -> None:
    """`down` of pods with volumes, limits, host ports and shared namespaces; the daemon is still there afterwards."""
    manifests = [
        {"name": path.name, "content": path.read_text()}
        for path in sorted(EXAMPLES.glob("*.yaml"))
        if path.name in ("web.yaml", "limits.yaml", "configmap.yaml", "hostport.yaml", "shared-pid.yaml")
    ]
    assert len(manifests) == 5
    with running() as daemon:
        before = host_objects(daemon.tag, daemon.run_dir)
        netns_before = names(Path("/run/netns"))
        with daemon.client.request("POST", "/v1/apply", {"files": manifests, "wait": "ready"}, stream=True) as response:
            lines = list(response.events())
        assert lines[-1] == {"type": "end", "exitCode": 0}, lines
        sandboxes = names(daemon.run_dir / "pods")
        processes = list(_processes(daemon))
        assert len(sandboxes) >= 4 and len(processes) >= 12
        during = host_objects(daemon.tag, daemon.run_dir)
        for kind in ("links", "addresses", "rules", "cgroups"):
            assert during[kind] != before[kind], f"the test cannot see {kind}"
        removed = daemon.client.call("POST", "/v1/down", {"files": manifests, "graceSeconds": 0})
        assert len(removed["removed"]) == 5
        assert host_objects(daemon.tag, daemon.run_dir) == before
        assert not [one for one in processes if one.alive()]
        pins = names(Path("/run/netns")) - netns_before
        assert not [name for name in pins if any(id in name for id in sandboxes)]
        assert names(daemon.run_dir / "pods") == names(daemon.root / "pods") == set()
        again = daemon.client.call("POST", "/v1/down", {"files": manifests, "graceSeconds": 0})
        assert again["removed"] == []


def _processes(daemon: Daemon) -> Iterator[ProcessIdentity]:
    for pod in daemon.get("pods", all=1)["items"]:
        path = target("v1", "namespaces", "default", "pods", pod["metadata"]["name"], "describe")
        runtime = daemon.client.get(path)["runtime"]
        pids = [runtime.get("pausePid", 0), runtime.get("monitorPid", 0)]
        pids += [container.get("pid", 0) for container in runtime["containers"]]
        for pid in filter(None, pids):
            with suppress(ProcessLookupError):  # one of the examples has a container that keeps dying
                yield ProcessIdentity.current(pid)


def test_an_idle_pod_costs_little_memory() -> None:
    """PSS of monitor and pause together, with twenty pods: at most 128 KB a pod."""
    with running() as daemon:
        for n in range(20):
            daemon.run(pod_manifest(f"idle{n}", "exec sleep 100000"))
        total = 0
        for n in range(20):
            runtime = daemon.client.get(daemon.pod_path(f"idle{n}", "describe"))["runtime"]
            for pid in (runtime["pausePid"], runtime["monitorPid"]):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        print(json.dumps({"pss_kb_per_pod": total / 20}))
        assert total / 20 <= 128
