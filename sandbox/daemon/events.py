"""The event log: what happened to which object, in the store, with wake-ups for those who follow.

Followers hold no queue: each reads on from the sequence number it has seen, so that a slow one costs nothing and
misses nothing (but what the bounded log has dropped).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from sandbox.store.database import Database

NORMAL = "Normal"
WARNING = "Warning"
MAX_MESSAGE_CHARACTERS = 1024
"""As Kubernetes bounds an event's message."""


def timestamp(time_ns: int) -> str:
    """RFC 3339 in UTC with microseconds, as Kubernetes' MicroTime."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{nanoseconds // 1000:06d}Z"


class EventLog:
    """Append, read, follow. Used from the event loop only."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False
        self._last = database.last_event()

    def record(
        self,
        reason: str,
        message: str,
        *,
        type: str = NORMAL,
        kind: str = "Pod",
        namespace: str = "",
        name: str = "",
        container: str = "",
    ) -> int:
        """Appends one event and wakes the followers; returns its sequence number."""
        body = {
            "time": timestamp(time.time_ns()),
            "type": type,
            "reason": reason,
            "message": message[:MAX_MESSAGE_CHARACTERS],
            "object": {"kind": kind, "namespace": namespace, "name": name, "container": container},
        }
        sequence = self._last = self._database.add_event(body)
        self.wake()
        return sequence

    def last_sequence(self) -> int:
        """Of the latest event; 0 when there was none yet."""
        return self._last

    def read(self, after: int = 0, *, namespace: str = "", name: str = "") -> list[dict[str, Any]]:
        """Events later than `after`, oldest first; only those of one object where `name` is given."""
        return [
            {"sequence": sequence, **body}
            for sequence, body in self._database.events(after)
            if not name or (body["object"]["name"] == name and body["object"]["namespace"] == namespace)
        ]

    async def follow(self, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Events later than `after` as they come, until `close`."""
        while True:
            batch = self.read(after)
            for event in batch:
                after = event["sequence"]
                yield event
            if self._closed:
                return
            if not batch:  # else more may have come while the last ones were being written
                await self.changed()

    async def changed(self) -> None:
        """Returns at the next event or at `close`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            if not self._closed:
                await waiter
        finally:
            self._waiters.discard(waiter)

    def wake(self) -> None:
        """Wakes everyone who waits for a change."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Ends every follower."""
        self._closed = True
        self.wake()

    @property
    def closed(self) -> bool:
        return self._closed
