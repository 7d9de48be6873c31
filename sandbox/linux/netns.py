"""Work inside another network namespace, from a thread that ends there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from sandbox.linux.constants import CLONE_NEWNET
from sandbox.linux.libc import libc, raise_errno

T = TypeVar("T")


def setns_network(fd: int) -> None:
    """setns(2) of the calling thread into the network namespace open at `fd`. Raises OSError."""
    if libc.setns(fd, CLONE_NEWNET) < 0:
        raise_errno(f"file descriptor {fd}")


def unshare_network() -> None:
    """unshare(2) of the calling thread into a new, empty network namespace. Raises OSError."""
    if libc.unshare(CLONE_NEWNET) < 0:
        raise_errno("network namespace")


def in_thread(function: Callable[[], T]) -> T:
    """Runs `function` in a thread of its own and gives back what it returned or raised.

    A thread that changed its namespace is never put back: it ends. What it opened (a socket) stays in the namespace.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def in_netns(path: str, function: Callable[[], T]) -> T:
    """Runs `function` inside the network namespace at `path`. Raises OSError (ENOENT when it is gone)."""

    def body() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns_network(fd)
        finally:
            os.close(fd)
        return function()

    return in_thread(body)
