"""What must not change, what must rise, and what must be new when apps crash and the daemon is killed. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

LINE = re.compile(r"line (\d+)")


@dataclass(frozen=True)
class Log:
    """What a container that counts its lines has written: `first` and `last` number, and how many are missing."""

    first: int
    last: int
    gaps: int

    def __str__(self) -> str:
        if self.last < 0:
            return "empty"
        return f"lines {self.first}-{self.last}" + (f", {self.gaps} missing" if self.gaps else "")


def read_log(text: str) -> Log:
    """Reads `line N` lines; everything that is not the next number counts as a gap. A cut last line is left out."""
    numbers = [int(match[1]) for line in text.split("\n")[:-1] if (match := LINE.fullmatch(line))]
    if not numbers:
        return Log(0, -1, 0)
    gaps = sum(after != before + 1 for before, after in pairwise(numbers))
    return Log(numbers[0], numbers[-1], gaps)


@dataclass(frozen=True)
class Snapshot:
    """Everything that is compared, at one moment."""

    pod_address: str
    netns_inode: int
    pause_pid: int
    monitor_pid: int
    steady_pid: int
    steady_restarts: int
    app_pid: int
    app_restarts: int
    app_last_exit: int | None
    app_answers: bool
    connection: str
    """`open` with our port while it answers, why it does not otherwise."""
    echoed_bytes: int
    log: Log
    daemon_pid: int


@dataclass(frozen=True)
class Row:
    what: str
    before: str
    after_crashes: str
    after_daemon_kill: str
    verdict: str
    ok: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "before": self.before,
            "afterAppCrashes": self.after_crashes,
            "afterDaemonKill": self.after_daemon_kill,
            "verdict": self.verdict,
            "ok": self.ok,
        }


def compare(before: Snapshot, crashed: Snapshot, killed: Snapshot, crashes: int) -> list[Row]:
    """One row for everything that was promised. `crashes` with a daemon; one more came while there was none."""
    three = (before, crashed, killed)

    def row(what: str, show: Callable[[Snapshot], object], good: bool, word: str, bad: str) -> Row:
        cells = [str(show(snapshot)) for snapshot in three]
        return Row(what, cells[0], cells[1], cells[2], word if good else bad, good)

    def same(what: str, show: Callable[[Snapshot], object]) -> Row:
        return row(what, show, _equal([show(s) for s in three]), "same", "CHANGED")

    exits = [s.app_last_exit for s in three]
    restarts = [s.app_restarts for s in three]
    echoed = [s.echoed_bytes for s in three]
    logs = [s.log for s in three]
    return [
        same("pod address", lambda s: s.pod_address),
        same("network namespace (inode)", lambda s: s.netns_inode),
        same("pause process (pid)", lambda s: s.pause_pid),
        same("monitor process (pid)", lambda s: s.monitor_pid),
        same("other container (pid)", lambda s: s.steady_pid),
        same("other container (restarts)", lambda s: s.steady_restarts),
        same("TCP connection into the pod", lambda s: s.connection),
        row("bytes echoed over it", lambda s: s.echoed_bytes, _rising(echoed), "grows", "STALLED"),
        row("other container's log", lambda s: s.log, _continuous(logs), "no line lost", "LINES LOST"),
        row("app (pid)", lambda s: s.app_pid, len({s.app_pid for s in three}) == 3, "new each crash", "NOT RESTARTED"),
        row(
            "app (restarts)",
            lambda s: s.app_restarts,
            restarts == [0, crashes, crashes + 1],
            "counted",
            f"EXPECTED {crashes + 1}",
        ),
        row("app (last exit code)", lambda s: _dash(s.app_last_exit), exits == [None, 137, 137], "known", "LOST"),
        row("app answers", lambda s: "yes" if s.app_answers else "no", all(s.app_answers for s in three), "yes", "NO"),
        row(
            "daemon (pid)",
            lambda s: s.daemon_pid,
            before.daemon_pid == crashed.daemon_pid != killed.daemon_pid,
            "killed, new",
            "NOT KILLED",
        ),
    ]


def _dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _equal(values: Sequence[object]) -> bool:
    return all(value == values[0] for value in values)


def _rising(values: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(values))


def _continuous(logs: Sequence[Log]) -> bool:
    return (
        all(log.gaps == 0 and log.first == logs[0].first and log.last >= 0 for log in logs)
        and _rising([log.last for log in logs])
        and logs[0].first == 0
    )
