"""Who a process is: a pid alone is reused, a pid with its start time and boot is not (proc(5))."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sandbox.linux.constants import CLONE_NAMES


@dataclass(frozen=True)
class ProcessStat:
    """Some fields of /proc/PID/stat. `start_time` is in clock ticks since boot (field 22)."""

    pid: int
    comm: str
    state: str
    ppid: int
    start_time: int


def read_stat(pid: int) -> ProcessStat:
    """Raises ProcessLookupError when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(3, "no such process", str(pid)) from None
    # comm may hold spaces and parentheses: the last one closes it.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return ProcessStat(pid, head.partition("(")[2], fields[0], int(fields[1]), int(fields[19]))


@lru_cache(maxsize=1)
def boot_id() -> str:
    """The random id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class ProcessIdentity:
    """One process for all time."""

    pid: int
    start_time: int
    boot_id: str

    @classmethod
    def current(cls, pid: int) -> ProcessIdentity:
        """The process that has `pid` now. Raises ProcessLookupError."""
        return cls(pid, read_stat(pid).start_time, boot_id())

    def alive(self) -> bool:
        """True while this very process runs; a zombie does not."""
        if self.boot_id != boot_id():
            return False
        try:
            stat = read_stat(self.pid)
        except ProcessLookupError:
            return False
        return stat.start_time == self.start_time and stat.state not in "ZX"

    def pidfd(self) -> int:
        """A pidfd of this very process, owned by the caller. Raises ProcessLookupError when it is gone."""
        fd = pidfd_open(self.pid)
        # The pid could have been reused before pidfd_open, not after it: check with the descriptor in hand.
        if not self.alive():
            os.close(fd)
            raise ProcessLookupError(3, "no such process", str(self.pid))
        return fd


def pidfd_open(pid: int) -> int:
    """pidfd_open(2): a descriptor (close-on-exec) that the caller owns. Raises ProcessLookupError."""
    return os.pidfd_open(pid)


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """pidfd_send_signal(2). Raises ProcessLookupError when the process is gone."""
    signal.pidfd_send_signal(pidfd, signum)


def namespaces_of(pid: int | str = "self") -> dict[str, int]:
    """Namespace name (as /proc/PID/ns has it) → inode number. Raises ProcessLookupError."""
    found: dict[str, int] = {}
    for name in CLONE_NAMES:
        try:
            found[name] = Path(f"/proc/{pid}/ns/{name}").stat().st_ino
        except (FileNotFoundError, ProcessLookupError):
            continue
    if not found:
        raise ProcessLookupError(3, "no such process", str(pid))
    return found
