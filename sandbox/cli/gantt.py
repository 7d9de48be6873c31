"""`--timeline`: the spans of a request as bars on one time axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sandbox.cli.style import clean, style

COLOURS = {
    "validate": "magenta",
    "record": "magenta",
    "image": "blue",
    "cgroups": "yellow",
    "namespaces": "cyan",
    "network": "green",
    "mounts": "blue",
    "exec": "red",
}
EIGHTHS = " ▏▎▍▌▋▊▉█"
MIN_BAR = 20


def bars(pod: str, spans: Sequence[Mapping[str, Any]], columns: int | None) -> list[str]:
    """One line a span: name, subject, milliseconds, bar. Spans are those of `Timeline.to_json`."""
    if not spans:
        return [f"{pod}: nothing was measured"]
    end = max(int(s["startMicroseconds"]) + int(s["durationMicroseconds"]) for s in spans)
    labels = [_label(s) for s in spans]
    label_width = min(max(len(label) for label in labels), 36)
    room = max((columns or 100) - label_width - 15, MIN_BAR)
    scale = room / max(end, 1)
    lines = [f"{style(clean(pod), bold=True)}  {end / 1000:.1f} ms"]
    for span, label in zip(spans, labels, strict=True):
        start, length = int(span["startMicroseconds"]), int(span["durationMicroseconds"])
        text = label if len(label) <= label_width else label[: label_width - 1] + "…"
        bar = _bar(start * scale, length * scale)
        colour = COLOURS.get(str(span["name"]), "dim")
        lines.append(f"  {text:<{label_width}} {length / 1000:7.2f} ms {style(bar, colour)}".rstrip())
    return lines


def _label(span: Mapping[str, Any]) -> str:
    subject = span.get("subject")
    return clean(f"{span['name']} {subject}" if subject else str(span["name"]))


def _bar(start: float, length: float) -> str:
    """Blocks from `start` for `length` cells; the end is drawn to an eighth of a cell, and something is always seen."""
    whole, rest = int(length), int((length - int(length)) * 8)
    tail = EIGHTHS[rest] if rest else ""
    return " " * int(start) + ("█" * whole + tail or EIGHTHS[1])
