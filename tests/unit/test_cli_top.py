"""`sandbox top`: its table, and a whole session in a terminal of tmux."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_fake import FakeDaemon, pod

from sandbox.cli.commands.top import Screen
from sandbox.cli.sparkline import BLOCKS, sparkline
from sandbox.cli.usage import Rows


@pytest.mark.parametrize(
    ("values", "columns", "top", "expected"),
    [
        ([], 3, 0, "   "),
        ([0, 0], 3, 0, " ▁▁"),
        ([1, 2, 4, 8], 3, 0, "▃▅█"),
        ([1, 2], 2, 8, "▂▃"),
        ([9], 1, 8, "█"),
        ([-1, 1], 2, 0, "▁█"),
        ([1], 0, 0, ""),
    ],
)
def test_sparkline(values: list[float], columns: int, top: float, expected: str) -> None:
    assert sparkline(values, columns, top) == expected


def usage(name: str, cpu_s: float, at_s: float, memory: int = 1 << 20, containers: int = 1) -> dict[str, Any]:
    numbers = {"cpuNanoseconds": int(cpu_s * 1e9), "timeNanoseconds": int(at_s * 1e9), "memoryWorkingSetBytes": memory}
    below = [{"name": f"c{n}", **numbers} for n in range(containers)]
    return {"namespace": "default", "name": name, **numbers, "containers": below}


def test_rows_are_rates_between_two_samples() -> None:
    rows = Rows()
    assert [row.cpu_milli for row in rows.take([usage("web", 1, 10)])] == [None, None]
    assert [row.cpu_milli for row in rows.take([usage("web", 2, 14)])] == [250, 250]
    assert rows.take([usage("web", 0, 15)])[0].cpu_milli == 0, "a counter that began anew is no negative rate"
    assert rows.take([usage("web", 1, 15)])[0].cpu_milli is None, "no time has passed"
    assert rows.take([]) == []
    assert rows.take([usage("web", 9, 16)])[0].cpu_milli is None, "it was gone meanwhile"


def text(screen: Screen, columns: int, lines: int = 40) -> list[str]:
    from rich.console import Console

    console = Console(width=columns, height=lines, force_terminal=False, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.capture() as captured:
        console.print(screen.draw(columns, lines))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_busiest_is_first_and_history_draws() -> None:
    screen = Screen(namespaces=False)
    for second in range(5):
        screen.take([usage("a", 0.1 * second, second, 9 << 20), usage("b", 0.2 * second**2, second, containers=2)])
    lines = text(screen, 180)
    assert [line.split()[0] for line in lines[2:]] == ["b", "b/c0", "b/c1", "a"]
    assert BLOCKS[-1] in lines[2] and BLOCKS[0] not in lines[5].split("MiB")[0].split("100m")[0]
    assert all(len(line) <= 180 for line in lines)
    assert not screen._key(b"m")
    assert text(screen, 180)[2].split()[0] == "a"
    assert screen._key(b"q") and screen._key(b"\x03") and screen._key(b"")


def test_it_fits_small_terminals() -> None:
    screen = Screen(namespaces=True)
    screen.take([usage(f"pod-{n}", 0, 1) for n in range(50)])
    lines = text(screen, 60, 10)
    assert len(lines) <= 10 and all(len(line) <= 60 for line in lines)
    assert "43 rows below do not fit" in " ".join(lines)


def test_names_do_not_steer_the_terminal() -> None:
    screen = Screen(namespaces=False)
    screen.take([usage("[red]x\x1b[2J", 0, 1)])
    assert "[red]x" in text(screen, 200)[2] and "\x1b" not in text(screen, 200)[2]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path)
    yield daemon
    daemon.close()


class Terminal:
    """A tmux session of its own server."""

    def __init__(self, folder: Path, columns: int = 150, lines: int = 24) -> None:
        self._tmux = ["tmux", "-f", "/dev/null", "-S", str(folder / "tmux")]
        self._size = ("-x", str(columns), "-y", str(lines))

    def call(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True).stdout

    def start(self, command: str) -> None:
        environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        environment.pop("NO_COLOR", None)
        words = [*self._tmux, "-u", "new-session", "-d", *self._size, command]
        subprocess.run(words, env=environment, check=True, capture_output=True)

    def shows(self, condition: Callable[[str], Any], timeout_s: float = 15) -> str:
        deadline = time.monotonic() + timeout_s
        while True:
            screen = self.call("capture-pane", "-p")
            if condition(screen):
                return screen
            assert time.monotonic() < deadline, screen
            time.sleep(0.05)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    one = Terminal(tmp_path)
    yield one
    one.close()


@pytest.mark.parametrize("quit_key", ["q", "C-c"])
def test_a_session_in_a_terminal(terminal: Terminal, fake: FakeDaemon, quit_key: str) -> None:
    fake.add(pod("web"))
    fake.add(pod("db"))
    command = f"{sys.executable} -m sandbox.cli --run-dir {fake.run_dir} top --interval 0.1"
    terminal.start(f"sh -c '{command}; echo ended with $?; stty -a | grep -o -w -e -*icanon -e -*echo; sleep 100'")
    screen = terminal.shows(lambda text: "2 pods by cpu" in text and BLOCKS[-1] * 3 in text)
    assert "500m" in screen and "PRESSURE" in screen and "12/0/-" in screen
    terminal.call("send-keys", "n")
    terminal.shows(lambda text: "2 pods by name" in text)
    terminal.call("resize-window", "-x", "80", "-y", "10")
    screen = terminal.shows(lambda text: BLOCKS[-1] not in text and "web" in text)
    assert max(map(len, screen.splitlines())) <= 80
    terminal.call("send-keys", quit_key)
    screen = terminal.shows(lambda text: "ended with" in text and "icanon" in text)
    assert screen.split()[-5:] == ["ended", "with", "0", "icanon", "echo"]
    assert "pods by" not in screen, "the alternate screen is left"


def test_the_end_of_the_daemon_is_told(terminal: Terminal, fake: FakeDaemon) -> None:
    fake.add(pod("web"))
    command = f"{sys.executable} -m sandbox.cli --run-dir {fake.run_dir} top --interval 0.1"
    terminal.start(f"sh -c '{command}; echo ended with $?; sleep 100'")
    terminal.shows(lambda text: "1 pod by cpu" in text)
    fake.close()
    terminal.shows(lambda text: "ended with" in text)
