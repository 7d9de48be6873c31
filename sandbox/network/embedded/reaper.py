"""Deletes links, many at a time, without waiting for the kernel to free them.

The request to delete a veth pair returns after some 20 ms: it waits for grace periods (`netdev_run_todo`). The pair is
closed and off the host after 1 ms, and the kernel says so to whoever listens to link events. One request deletes a
whole group in the time of one: whoever comes while the senders are busy shares the next one.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from sandbox.network.embedded import links
from sandbox.network.netlink import Netlink

_RTMGRP_LINK, _RTM_DELLINK = 1, 17  # include/uapi/linux/rtnetlink.h
_AF_UNSPEC = 0
_GROUP_BASE = 0x5B000000
_SENDERS = 4
_LOOK_MS = 50


class LinkReaper:
    """Safe to share between threads, all of one network namespace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[tuple[str, Future[None]]] = []
        self._batches = 0
        self._senders = ThreadPoolExecutor(_SENDERS, "link-reaper")

    def close(self) -> None:
        """Waits for what is under way. Idempotent."""
        self._senders.shutdown()

    def remove(self, name: str) -> None:
        """Returns when the link is off the host. Idempotent. Raises NetlinkError."""
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as events:
            events.bind((0, _RTMGRP_LINK))
            try:
                index = socket.if_nametoindex(name)
            except OSError:
                return
            done: Future[None] = Future()
            with self._lock:
                self._pending.append((name, done))
            self._senders.submit(self._remove_pending)
            while not done.done():
                if _is_gone(events, index):
                    return
        done.result()

    def _remove_pending(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, []
            self._batches += 1
            group = _GROUP_BASE | (os.getpid() & 0xFFF) << 12 | self._batches & 0xFFF
        if not batch:
            return
        try:
            netlink = Netlink()
            try:
                if len(batch) == 1:
                    netlink.request(links.delete_link(batch[0][0]))
                else:
                    netlink.request(*(links.set_group(name, group) for name, _ in batch))
                    netlink.request(links.delete_group(group))
            finally:
                netlink.close()
        except BaseException as error:
            for _, done in batch:
                done.set_exception(error)
            return
        for _, done in batch:
            done.set_result(None)


def _is_gone(events: socket.socket, index: int) -> bool:
    """True when the next events tell that link `index` is unregistered; False after a while, for another look."""
    poll = select.poll()
    poll.register(events, select.POLLIN)
    if not poll.poll(_LOOK_MS):
        return False
    try:
        data = events.recv(1 << 16, socket.MSG_DONTWAIT)
    except OSError:  # ENOBUFS: events were lost, the sender's answer is waited for instead
        return False
    offset = 0
    while offset + 32 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        # A bridge tells with its own family that a port left it: that is not the end of the link.
        family, _, found = struct.unpack_from("=BxHi", data, offset + 16)
        if kind == _RTM_DELLINK and family == _AF_UNSPEC and found == index:
            return True
        if length < 16:
            return False
        offset += (length + 3) & ~3
    return False
