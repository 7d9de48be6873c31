"""Where the time of one request went: named spans on the monotonic clock, in nanoseconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """One step. `start_ns` and `end_ns` are CLOCK_MONOTONIC; `subject` is the container or empty for the pod."""

    name: str
    start_ns: int
    end_ns: int
    subject: str = ""


@dataclass
class Timeline:
    """Collects spans; cheap enough to be always on."""

    spans: list[Span] = field(default_factory=list)

    @contextmanager
    def span(self, name: str, subject: str = "") -> Iterator[None]:
        """Records the time of the `with` block, also when it raises."""
        start = time.monotonic_ns()
        try:
            yield
        finally:
            self.spans.append(Span(name, start, time.monotonic_ns(), subject))

    def add(self, name: str, start_ns: int, end_ns: int, subject: str = "") -> None:
        """Records a span that was measured elsewhere (the monitor reports marks)."""
        self.spans.append(Span(name, start_ns, end_ns, subject))

    def to_json(self) -> list[dict[str, object]]:
        """Spans in the order of their start, offsets relative to the first."""
        ordered = sorted(self.spans, key=lambda s: s.start_ns)
        origin = ordered[0].start_ns if ordered else 0
        return [
            {
                "name": s.name,
                "subject": s.subject,
                "startMicroseconds": (s.start_ns - origin) // 1000,
                "durationMicroseconds": (s.end_ns - s.start_ns) // 1000,
            }
            for s in ordered
        ]
