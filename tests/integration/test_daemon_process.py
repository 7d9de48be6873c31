"""The daemon as a process: one instance, private socket, signals, garbage on its socket, restart."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_harness import REPOSITORY, Daemon, eventually, running

from sandbox.cli.client import ApiError
from sandbox.daemon.launch import answers, start_daemon
from sandbox.errors import DaemonUnavailable


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as one:
        yield one


def pid_of(daemon: Daemon) -> int:
    assert daemon.process is not None
    return daemon.process.pid


def raw(daemon: Daemon, data: bytes, *, half_close: bool = False) -> bytes:
    """Sends bytes, returns what comes back until the end of the connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(daemon.client.socket_path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while block := connection.recv(65536):
                answer += block
        return answer


def test_files_are_private(daemon: Daemon) -> None:
    for path, mode in (
        (daemon.run_dir, 0o700),
        (daemon.root, 0o700),
        (daemon.run_dir / "api.sock", 0o600),
        (daemon.run_dir / "daemon.pid", 0o600),
        (daemon.root / "state.db", 0o600),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode, path
    assert int((daemon.run_dir / "daemon.pid").read_text()) == pid_of(daemon)


def test_the_process_is_as_it_should_be(daemon: Daemon) -> None:
    proc = Path(f"/proc/{pid_of(daemon)}")
    assert (proc / "comm").read_text().strip() == "sandbox-daemon"
    limits = next(line for line in (proc / "limits").read_text().splitlines() if "open files" in line).split()
    assert limits[3] == limits[4]
    assert "Umask:\t0077" in (proc / "status").read_text()
    assert (proc / "cwd").readlink() == Path("/")
    # A line a record, with the fields that a machine reads.
    assert "message=ready" in daemon.log


def test_inherited_descriptors_are_closed() -> None:
    daemon = Daemon()
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(daemon.command(), pass_fds=(write_end,), cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        os.close(write_end)
        eventually(lambda: answers(daemon.config))
        os.set_blocking(read_end, False)
        assert os.read(read_end, 1) == b""  # end of file: nobody holds the other end
        daemon.process = process
    finally:
        os.close(read_end)
        daemon.destroy()


def test_another_user_is_refused_even_with_an_open_socket(daemon: Daemon) -> None:
    path = daemon.client.socket_path
    program = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        f"s.connect({path!r})\n"
        "s.sendall(b'GET /v1/version HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "print(s.makefile('rb').read().decode())\n"
    )
    refused = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")
    assert "PermissionError" in refused.stderr
    try:
        daemon.run_dir.chmod(0o755)
        Path(path).chmod(0o666)
        forbidden = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")
    finally:
        Path(path).chmod(0o600)
        daemon.run_dir.chmod(0o700)
    assert forbidden.stdout.startswith("HTTP/1.1 403"), forbidden
    assert '"Forbidden"' in forbidden.stdout


def test_version(daemon: Daemon) -> None:
    version = daemon.get("version")
    assert version["pid"] == pid_of(daemon)
    assert (version["root"], version["runDir"]) == (str(daemon.root), str(daemon.run_dir))
    assert version["cgroups"] in ("v1", "v2", "hybrid")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "part"),
    [
        ("GET", "/v1/nothing", None, 404, "no such path"),
        ("GET", "/", None, 404, "no such path"),
        ("PUT", "/v1/version", None, 405, "method not allowed"),
        ("POST", "/v1/apply", {}, 400, "files must be a list"),
        ("POST", "/v1/apply", {"files": []}, 400, "files must be a list"),
        ("POST", "/v1/apply", {"files": [{"name": 1, "content": "x"}]}, 400, "name and content"),
        ("POST", "/v1/apply", {"files": [{"content": "x"}], "wait": "never"}, 400, "'never'"),
        ("POST", "/v1/apply", {"files": [{"content": "x"}], "timeoutSeconds": "soon"}, 400, "'soon'"),
        ("POST", "/v1/apply", {"files": [{"content": "x"}], "timeoutSeconds": -1}, 400, "-1"),
        ("POST", "/v1/apply", {"files": [{"content": "x"}], "wiat": 1}, 400, "unknown field 'wiat'"),
        ("POST", "/v1/apply", {"files": [{"content": "kind: Pod"}]}, 400, "apiVersion"),
        ("POST", "/v1/apply", [1], 400, "not a JSON object"),
        ("GET", "/v1/namespaces/default/pods/absent", None, 404, "absent"),
        ("GET", "/v1/namespaces/default/pods/absent/log", None, 404, "absent"),
        ("GET", "/v1/namespaces/default/pods/absent/exec?command=x", None, 404, "absent"),
        ("GET", "/v1/namespaces/default/pods/absent/exec", None, 400, "command is missing"),
        ("POST", "/v1/namespaces/default/pods/absent/stop", {}, 404, "absent"),
        ("DELETE", "/v1/namespaces/default/pods/absent", None, 404, "absent"),
        ("GET", "/v1/pods?all=perhaps", None, 400, "'perhaps'"),
        ("GET", "/v1/events?after=-1", None, 400, "'-1'"),
        ("DELETE", "/v1/images", None, 400, "reference is missing"),
        ("DELETE", "/v1/images?reference=absent", None, 404, "absent"),
        ("POST", "/v1/images/load", None, 400, "empty"),
    ],
)
def test_wrong_requests_get_a_sentence(
    daemon: Daemon, method: str, path: str, body: object, status: int, part: str
) -> None:
    with pytest.raises(ApiError) as caught, daemon.client.request(method, path, body):
        pass
    error = caught.value.errors[0]
    assert part in error["message"]
    assert error["exitCode"] == {404: 3}.get(status, 2)
    answer = raw(
        daemon, f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 4096,
        os.urandom(4096),
        b"GET\r\n\r\n",
        b"GET /v1/version HTTP/9.9\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/apply HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/apply HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{not json",
        b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\xff\xfe",
        b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\nConnection: close\r\n\r\n" + b"[" * 30000,
        b"GET /v1/version HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_garbage_is_refused_and_the_daemon_lives(daemon: Daemon, data: bytes) -> None:
    answer = raw(daemon, data, half_close=True)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 200")), answer[:200]
    assert b"HTTP/1.1 500" not in answer and b"Traceback" not in answer
    assert daemon.get("version")["pid"] == pid_of(daemon)


def test_half_open_and_half_closed_connections_hold_up_nobody(daemon: Daemon) -> None:
    idle = []
    for data in (b"", b"GET /v1/ver", b"POST /v1/apply HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{"):
        for _ in range(20):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(daemon.client.socket_path)
            connection.sendall(data)
            idle.append(connection)
    raw(daemon, b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n", half_close=True)  # who closes is not answered
    started = time.monotonic()
    daemon.get("version")
    assert time.monotonic() - started < 1
    for connection in idle:
        connection.close()


def test_a_body_that_is_too_large_is_refused(daemon: Daemon) -> None:
    content = "#" * (daemon.config.request_max_bytes + 1)
    with (
        pytest.raises(ApiError) as caught,
        daemon.client.request("POST", "/v1/apply", {"files": [{"content": content}]}),
    ):
        pass
    assert "larger than" in caught.value.errors[0]["message"]
    assert daemon.get("version")


def test_an_image_that_is_none_is_refused(daemon: Daemon) -> None:
    before = daemon.get("images")
    for body in (b"not a tar", b"\0" * 10240):
        with pytest.raises(ApiError), daemon.client.request("POST", "/v1/images/load", content=[body]):
            pass
    assert daemon.get("images") == before


def test_the_default_image_is_there(daemon: Daemon) -> None:
    (image,) = daemon.get("images")["items"]
    assert image["names"] == ["localhost/busybox:latest"]
    assert all(Path(layer).is_dir() for layer in image["layers"])


def test_a_second_daemon_on_the_same_directories_is_refused(daemon: Daemon) -> None:
    for changes in ({}, {"run_dir": Path(f"{daemon.run_dir}-2")}):
        other = Daemon(**{**daemon.settings, **changes})
        done = subprocess.run(other.command(), capture_output=True, text=True, timeout=20, cwd=REPOSITORY)
        assert done.returncode == 4, done
        assert f"pid {pid_of(daemon)} is running already" in done.stderr
        assert "Traceback" not in done.stderr
        other.root.rmdir()
    Path(f"{daemon.run_dir}-2").joinpath("daemon.pid").unlink()
    Path(f"{daemon.run_dir}-2").rmdir()
    assert daemon.get("version")["pid"] == pid_of(daemon)


def test_events_are_followed_until_the_daemon_stops() -> None:
    with running() as daemon:
        answer = []

        def follow() -> None:
            with daemon.client.request("GET", "/v1/events?follow=1", stream=True) as response:
                answer.extend(response.events())

        thread = threading.Thread(target=follow)
        thread.start()
        time.sleep(0.1)
        assert thread.is_alive()
        started = time.monotonic()
        assert daemon.stop() == 0
        thread.join(timeout=5)
        assert not thread.is_alive()
        assert time.monotonic() - started < 3
        assert not (daemon.run_dir / "api.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly_and_it_starts_again(number: int) -> None:
    with running() as daemon:
        assert daemon.process is not None
        daemon.process.send_signal(number)
        assert daemon.process.wait(timeout=10) == 0
        assert "Traceback" not in daemon.log
        assert (daemon.run_dir / "daemon.pid").read_text() == ""
        daemon.start()
        assert daemon.get("version")


def test_shutdown_by_request_and_start_after_a_kill() -> None:
    with running() as daemon:
        assert daemon.process is not None
        assert daemon.client.call("POST", "/v1/shutdown") == {"pid": daemon.process.pid}
        assert daemon.process.wait(timeout=10) == 0
        daemon.start()
        daemon.kill()
        assert (daemon.run_dir / "api.sock").exists()  # nobody could remove it
        daemon.start()
        assert daemon.get("version")["pid"] == daemon.process.pid


def test_sighup_changes_the_level_of_the_log(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[log]\nlevel = "error"\n')
    daemon = Daemon()
    flags = [flag for flag in daemon.command()[3:] if not flag.startswith("--log-level")]
    with (daemon.root / "test.log").open("wb") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.daemon", f"--config={file}", *flags], stderr=log, cwd=REPOSITORY
        )
    try:
        eventually(lambda: answers(daemon.config))
        daemon.get("version")
        assert daemon.log == ""
        file.write_text('[log]\nlevel = "info"\nformat = "json"\n')
        flags_format = [flag for flag in flags if flag.startswith("--log-format")]
        assert flags_format  # a flag wins over the file, also when it is read again
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: "configuration read again" in daemon.log)
        file.write_text('[log]\nlevel = "loud"\n')
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: "the configuration stays as it was" in daemon.log)
        assert daemon.get("version")
    finally:
        daemon.destroy()


def test_the_cli_starts_one_and_the_loser_of_a_race_joins_the_winner() -> None:
    daemon = Daemon()
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(start_daemon(daemon.config))) for _ in range(3)]
    try:
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert time.monotonic() - started < 15
        winner = daemon.get("version")["pid"]
        assert sorted(results) == [0, 0, winner]
        assert os.getsid(winner) == winner
        assert "message=ready" in (daemon.root / "daemon.log").read_text()
        daemon.client.call("POST", "/v1/shutdown")
        eventually(lambda: not answers(daemon.config))
    finally:
        eventually(lambda: (daemon.run_dir / "daemon.pid").read_text() == "")
        daemon.destroy()


def test_a_daemon_that_cannot_start_says_why() -> None:
    daemon = Daemon(pause_path="/nowhere/pause")
    try:
        with pytest.raises(DaemonUnavailable, match="there is no pause program at /nowhere/pause"):
            start_daemon(daemon.config)
    finally:
        del daemon.settings["pause_path"]
        daemon.destroy()


def test_readiness_is_told_to_the_service_manager_and_its_socket_is_used() -> None:
    daemon = Daemon()
    daemon.run_dir.mkdir(mode=0o700)
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind("\0" + f"sbd-notify-{daemon.tag}")
    told.settimeout(20)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(daemon.run_dir / "api.sock"))
    listener.listen()
    # As systemd does: the socket is descriptor 3, LISTEN_PID is the daemon's own pid.
    program = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    with (daemon.root / "test.log").open("wb") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", program, str(listener.fileno()), *daemon.command()[1:]],
            env={**os.environ, "LISTEN_FDS": "1", "NOTIFY_SOCKET": f"@sbd-notify-{daemon.tag}"},
            pass_fds=(listener.fileno(),),
            stderr=log,
            cwd=REPOSITORY,
        )
    listener.close()
    try:
        message = told.recv(4096).decode()
        assert message.splitlines() == ["READY=1", f"MAINPID={daemon.process.pid}"]
        inode = (daemon.run_dir / "api.sock").stat().st_ino
        assert daemon.get("version")["pid"] == daemon.process.pid
        assert daemon.stop() == 0
        assert told.recv(4096) == b"STOPPING=1"
        assert (daemon.run_dir / "api.sock").stat().st_ino == inode  # systemd's: it stays
        (daemon.run_dir / "api.sock").unlink()
    finally:
        told.close()
        daemon.destroy()


def test_requests_that_come_while_it_starts_wait_for_it() -> None:
    daemon = Daemon()
    with (daemon.root / "test.log").open("wb") as log:
        daemon.process = subprocess.Popen(daemon.command(), stderr=log, cwd=REPOSITORY)
    try:
        eventually(lambda: answers(daemon.config))
        assert daemon.get("version")["pid"] == daemon.process.pid
    finally:
        daemon.destroy()


def test_a_configuration_that_is_wrong_is_refused_with_exit_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.daemon", "--subnet=nonsense"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 2
    assert "network.subnet 'nonsense' (flag --subnet) is not valid" in done.stderr
