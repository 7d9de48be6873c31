"""The back-off of restarts is the kubelet's."""

from __future__ import annotations

import pytest

from sandbox.pods import record
from sandbox.pods.record import Backoff

BASE, MOST, RESET = 10.0, 300.0, 600.0
S = 10**9


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000 * S
        monkeypatch.setattr(record, "now_ns", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def _crash(backoff: Backoff, clock: Clock, ran_s: float) -> float:
    """The container ran, ended, and starts again when it may; returns how long it waited."""
    clock.now += int(ran_s * S)
    finished = clock.now
    clock.now = backoff.ready_ns(finished, RESET)
    waited = (clock.now - finished) / S
    backoff.advance(finished, BASE, MOST, RESET)
    return waited


def test_immediately_then_doubling_to_five_minutes(clock: Clock) -> None:
    backoff = Backoff()
    waits = [_crash(backoff, clock, 1) for _ in range(9)]
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_ten_minutes_of_running_start_over(clock: Clock) -> None:
    backoff = Backoff()
    for _ in range(5):
        _crash(backoff, clock, 1)
    assert _crash(backoff, clock, 601) == 0
    assert _crash(backoff, clock, 1) == 10


def test_nearly_ten_minutes_do_not(clock: Clock) -> None:
    backoff = Backoff()
    for _ in range(3):
        _crash(backoff, clock, 1)
    assert _crash(backoff, clock, 599) == 40
