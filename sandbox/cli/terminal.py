"""The terminal of the person at the keyboard while a process in a container has it."""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

DETACH_KEYS = b"\x10\x11"  # Ctrl-P Ctrl-Q, as docker and podman have it


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Raw mode for the block. Restored at its end, also when a signal ends this process."""
    before = termios.tcgetattr(fd)

    def end(number: int, _frame: FrameType | None) -> None:
        raise click.exceptions.Exit(128 + number)

    handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def resizes() -> Iterator[int]:
    """A descriptor that becomes readable when the terminal has changed its size; owned by the block."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # The wake-up descriptor, not a handler that does work: a signal may come anywhere (signal-safety(7)).
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: None)
    wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    try:
        yield read_end
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGWINCH, before)
        os.close(read_end)
        os.close(write_end)


def size(fd: int) -> tuple[int, int]:
    """(rows, columns); 24 by 80 where the terminal does not say."""
    try:
        found = os.get_terminal_size(fd)
    except OSError:
        return 24, 80
    return found.lines or 24, found.columns or 80


class DetachKeys:
    """Takes the keys that leave the session out of the input. Their beginning is held back until the next key tells."""

    def __init__(self, keys: bytes = DETACH_KEYS) -> None:
        self._keys = keys
        self._held = 0

    def __call__(self, data: bytes) -> bytes | None:
        """What of `data` is for the process; None when the keys are complete."""
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    return None
                continue
            passed += self._keys[: self._held]
            self._held = 1 if byte == self._keys[0] else 0
            if not self._held:
                passed.append(byte)
        return bytes(passed)
