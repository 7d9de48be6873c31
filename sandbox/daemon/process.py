"""The daemon as a Unix process: one instance, descriptors, limits, listening sockets, systemd's protocols."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import resource
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sandbox.errors import Conflict, KernelError, SandboxError, StateError

logger = logging.getLogger("sandbox.daemon")

LISTEN_FDS_START = 3
"""sd_listen_fds(3): the first descriptor that systemd passes."""


def prepare(keep: Iterable[int]) -> None:
    """umask, standard descriptors, no inherited descriptors but `keep`, limits, the process' name.

    Limits that the host does not let us raise stay as they are.
    """
    from sandbox.linux.daemon_process import settle  # an extension module that the CLI need not load

    os.umask(0o077)
    _open_standard_descriptors()
    close_inherited(keep)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Without CAP_SYS_RESOURCE only raising is allowed: the daemon then dies no later than any other process.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-999")
    settle("sandbox-daemon")
    os.chdir("/")


def _open_standard_descriptors() -> None:
    """A closed 0, 1 or 2 would be given to the next file that is opened, and be written to as if it were a terminal."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.close(null)


def close_inherited(keep: Iterable[int]) -> None:
    """Closes every descriptor above 2 that is not in `keep`; those in `keep` become close-on-exec."""
    kept = set(keep)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, not paths
        fd = int(name)
        if fd in kept:
            os.set_inheritable(fd, False)
        elif fd > 2:
            with suppress(OSError):
                os.close(fd)


def make_private_directory(path: Path, name: str) -> None:
    """Makes `path` (0700, with parents). Raises StateError when it is not a directory of ours alone."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
        if status.st_uid != os.geteuid():
            raise StateError(
                f"{name} {str(path)!r} belongs to user {status.st_uid}",
                operation="prepare directories",
                subject=str(path),
                hint="choose a directory of the user that the daemon runs as",
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise StateError(
            f"{name} {str(path)!r} cannot be made",
            operation="prepare directories",
            subject=str(path),
            errno=error.errno or 0,
        ) from error


class InstanceLock:
    """flock(2) on a file with the holder's pid in it, held until `release` or the process' death."""

    def __init__(self, path: Path, what: str) -> None:
        """Raises Conflict when another daemon holds it."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise Conflict(
                f"a daemon{f' with pid {holder}' if holder else ''} is running already on {what} {str(path.parent)!r}",
                operation="lock",
                subject=str(path),
                hint="use it, stop it with `sandbox daemon stop`, or choose another --root and --run-dir",
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Empties the file and lets go. The file stays: removing it would race with the next holder."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def read_pid(path: Path) -> int | None:
    """The pid of the daemon that holds the lock file `path`, None when nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)
    return None


def inherited_sockets() -> list[int]:
    """Descriptors passed by systemd socket activation (sd_listen_fds(3)), none when they are for another process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return list(range(LISTEN_FDS_START, LISTEN_FDS_START + count))


def listen(path: Path, inherited: list[int]) -> socket.socket:
    """The API's listening socket: the one systemd passed, else a new one at `path` with mode 0600.

    The caller holds the instance lock, so that a socket file found at `path` belongs to nobody.
    """
    for fd in inherited:
        candidate = socket.socket(fileno=fd)
        if candidate.family == socket.AF_UNIX and candidate.type == socket.SOCK_STREAM:
            candidate.setblocking(False)
            return candidate
        candidate.close()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        server.bind(str(path))  # umask 077: made with mode 0700, never open to others
        path.chmod(0o600)
        server.listen(1024)
    except OSError as error:
        server.close()
        raise KernelError(
            f"the API socket {str(path)!r} cannot be made",
            operation="listen",
            subject=str(path),
            errno=error.errno or 0,
        ) from error
    return server


def notify(message: str) -> None:
    """Tells systemd (sd_notify(3)); does nothing where no one asked."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            logger.warning("the service manager cannot be told %s: %s", message, error)


class Readiness:
    """The write end of the starter's pipe (--ready-fd): one JSON line, then end of file."""

    def __init__(self, fd: int | None) -> None:
        """Owns `fd` from now on."""
        self._fd = fd

    @property
    def fds(self) -> list[int]:
        return [] if self._fd is None else [self._fd]

    def ready(self) -> None:
        self._tell({"ready": True, "pid": os.getpid()})
        notify(f"READY=1\nMAINPID={os.getpid()}")

    def failed(self, error: SandboxError) -> None:
        self._tell({"ready": False, "error": error.to_json()})
        notify(f"STATUS={error}\nERRNO={error.errno}")

    def _tell(self, body: object) -> None:
        if self._fd is None:
            return
        with suppress(OSError):  # the starter has gone: it no longer waits for the answer
            os.write(self._fd, json.dumps(body).encode() + b"\n")
        os.close(self._fd)
        self._fd = None
