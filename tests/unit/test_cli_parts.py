"""The parts of the command line that need no daemon: tables, ages, a pod's row, bars, keys, errors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.cli.client import ApiError, Client, quote
from sandbox.cli.context import split_name
from sandbox.cli.gantt import bars
from sandbox.cli.podview import ready_of, restarts_of, status_of
from sandbox.cli.report import error_lines
from sandbox.cli.style import clean, duration, epoch, size, table
from sandbox.cli.terminal import DetachKeys
from sandbox.errors import DaemonUnavailable, InvalidInput


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (3599, "59m"),
        (3 * 3600, "3h"),
        (7 * 3600 + 60, "7h1m"),
        (47 * 3600, "47h"),
        (2 * 86400 + 3600, "2d1h"),
        (100 * 86400, "100d"),
        (3 * 365 * 86400, "3y"),
        (-5, "0s"),
    ],
)
def test_durations_are_kubectls(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_epoch_reads_rfc3339() -> None:
    assert epoch("1970-01-01T00:00:01Z") == 1.0
    assert epoch("2024-02-29T12:00:00.250000Z") == 1709208000.25
    assert epoch("") == 0.0


@pytest.mark.parametrize(("count", "text"), [(0, "0B"), (999, "999B"), (1000, "1.0KiB"), (8 << 20, "8.0MiB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_tables_fit_and_do_not_steer_the_terminal() -> None:
    lines = table(["NAME", "MESSAGE"], [["a", "x" * 200], ["bb", "\x1b[2Jred"]], columns=40)
    assert max(map(len, lines)) == 40
    assert lines[1].endswith("…")
    assert lines[2] == "bb     \\x1b[2Jred"
    assert clean("two\nlines") == "two\\nlines"


def container(
    name: str, state: dict[str, Any], *, ready: bool = False, restarts: int = 0, **more: Any
) -> dict[str, Any]:
    return {"name": name, "state": state, "ready": ready, "restartCount": restarts, "lastState": {}, **more}


RUNS: dict[str, Any] = {"running": {}}
DONE: dict[str, Any] = {"terminated": {"exitCode": 0, "reason": "Completed"}}
CRASHED: dict[str, Any] = {"terminated": {"exitCode": 3}}
KILLED: dict[str, Any] = {"terminated": {"exitCode": 137, "signal": 9}}
BACK_OFF: dict[str, Any] = {"waiting": {"reason": "CrashLoopBackOff"}}
READY = [{"type": "Ready", "status": "True"}]


def pod(
    phase: str,
    containers: list[dict[str, Any]],
    inits: list[dict[str, Any]] | None = None,
    sidecars: tuple[str, ...] = (),
    **status: Any,
) -> dict[str, Any]:
    specs = [{"name": i["name"], **({"restartPolicy": "Always"} if i["name"] in sidecars else {})} for i in inits or []]
    return {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": c["name"]} for c in containers], "initContainers": specs},
        "status": {"phase": phase, "containerStatuses": containers, "initContainerStatuses": inits or [], **status},
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (pod("Running", [container("a", RUNS, ready=True)]), "Running"),
        (pod("Pending", [container("a", {"waiting": {"reason": "ContainerCreating"}})]), "ContainerCreating"),
        (pod("Running", [container("a", BACK_OFF)]), "CrashLoopBackOff"),
        (pod("Failed", [container("a", CRASHED)]), "ExitCode:3"),
        (pod("Failed", [container("a", KILLED)]), "Signal:9"),
        (pod("Succeeded", [container("a", DONE)]), "Completed"),
        (pod("Running", [container("a", DONE), container("b", RUNS, ready=True)], conditions=READY), "Running"),
        (pod("Running", [container("a", DONE), container("b", RUNS, ready=True)]), "NotReady"),
        (pod("Pending", [container("a", {})], [container("i", RUNS), container("j", {})]), "Init:0/2"),
        (pod("Pending", [container("a", {})], [container("i", DONE), container("j", RUNS)]), "Init:1/2"),
        (pod("Pending", [container("a", {})], [container("i", CRASHED)]), "Init:ExitCode:3"),
        (pod("Pending", [container("a", {})], [container("i", BACK_OFF)]), "Init:CrashLoopBackOff"),
        (pod("Running", [container("a", RUNS)], [container("s", RUNS, started=True)], ("s",)), "Running"),
        (pod("Failed", [], reason="DeadlineExceeded"), "DeadlineExceeded"),
    ],
)
def test_status_is_kubectls(value: dict[str, Any], text: str) -> None:
    assert status_of(value) == text


def test_sidecars_count_and_init_containers_do_not() -> None:
    value = pod(
        "Running",
        [container("a", RUNS, ready=True), container("b", RUNS)],
        [container("s", RUNS, ready=True, started=True), container("i", DONE, restarts=2)],
        ("s",),
    )
    assert ready_of(value) == "2/3"
    assert restarts_of(value, 0.0) == "2"


def test_the_last_restart_is_dated() -> None:
    ended = {"terminated": {"finishedAt": "1970-01-01T00:01:00Z"}}
    assert (
        restarts_of(pod("Running", [{**container("a", RUNS, restarts=3), "lastState": ended}]), 100.0) == "3 (40s ago)"
    )


def test_bars_keep_order_proportion_and_width() -> None:
    spans = [
        {"name": "network", "subject": "", "startMicroseconds": 0, "durationMicroseconds": 5000},
        {"name": "exec", "subject": "main", "startMicroseconds": 5000, "durationMicroseconds": 5000},
    ]
    title, first, second = bars("web", spans, 80)
    assert title == "web  10.0 ms"
    assert len(second) <= 80
    assert first.count("█") == second.count("█")
    assert abs(second.index("█") - len(first)) <= 1, "the second starts where the first ends"


@pytest.mark.parametrize("text", ["a/", "/a", "", "a/b/c"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput):
        split_name(text)


def test_names() -> None:
    assert split_name("web") == ("web", "")
    assert split_name("web/a") == split_name("web", "a") == split_name("pod/web/a") == ("web", "a")
    assert quote("a/b ü") == "a%2Fb%20%C3%BC"


@pytest.mark.parametrize(
    ("blocks", "passed", "left"),
    [
        ([b"ab"], b"ab", False),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"\x10", b"b"], b"\x10b", False),
        ([b"\x10\x10\x11"], b"", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_detach_keys(blocks: list[bytes], passed: bytes, left: bool) -> None:
    keys, got = DetachKeys(), b""
    for block in blocks:
        kept = keys(block)
        if kept is None:
            assert left
            return
        got += kept
    assert (got, left) == (passed, False)


def test_errors_show_a_place_in_a_long_line() -> None:
    error = {"message": "m", "file": "f", "line": 1, "column": 301, "exitCode": 2, "hint": "h"}
    lines = error_lines(error, {"f": " " * 300 + "wrong\x1b" + "y" * 300})
    assert lines[0] == "error: m"
    assert len(lines[1]) <= 110
    assert lines[1][lines[2].index("^") :].startswith("wrong?")
    assert lines[3] == "hint: h"
    assert error_lines({**error, "line": 9}, {"f": "x"}) == ["error: m", "hint: h"]


@pytest.fixture
def answer(tmp_path: Any) -> Callable[[bytes], Client]:
    """A client whose server sends these bytes, whatever is asked."""

    def serve(data: bytes) -> Client:
        path = str(tmp_path / "s")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)

        def once() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(data)
            connection.close()
            listener.close()

        threading.Thread(target=once, daemon=True).start()
        return Client(path)

    return serve


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (OK + b"Content-Length: 2\r\n\r\n{}", {}),
        (OK + b"\r\n[1]", [1]),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n[1\r\n1\r\n]\r\n0\r\nTrailer: x\r\n\r\n", [1]),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 4\r\n\r\nnull", None),
    ],
)
def test_bodies(answer: Callable[[bytes], Client], data: bytes, body: Any) -> None:
    assert answer(data).get("/x") == body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0\r\n",
        OK + b"Content-Length: 5\r\n\r\n{}",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
        OK + b"x: y\r\n" * 101 + b"\r\n",
        OK + b"x" * 70000,
    ],
)
def test_answers_that_are_broken_are_said_to_be(answer: Callable[[bytes], Client], data: bytes) -> None:
    with pytest.raises(DaemonUnavailable):
        answer(data).get("/x")


def test_an_error_without_the_apis_format_is_still_an_error(answer: Callable[[bytes], Client]) -> None:
    with pytest.raises(ApiError, match="status 502: <html>") as caught:
        answer(b"HTTP/1.1 502 Bad\r\nContent-Length: 6\r\n\r\n<html>").get("/x")
    assert caught.value.exit_code == 1
