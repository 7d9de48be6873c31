"""Waiting for changes in directories: one inotify descriptor for all who wait in this daemon."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from sandbox.linux import inotify

MASK = (
    inotify.IN_MODIFY
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_DELETE_SELF
    | inotify.IN_ONLYDIR
)
READ_BYTES = 64 << 10


class Watch:
    """One who waits for changes in one directory. Changes between two waits are remembered."""

    def __init__(self, watcher: DirectoryWatcher, descriptor: int) -> None:
        self._watcher = watcher
        self._descriptor = descriptor
        self._changed = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """True when something changed since the last wait (or since the watch was made); False after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def wake(self) -> None:
        self._changed.set()

    def close(self) -> None:
        """Idempotent."""
        self._watcher.remove(self._descriptor, self)


class DirectoryWatcher:
    """Owns the inotify descriptor; made at the first watch. Used from the event loop only."""

    def __init__(self) -> None:
        self._fd = -1
        self._watches: dict[int, set[Watch]] = {}

    def watch(self, directory: str) -> Watch:
        """Raises OSError (ENOENT; ENOSPC or EMFILE when the user's inotify limits are reached)."""
        if self._fd < 0:
            self._fd = inotify.inotify_init()
            asyncio.get_running_loop().add_reader(self._fd, self._on_readable)
        descriptor = inotify.inotify_add_watch(self._fd, directory, MASK)
        watch = Watch(self, descriptor)
        self._watches.setdefault(descriptor, set()).add(watch)
        return watch

    def remove(self, descriptor: int, watch: Watch) -> None:
        watches = self._watches.get(descriptor)
        if watches is None or watch not in watches:
            return
        watches.remove(watch)
        if not watches:
            del self._watches[descriptor]
            with suppress(OSError):  # the kernel has dropped it with the directory
                inotify.inotify_rm_watch(self._fd, descriptor)

    def wake_all(self) -> None:
        """For what changes without a file that changes: a container ended, the daemon stops."""
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()

    def close(self) -> None:
        """Wakes everyone. Idempotent."""
        self.wake_all()
        self._watches.clear()
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        touched: set[int] = set()
        for descriptor, mask, _name in inotify.decode_events(data):
            if mask & inotify.IN_Q_OVERFLOW:
                touched |= self._watches.keys()
            touched.add(descriptor)
        for descriptor in touched:
            for watch in self._watches.get(descriptor, ()):
                watch.wake()
