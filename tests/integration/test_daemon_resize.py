"""Limits that change through the whole of it: API, controller, runtime, kernel; across the daemon's death."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from daemon_harness import Daemon, eventually, pod_manifest, running

from sandbox.cli.client import ApiError
from sandbox.cli.usage import Rows, samples, stats_target

SPIN = "while :; do :; done"
LIMITS = {"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "32Mi"}}


@pytest.fixture(scope="module")
def shared() -> Iterator[Daemon]:
    with running() as one:
        yield one


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    yield shared
    for pod in shared.get("pods", all=1)["items"]:
        shared.delete(pod["metadata"]["name"])


def limited(name: str, script: str, **more: Any) -> dict[str, Any]:
    return pod_manifest(name, script, restart="Always", resources=copy.deepcopy(LIMITS), **more)


def patch(daemon: Daemon, name: str, **body: Any) -> Any:
    return daemon.client.call("PATCH", daemon.pod_path(name, "resources"), body)


def cpu_share(daemon: Daemon, name: str, seconds: float = 1.5) -> float:
    rows = Rows()
    path = stats_target("default", (name,), watch=True, interval_s=seconds)
    with daemon.client.request("GET", path, stream=True) as stream:
        for sample in samples(stream):
            row = rows.take(sample)[0]
            if row.cpu_milli is not None:
                return row.cpu_milli / 1000
    raise AssertionError("the stream ended")


def expect_share(daemon: Daemon, name: str, expected: float, tolerance: float) -> None:
    """The limit is never exceeded, and reached in one of several windows: others may use this machine too."""
    shares: list[float] = []
    for _ in range(10):
        shares.append(cpu_share(daemon, name))
        assert shares[-1] <= expected + tolerance
        if shares[-1] >= expected - tolerance:
            return
    raise AssertionError(f"never near {expected}: {shares}")


def container(daemon: Daemon, name: str) -> Any:
    return daemon.pod(name)["status"]["containerStatuses"][0]


def test_the_share_of_the_cpu_follows(daemon: Daemon) -> None:
    daemon.run(limited("spin", SPIN))
    before = container(daemon, "spin")
    expect_share(daemon, "spin", 0.2, 0.05)
    answer = patch(daemon, "spin", limits={"cpu": "500m"})
    assert answer["changes"] == ["main: cpu limit 200m → 500m"]
    expect_share(daemon, "spin", 0.5, 0.08)
    after = container(daemon, "spin")
    assert after["containerID"] == before["containerID"] and after["restartCount"] == 0
    assert after["resources"]["limits"] == {"cpu": "500m", "memory": "64Mi"}
    reasons = [event["reason"] for event in daemon.client.get(daemon.pod_path("spin", "describe"))["events"]]
    assert "Resized" in reasons


def test_a_manifest_with_other_limits_resizes_and_survives_the_daemon(daemon: Daemon) -> None:
    manifest = limited("spin", SPIN)
    daemon.run(manifest)
    before = container(daemon, "spin")
    manifest["spec"]["containers"][0]["resources"]["limits"] = {"cpu": "400m", "memory": "80Mi"}
    daemon.run(manifest)
    daemon.kill()
    daemon.start()
    after = container(daemon, "spin")
    assert after["containerID"] == before["containerID"]
    assert after["resources"]["limits"] == {"cpu": "400m", "memory": "80Mi"}
    (stats,) = [pod for pod in daemon.get("stats")["pods"] if pod["name"] == "spin"]
    assert stats["memoryLimitBytes"] == stats["containers"][0]["memoryLimitBytes"] == 80 << 20
    expect_share(daemon, "spin", 0.4, 0.07)
    daemon.run(manifest)  # the same again changes nothing
    manifest["spec"]["containers"][0]["command"] = ["sleep", "1"]
    with pytest.raises(ApiError, match=r"command.* differs") as refused:
        daemon.apply(manifest)
    assert refused.value.exit_code == 4


def test_memory_below_its_use_is_refused(daemon: Daemon) -> None:
    daemon.run(limited("hold", "dd if=/dev/zero of=/dev/shm/x bs=1M count=24 2>/dev/null; echo held; sleep 1000"))
    eventually(lambda: b"held" in daemon.log_of("hold"))
    before = daemon.pod("hold")
    with pytest.raises(ApiError, match="below its present use") as refused:
        patch(daemon, "hold", limits={"memory": "8Mi", "cpu": "500m"}, requests={"memory": "4Mi"})
    assert refused.value.exit_code == 2
    assert daemon.pod("hold") == before
    (stats,) = daemon.get("stats")["pods"]
    assert stats["memoryLimitBytes"] == 64 << 20


def test_a_new_memory_limit_kills(daemon: Daemon) -> None:
    script = "until [ -e /dev/shm/go ]; do sleep 0.05; done; exec dd if=/dev/zero of=/dev/null bs=30M count=1"
    daemon.run(limited("eat", script))
    patch(daemon, "eat", limits={"memory": "16Mi"}, requests={"memory": "8Mi"})
    id = daemon.client.get(daemon.pod_path("eat", "describe"))["runtime"]["containers"][0]["pid"]
    with open(f"/proc/{id}/root/dev/shm/go", "w"):  # noqa: PTH123
        pass
    ended = eventually(lambda: container(daemon, "eat")["lastState"].get("terminated"))
    assert ended["reason"] == "OOMKilled" and ended["exitCode"] == 137


def test_a_restart_for_new_limits(daemon: Daemon) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    daemon.run(limited("again", "trap 'exit 0' TERM; sleep 1000 & wait", resizePolicy=policy))
    start = time.monotonic()
    patch(daemon, "again", limits={"memory": "48Mi"}, timeoutSeconds=20)
    assert time.monotonic() - start < 15
    after = eventually(lambda: (c := container(daemon, "again"))["state"].get("running") and c)
    assert after["restartCount"] == 1 and after["resources"]["limits"]["memory"] == "48Mi"
    (stats,) = daemon.get("stats")["pods"]
    assert stats["memoryLimitBytes"] == stats["containers"][0]["memoryLimitBytes"] == 48 << 20


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 2),
        ({"limits": {"cpu": 1}}, 2),
        ({"limits": ["cpu"]}, 2),
        ({"speed": {}}, 2),
        ({"container": 5, "limits": {"cpu": "1"}}, 2),
        ({"container": "other", "limits": {"cpu": "1"}}, 3),
        ({"settings": {"pids": "-4"}}, 2),
        ({"settings": {"io": "/dev/nothing rbps=1"}}, 2),
        ({"requests": {"cpu": "3"}}, 2),
        ({"requests": {"cpu": "200m", "memory": "64Mi"}}, 4),
    ],
)
def test_wrong_requests(daemon: Daemon, body: dict[str, Any], status: int) -> None:
    daemon.run(limited("plain", "sleep 1000"))
    before = daemon.pod("plain")
    with pytest.raises(ApiError) as refused:
        patch(daemon, "plain", **body)
    assert refused.value.exit_code == status
    assert daemon.pod("plain") == before


def test_stats_stream(daemon: Daemon) -> None:
    daemon.run(limited("one", SPIN), limited("two", "sleep 1000"))
    path = stats_target(None, ("one",), watch=True, interval_s=0.2)
    with daemon.client.request("GET", path, stream=True) as stream:
        seen = []
        for sample in samples(stream):
            seen.append(sample)
            if len(seen) >= 4 and (sample[0]["cpuThrottledNanoseconds"] > 0 or len(seen) == 50):
                break
    times = [pod["timeNanoseconds"] for (pod,) in seen]
    gaps = [(after - before) / 1e9 for before, after in pairwise(times)]
    assert gaps == pytest.approx([0.2] * len(gaps), abs=0.15)
    last = seen[-1][0]
    assert last["cpuThrottledNanoseconds"] > 0 and last["memoryPeakBytes"] > 0 and last["oomKills"] == 0
    with pytest.raises(ApiError, match="interval"):
        daemon.client.get("/v1/stats?watch=1&interval=0")


def test_a_stream_ends_with_the_daemon() -> None:
    with running() as one, one.client.request("GET", "/v1/stats?watch=1&interval=0.1", stream=True) as stream:
        events = stream.events()
        assert next(events) == {"pods": []}
        assert one.stop() == 0
        list(events)
