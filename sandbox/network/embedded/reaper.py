"""Deletes links, many at a time.

Deleting a veth pair takes the kernel 15 to 30 ms of grace periods, and one request deletes a whole group in the same
time: whoever comes while a deletion runs shares the next one.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future

from sandbox.network.embedded import links
from sandbox.network.netlink import Netlink

_GROUP_BASE = 0x5B000000


class LinkReaper:
    """Safe to share between threads. Its socket belongs to the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._netlink = Netlink()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._pending: list[tuple[str, Future[None]]] = []
        self._group = _GROUP_BASE | (os.getpid() & 0xFFFF) << 8

    def close(self) -> None:
        self._netlink.close()

    def remove(self, name: str) -> None:
        """Returns when the link is gone. Idempotent. Raises NetlinkError."""
        done: Future[None] = Future()
        with self._lock:
            self._pending.append((name, done))
        # The first to get the turn deletes for all who wait; they then find their future done.
        with self._turn:
            if not done.done():
                self._remove_pending()
        done.result()

    def _remove_pending(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, []
        try:
            if len(batch) == 1:
                self._netlink.request(links.delete_link(batch[0][0]))
            else:
                group = self._group
                self._netlink.request(*(links.set_group(name, group) for name, _ in batch))
                self._netlink.request(links.delete_group(group))
        except BaseException as error:
            for _, done in batch:
                done.set_exception(error)
            if not isinstance(error, OSError):
                raise
            return
        for _, done in batch:
            done.set_result(None)
