"""Pods through the API of a real daemon: life, logs, exec, attach, restarts, kills of the daemon."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from daemon_harness import Daemon, eventually, pod_manifest, running
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, RejectConnection, Request

from sandbox.cli.client import ApiError, target


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as one:
        yield one


class Remote:
    """A client of exec and attach that speaks v5.channel.k8s.io."""

    def __init__(self, daemon: Daemon, path: str, protocol: str = "v5.channel.k8s.io") -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(daemon.client.socket_path)
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.output: dict[int, bytes] = {1: b"", 2: b"", 3: b""}
        self.status: Any = None
        self.rejected = 0
        self._send(Request(host="sandbox", target=path, subprotocols=[protocol]))
        while not self._receive():
            pass

    def _send(self, event: Any) -> None:
        self.socket.sendall(self.ws.send(event))

    def _receive(self) -> bool:
        """Reads once; True when a handshake, a rejection or the end was seen."""
        data = self.socket.recv(65536)
        self.ws.receive_data(data or None)
        seen = not data
        for event in self.ws.events():
            if isinstance(event, BytesMessage):
                self._message(bytes(event.data), finished=event.message_finished)
            elif isinstance(event, RejectConnection):
                self.rejected, seen = event.status_code, True
            elif isinstance(event, AcceptConnection | CloseConnection):
                seen = True
        return seen

    _partial = b""

    def _message(self, data: bytes, *, finished: bool) -> None:
        """The first byte of a message is its channel; a message may come in pieces."""
        self._partial += data
        if finished:
            channel, content, self._partial = self._partial[0], self._partial[1:], b""
            if channel == 3:
                self.status = json.loads(content)
            else:
                self.output[channel] += content

    def write(self, data: bytes, channel: int = 0) -> None:
        self._send(BytesMessage(data=bytes([channel]) + data))

    def close_input(self) -> None:
        self.write(b"\0", 255)

    def resize(self, columns: int, rows: int) -> None:
        self.write(json.dumps({"Width": columns, "Height": rows}).encode(), 4)

    def until(self, part: bytes, channel: int = 1) -> None:
        while part not in self.output[channel]:
            assert not self._receive(), self.output

    def end(self) -> int:
        """Reads to the end; the exit code that the status tells."""
        closed = False
        while self.status is None:
            assert not closed, f"closed without a status: {self.output}"
            closed = self._receive()
        self.socket.close()
        if self.status["status"] == "Success":
            return 0
        return int(self.status["details"]["causes"][0]["message"])


def exec_(daemon: Daemon, name: str, *command: str, **query: Any) -> Remote:
    pairs = [("command", word) for word in command] + list(query.items())
    return Remote(daemon, target("v1", "namespaces", "default", "pods", name, "exec", query=pairs))


def pids(daemon: Daemon, name: str) -> dict[str, int]:
    runtime = daemon.client.get(daemon.pod_path(name, "describe"))["runtime"]
    found = {c["name"]: c["pid"] for c in runtime["containers"]}
    return found | {"pause": runtime["pausePid"], "monitor": runtime["monitorPid"], "netns": runtime["netnsInode"]}


@pytest.fixture(scope="module")
def shell(daemon: Daemon) -> str:
    """A pod that runs a while, for exec."""
    daemon.run(pod_manifest("shell", "echo started; exec sleep 1000"))
    return "shell"


def test_the_stream_of_apply(daemon: Daemon) -> None:
    lines = daemon.apply(pod_manifest("stream", "exec sleep 1000"))
    kinds = [line["type"] for line in lines]
    assert kinds[-3:] == ["pod", "timeline", "end"]
    assert "progress" in kinds
    pod = lines[-3]["pod"]
    assert pod["status"]["phase"] == "Running"
    assert pod["status"]["podIP"].startswith("10.")
    spans = {span["name"] for span in lines[-2]["spans"]}
    assert {"validate", "image", "cgroups", "network", "exec"} <= spans
    assert daemon.apply(pod_manifest("stream", "exec sleep 1000"))[-1]["exitCode"] == 0  # the same again is no error
    with pytest.raises(ApiError) as caught:
        daemon.apply(pod_manifest("stream", "exec sleep 1001"))
    assert caught.value.exit_code == 4
    assert [p["metadata"]["name"] for p in daemon.get("pods")["items"] if p["metadata"]["name"] == "stream"]
    daemon.delete("stream")
    with pytest.raises(ApiError) as gone:
        daemon.pod("stream")
    assert gone.value.exit_code == 3


def test_wait_done_gives_the_exit_code_and_rm_removes(daemon: Daemon) -> None:
    lines = daemon.apply(pod_manifest("seven", "exit 7"), wait="done")
    assert lines[-1]["exitCode"] == 7
    assert daemon.pod("seven")["status"]["phase"] == "Failed"
    assert "seven" not in [p["metadata"]["name"] for p in daemon.get("pods")["items"]]
    assert "seven" in [p["metadata"]["name"] for p in daemon.get("pods", all=1)["items"]]
    daemon.delete("seven")
    assert daemon.apply(pod_manifest("gone", "true"), wait="done", rm=True)[-1]["exitCode"] == 0
    assert "gone" not in [p["metadata"]["name"] for p in daemon.get("pods", all=1)["items"]]


def test_a_wait_that_is_too_long(daemon: Daemon) -> None:
    lines = daemon.apply(pod_manifest("slow", "exec sleep 1000"), wait="done", timeoutSeconds=0.3)
    assert lines[-1]["exitCode"] == 5
    assert [line["error"]["reason"] for line in lines if line["type"] == "error"] == ["Timeout"]
    assert daemon.pod("slow")["status"]["phase"] == "Running"
    daemon.delete("slow")


def test_manifest_errors_come_before_the_stream_and_all_at_once(daemon: Daemon) -> None:
    wrong = pod_manifest("wrong", "true")
    wrong["spec"]["containers"][0]["imag"] = "x"
    wrong["spec"]["containrs"] = []
    with pytest.raises(ApiError) as caught:
        daemon.apply(wrong)
    assert len(caught.value.errors) == 2
    assert {error["reason"] for error in caught.value.errors} == {"InvalidManifest"}
    assert all(error["file"] == "0.json" and error["line"] == 1 for error in caught.value.errors)
    assert daemon.get("pods", all=1)["items"] == [p for p in daemon.get("pods", all=1)["items"]]


def test_a_command_that_does_not_exist_leaves_nothing(daemon: Daemon) -> None:
    before = daemon.get("pods", all=1)["items"]
    manifest = pod_manifest("absent", "true")
    manifest["spec"]["containers"][0]["command"] = ["/no/such/program"]
    lines = daemon.apply(manifest)
    (error,) = [line["error"] for line in lines if line["type"] == "error"]
    assert "/no/such/program" in error["message"] and error["errno"] == 2
    assert lines[-1]["exitCode"] == error["exitCode"] == 1
    assert daemon.get("pods", all=1)["items"] == before


def test_a_dry_run_prints_the_plan_and_makes_nothing(daemon: Daemon) -> None:
    before = daemon.get("pods", all=1)["items"]
    lines = daemon.apply(pod_manifest("dry", "true"), dryRun=True)
    assert [(line["type"], line.get("container")) for line in lines] == [("plan", ""), ("plan", "main"), ("end", None)]
    text = "\n".join(lines[1]["lines"])
    for part in ("overlay of 1 layers", "pivot root", "seccomp", "exec"):
        assert part in text
    assert daemon.get("pods", all=1)["items"] == before


def test_a_client_that_goes_away_with_rm_takes_its_pod_along(daemon: Daemon) -> None:
    files = [{"name": "x", "content": json.dumps(pod_manifest("mine", "exec sleep 1000"))}]
    connection = daemon.client.connect()
    body = json.dumps({"files": files, "wait": "done", "rm": True}).encode()
    connection.sendall(b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    eventually(lambda: [p for p in daemon.get("pods")["items"] if p["metadata"]["name"] == "mine"])
    connection.close()
    eventually(lambda: not [p for p in daemon.get("pods", all=1)["items"] if p["metadata"]["name"] == "mine"])


def test_logs_are_exact(daemon: Daemon) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line-$i; i=$((i+1)); done; printf no-newline; echo error >&2"
    daemon.run(pod_manifest("logs", script), wait="done")
    expected = b"".join(b"line-%d\n" % n for n in range(2000))
    whole = daemon.log_of("logs")
    assert whole.replace(b"error\n", b"") == expected + b"no-newline"
    assert daemon.log_of("logs", tail=0) == b""
    assert len(daemon.log_of("logs", tail=3).splitlines()) == 3
    stamped = daemon.log_of("logs", timestamps=1, tail=1)
    assert stamped[:2] == b"20" and b"Z " in stamped
    assert daemon.log_of("logs", since="1h") == whole
    assert daemon.log_of("logs", since="2100-01-01T00:00:00Z") == b""
    for wrong in ({"since": "soon"}, {"tail": "-1"}, {"container": "absent"}, {"previous": 1}):
        with pytest.raises(ApiError):
            daemon.log_of("logs", **wrong)
    daemon.delete("logs")


def test_binary_output_and_very_long_lines(daemon: Daemon) -> None:
    script = "head -c 300000 /dev/urandom > /tmp/r; cat /tmp/r; md5sum < /tmp/r > /tmp/sum; sleep 0.2; cat /tmp/sum >&2"
    daemon.run(pod_manifest("binary", script), wait="done")
    import hashlib

    whole = daemon.log_of("binary")
    assert len(whole) >= 300_000
    # stderr is a line of its own, wherever the joiner put it: at the end, for stdout was written first.
    content, checksum = whole[:300_000], whole[300_000:]
    assert hashlib.md5(content).hexdigest().encode() in checksum
    daemon.delete("binary")


def test_follow_goes_through_restarts_and_ends_with_the_pod(daemon: Daemon) -> None:
    manifest = pod_manifest(
        "restarts", "echo run-$(cat /data/n | wc -l); echo x >> /data/n; sleep 0.1; exit 1", restart="Always"
    )
    manifest["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    manifest["spec"]["containers"][0]["command"][2] = (
        "touch /data/n; " + manifest["spec"]["containers"][0]["command"][2]
    )
    daemon.run(manifest, wait="none")
    eventually(
        lambda: (daemon.pod("restarts")["status"].get("containerStatuses") or [{}])[0].get("restartCount", 0) >= 1
    )
    output = []
    thread = threading.Thread(target=lambda: output.append(daemon.log_of("restarts", follow=1)))
    thread.start()
    first = daemon.pod("restarts")["status"]["containerStatuses"][0]["restartCount"]
    eventually(lambda: daemon.pod("restarts")["status"]["containerStatuses"][0]["restartCount"] >= first + 2, 20)
    previous = daemon.log_of("restarts", previous=1)
    assert previous.startswith(b"run-")
    daemon.client.call("POST", daemon.pod_path("restarts", "stop"), {"graceSeconds": 0})
    thread.join(timeout=10)
    assert not thread.is_alive()
    numbers = [int(line.split(b"-")[1]) for line in output[0].splitlines()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) >= 2
    daemon.delete("restarts")


def test_follow_tells_at_once(daemon: Daemon) -> None:
    daemon.run(pod_manifest("ticks", "while true; do echo x; sleep 0.05; done"))
    path = daemon.pod_path("ticks", "log", follow=1, tail=0, timestamps=1)
    delays: list[float] = []
    with daemon.client.request("GET", path, stream=True) as response:
        for block in response.chunks():
            stamps = [line.split(b" ")[0][:26].decode() for line in block.splitlines()]
            delays += [time.time() - datetime.fromisoformat(stamp + "+00:00").timestamp() for stamp in stamps]
            if len(delays) > 20:
                break
    assert sorted(delays)[len(delays) // 2] < 0.05
    daemon.delete("ticks")


def test_exec_and_its_exit_code(daemon: Daemon, shell: str) -> None:
    remote = exec_(daemon, shell, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert remote.end() == 7
    assert (remote.output[1], remote.output[2]) == (b"out\n", b"err\n")
    assert exec_(daemon, shell, "true").end() == 0
    killed = exec_(daemon, shell, "sh", "-c", "kill -9 $$")
    assert killed.end() == 137


def test_exec_with_input_and_its_end(daemon: Daemon, shell: str) -> None:
    remote = exec_(daemon, shell, "sh", "-c", "cat; echo end", stdin=1)
    data = os.urandom(300_000)
    for offset in range(0, len(data), 60_000):
        remote.write(data[offset : offset + 60_000])
    remote.close_input()
    assert remote.end() == 0
    assert remote.output[1] == data + b"end\n"


def test_exec_gives_all_output_also_to_a_slow_client(daemon: Daemon, shell: str) -> None:
    remote = exec_(daemon, shell, "sh", "-c", "head -c 3000000 /dev/zero")
    time.sleep(2)
    assert remote.end() == 0
    assert len(remote.output[1]) == 3_000_000


def test_exec_ends_although_a_background_process_keeps_the_output(daemon: Daemon, shell: str) -> None:
    started = time.monotonic()
    remote = exec_(daemon, shell, "sh", "-c", "sleep 100 & echo done")
    assert remote.end() == 0
    assert remote.output[1] == b"done\n"
    assert time.monotonic() - started < 5


def test_exec_with_a_terminal(daemon: Daemon, shell: str) -> None:
    remote = exec_(daemon, shell, "sh", tty=1, stdin=1, rows=33, cols=77)
    remote.write(b"stty size; tty\n")
    remote.until(b"33 77")
    remote.until(b"/dev/pts/")
    remote.resize(120, 50)
    remote.write(b"stty size\n")
    remote.until(b"50 120")
    remote.write(b"garbage", 4)  # no size: ignored
    remote.write(b"exit 3\n")
    assert remote.end() == 3
    assert remote.output[2] == b""


def test_exec_of_what_does_not_exist(daemon: Daemon, shell: str) -> None:
    remote = exec_(daemon, shell, "/no/such/program")
    assert remote.rejected == 500
    assert Remote(daemon, daemon.pod_path(shell, "exec", command="true"), "v4.channel.k8s.io").rejected == 400
    assert exec_(daemon, "absent", "true").rejected == 404
    assert exec_(daemon, shell, "true", container="absent").rejected == 404


def test_an_execed_process_ends_with_its_client(daemon: Daemon, shell: str) -> None:
    remote = exec_(daemon, shell, "sh", "-c", "echo $$; exec sleep 987")
    remote.until(b"\n")

    def alive() -> bool:
        return any(
            b"987" in p.read_bytes()
            for p in Path("/proc").glob("[0-9]*/cmdline")
            if p.exists() and _is(p, b"sleep\x00987")
        )

    assert eventually(alive)
    remote.socket.close()
    eventually(lambda: not alive())


def _is(path: Path, part: bytes) -> bool:
    try:
        return part in path.read_bytes()
    except OSError:
        return False


def test_attach_shows_what_comes_and_takes_input(daemon: Daemon) -> None:
    manifest = pod_manifest(
        "attach", "while read -r line; do echo got-$line; done; echo over", stdin=True, stdinOnce=True
    )
    daemon.run(manifest)
    remote = Remote(daemon, daemon.pod_path("attach", "attach", stdin=1))
    remote.write(b"one\n")
    remote.until(b"got-one\n")
    remote.write(b"two\n")
    remote.until(b"got-two\n")
    remote.close_input()
    assert remote.end() == 0
    assert remote.output[1] == b"got-one\ngot-two\nover\n"
    eventually(lambda: daemon.pod("attach")["status"]["phase"] == "Succeeded")
    daemon.delete("attach")


def test_stats_and_describe(daemon: Daemon, shell: str) -> None:
    (stats,) = [p for p in daemon.get("stats")["pods"] if p["name"] == shell]
    assert stats["pids"] >= 1 and stats["memoryUsageBytes"] > 0 and stats["cpuNanoseconds"] > 0
    assert [c["name"] for c in stats["containers"]] == ["main"]
    described = daemon.client.get(daemon.pod_path(shell, "describe"))
    reasons = [event["reason"] for event in described["events"]]
    assert "Started" in reasons
    (container,) = described["runtime"]["containers"]
    assert Path(container["upper"]).is_dir() and all(Path(layer).is_dir() for layer in container["layers"])
    assert Path(container["logPath"]).exists()
    assert described["runtime"]["netnsInode"] == Path(described["runtime"]["netnsPath"]).stat().st_ino


def test_an_image_in_use_is_not_removed(daemon: Daemon, shell: str) -> None:
    with pytest.raises(ApiError) as caught:
        daemon.client.call("DELETE", target("v1", "images", query=[("reference", "localhost/busybox")]))
    assert caught.value.exit_code == 4


def test_many_pods_at_once(daemon: Daemon) -> None:
    manifests = [pod_manifest(f"many-{n}", "exec sleep 1000") for n in range(10)]
    pods = daemon.run(*manifests)
    addresses = {pod["status"]["podIP"] for pod in pods}
    assert len(addresses) == 10
    files = [{"name": "x", "content": json.dumps(manifest)} for manifest in manifests]
    answer = daemon.client.call("POST", "/v1/down", {"files": files})
    assert sorted(answer["removed"]) == sorted(f"many-{n}" for n in range(10))


def test_pods_outlive_a_stop_and_kills_of_the_daemon() -> None:
    with running() as daemon:
        daemon.run(pod_manifest("steady", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.01; done"))
        daemon.run(pod_manifest("ends", "sleep 1.2; exit 42"), wait="none")
        before = pids(daemon, "steady")
        address = daemon.pod("steady")["status"]["podIP"]
        daemon.stop()
        daemon.start()
        for _ in range(4):
            daemon.kill()
            time.sleep(0.15)
            daemon.start()
            assert pids(daemon, "steady") == before
            assert daemon.pod("steady")["status"]["podIP"] == address
        daemon.kill()
        time.sleep(1.2)
        daemon.start()
        # The exit that nobody was there to see.
        (status,) = eventually(lambda: daemon.pod("ends")["status"]["containerStatuses"])
        eventually(lambda: daemon.pod("ends")["status"]["phase"] == "Failed")
        (status,) = daemon.pod("ends")["status"]["containerStatuses"]
        assert status["state"]["terminated"]["exitCode"] == 42
        # It is told once, however often the daemon learns of it.
        daemon.kill()
        daemon.start()
        assert [e["object"]["name"] for e in _events(daemon) if e["reason"] == "Exited"] == ["ends"]
        lines = [int(line) for line in daemon.log_of("steady").splitlines()]
        assert lines == list(range(len(lines))) and len(lines) > 100
        assert exec_(daemon, "steady", "true").end() == 0


def test_a_kill_in_the_middle_of_a_run_leaves_nothing_or_a_pod() -> None:
    """Kills at many moments of an apply; afterwards the pod is as asked or can be made as if nothing had been."""
    with running() as daemon:
        for delay_ms in (0, 3, 6, 10, 15, 20, 30, 45):
            manifest = pod_manifest("victim", "exec sleep 1000")
            thread = threading.Thread(target=lambda m=manifest: _attempt(daemon, m))
            thread.start()
            time.sleep(delay_ms / 1000)
            daemon.kill()
            thread.join(timeout=20)
            daemon.start()
            daemon.run(pod_manifest("victim", "exec sleep 1000"))
            assert exec_(daemon, "victim", "true").end() == 0
            daemon.delete("victim")
            assert [p for p in (daemon.run_dir / "pods").iterdir()] == []


def _attempt(daemon: Daemon, manifest: dict[str, Any]) -> None:
    try:
        daemon.apply(manifest)
    except Exception:
        return  # the daemon is killed under it: any answer is as good as none


def test_two_daemons_side_by_side() -> None:
    with running() as one, running() as two:
        for daemon in (one, two):
            daemon.run(pod_manifest("same-name", f"echo {daemon.tag}; exec sleep 1000"))
        assert one.pod("same-name")["metadata"]["uid"] != two.pod("same-name")["metadata"]["uid"]
        assert pids(one, "same-name") != pids(two, "same-name")
        assert one.log_of("same-name") == one.tag.encode() + b"\n"
        assert two.log_of("same-name") == two.tag.encode() + b"\n"
        one.delete("same-name")
        assert exec_(two, "same-name", "true").end() == 0


def _events(daemon: Daemon) -> list[dict[str, Any]]:
    with daemon.client.request("GET", "/v1/events", stream=True) as response:
        return list(response.events())


def test_who_waits_is_told_when_the_daemon_stops() -> None:
    with running() as daemon:
        answer: list[dict[str, Any]] = []
        manifest = pod_manifest("waits", "exec sleep 1000")
        thread = threading.Thread(target=lambda: answer.extend(daemon.apply(manifest, wait="done")))
        thread.start()
        eventually(lambda: [p for p in daemon.get("pods")["items"] if p["status"]["phase"] == "Running"])
        started = time.monotonic()
        assert daemon.stop() == 0
        thread.join(timeout=5)
        assert time.monotonic() - started < 3
        assert answer[-1] == {"type": "end", "exitCode": 6}
        assert [line["error"]["reason"] for line in answer if line["type"] == "error"] == ["DaemonUnavailable"]
        daemon.start()
        assert daemon.pod("waits")["status"]["phase"] == "Running"


def test_a_large_log_is_read_fast_and_whole(daemon: Daemon) -> None:
    size = 50_000_000
    daemon.run(
        pod_manifest("large", f"yes 0123456789012345678901234567890123456789012345678 | head -c {size}"), wait="done"
    )
    started = time.monotonic()
    content = daemon.log_of("large")
    elapsed = time.monotonic() - started
    assert len(content) == size
    assert content == b"0123456789012345678901234567890123456789012345678\n" * (size // 50)
    assert elapsed < 20
    started = time.monotonic()
    assert len(daemon.log_of("large", tail=10)) == 500
    assert time.monotonic() - started < 0.5
    daemon.delete("large")
