"""Changes of cgroup v2 event files, by inotify: every one of cgroup.events and memory.events is a modification."""

from __future__ import annotations

import os

from sandbox.cgroups.v2.controllers import Memory
from sandbox.errors import NotFound
from sandbox.linux import inotify


class FileWatch:
    """Readable when the file changes. Owns its descriptor until `close`. Raises FileNotFoundError."""

    def __init__(self, path: str) -> None:
        self._fd = inotify.inotify_init()
        try:
            inotify.inotify_add_watch(self._fd, path, inotify.IN_MODIFY)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._fd

    def drain(self) -> None:
        """Reads what is there; never blocks."""
        try:
            os.read(self._fd, 65536)
        except BlockingIOError:
            return

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class MemoryOomWatch:
    """memory.events: counts kills; changes of its other counters wake the reader and count 0."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._watch = FileWatch(memory.path("memory.events"))
        self._seen = memory.oom_kills()

    def fileno(self) -> int:
        return self._watch.fileno()

    def read(self) -> int:
        self._watch.drain()
        try:
            now = self._memory.oom_kills()
        except NotFound:
            return 0
        new, self._seen = now - self._seen, now
        return new

    def close(self) -> None:
        self._watch.close()
