"""Starting the monitor: a sealed copy of a program, executed by posix_spawn without Python between fork and exec."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

MFD_EXEC = 0x10
"""linux/memfd.h, since Linux 6.3."""
LISTEN_FD, STATE_FD, SOCKET_DIR_FD = 3, 4, 5
"""What the monitor starts with: pause/monitor.c."""
_FIRST_FREE_FD = 16
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def memfd(name: str, content: bytes, *, executable: bool = False) -> int:
    """A file in memory (memfd_create(2)) that nobody can change any more; close-on-exec, owned by the caller."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | (MFD_EXEC if executable else 0))
    except OSError:
        fd = os.memfd_create(name, flags)  # before Linux 6.3 every memfd is executable
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def sealed_program(path: Path) -> int:
    """A sealed copy of the program at `path`, owned by the caller. A container that gets hold of the running program
    through /proc/PID/exe cannot rewrite it (CVE-2019-5736)."""
    fd = memfd(path.name, path.read_bytes(), executable=True)
    return _moved_up(fd)


def spawn_monitor(program_fd: int, pod_id: str, listen_fd: int, state_fd: int, socket_dir_fd: int) -> int:
    """Starts `sandbox-monitor <pod_id>` in a session of its own and returns its pid; the caller reaps it.

    The descriptors are duplicated; the monitor closes whatever else it inherits. posix_spawn(3) shares the caller's
    memory until exec, so this costs the same in a large daemon as in a small one.
    """
    owned: list[int] = []
    try:
        # Above the targets, so that no dup2 overwrites a source.
        for fd in (listen_fd, state_fd, socket_dir_fd):
            owned.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD))
        targets = (LISTEN_FD, STATE_FD, SOCKET_DIR_FD)
        return os.posix_spawn(
            f"/proc/self/fd/{program_fd}",
            ["sandbox-monitor", pod_id],
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(owned, targets, strict=True)],
            setsid=True,
            setsigmask=[],
            setsigdef=[s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)],
        )
    finally:
        for fd in owned:
            os.close(fd)


def _moved_up(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD)
    finally:
        os.close(fd)
