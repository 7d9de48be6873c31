"""The event log and its followers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.daemon.events import MAX_MESSAGE_CHARACTERS, EventLog, timestamp
from sandbox.store.database import Database


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    database = Database(tmp_path / "state.db")
    yield EventLog(database)
    database.close()


def test_events_are_numbered_and_filtered(log: EventLog) -> None:
    first = log.record("Started", "started container c", namespace="default", name="a", container="c")
    log.record("Failed", "x" * 5000, type="Warning", namespace="default", name="b")
    events = log.read()
    assert [event["reason"] for event in events] == ["Started", "Failed"]
    assert events[0]["object"] == {"kind": "Pod", "namespace": "default", "name": "a", "container": "c"}
    assert len(events[1]["message"]) == MAX_MESSAGE_CHARACTERS
    assert [e["reason"] for e in log.read(first)] == ["Failed"]
    assert [e["reason"] for e in log.read(namespace="default", name="a")] == ["Started"]
    assert log.read(namespace="other", name="a") == []


def test_timestamp() -> None:
    assert timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"


async def test_every_follower_sees_every_event_once_and_in_order(log: EventLog) -> None:
    log.record("0", "before")

    async def follow(delay: float) -> list[str]:
        seen = []
        async for event in log.follow():
            seen.append(event["reason"])
            await asyncio.sleep(delay)
        return seen

    followers = [asyncio.create_task(follow(delay)) for delay in (0.0, 0.001, 0.003)]
    for n in range(1, 50):
        log.record(str(n), "x")
        if n % 7 == 0:
            await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    log.close()
    async with asyncio.timeout(5):
        for follower in followers:
            assert await follower == [str(n) for n in range(50)]


async def test_close_ends_a_follower_that_waits(log: EventLog) -> None:
    async def follow() -> list[str]:
        return [event["reason"] async for event in log.follow()]

    waiting = asyncio.create_task(follow())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    log.close()
    async with asyncio.timeout(2):
        assert await waiting == []


async def test_a_follower_that_is_cancelled_leaves_nothing(log: EventLog) -> None:
    waiting = asyncio.create_task(log.changed())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert log._waiters == set()
