"""Colours, tables and how quantities are written. No import that costs anything: rich is for what moves."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO


CODES = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36", "dim": "2"}
STATUS_COLOURS = {
    "Running": "green",
    "Completed": "dim",
    "Succeeded": "dim",
    "Pending": "yellow",
    "ContainerCreating": "yellow",
    "PodInitializing": "yellow",
    "Terminating": "yellow",
}
GAP = "   "


def is_terminal(stream: TextIO | None = None) -> bool:
    """True when `stream` (stdout) is a terminal."""
    try:
        return (stream or sys.stdout).isatty()
    except ValueError:  # closed
        return False


def colours(stream: TextIO | None = None) -> bool:
    """Colour only on a terminal that knows it, and never with NO_COLOR (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, colour: str = "", *, bold: bool = False, stream: TextIO | None = None) -> str:
    """`text` in a colour, where the stream shows colours."""
    codes = [code for code in ("1" if bold else "", CODES.get(colour, "")) if code]
    if not codes or not colours(stream):
        return text
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m"


def width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal; None when `stream` is none, and nothing has to fit."""
    if not is_terminal(stream):
        return None
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size((stream or sys.stdout).fileno()).columns or 80
    except OSError:
        return 80


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, columns: int | None = None, status: int = -1
) -> list[str]:
    """Lines of a table like kubectl's. Cells that are too wide for `columns` are cut in the widest column first.

    `status` is the column whose cells are coloured.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) if cells else len(name) for i, name in enumerate(header)]
    if columns is not None:
        while sum(widths) + len(GAP) * (len(widths) - 1) > columns:
            widest = max(range(len(widths)), key=lambda i: widths[i])
            if widths[widest] <= 8:
                break
            widths[widest] -= 1
    lines = [_line(header, widths)]
    for row in cells:
        line = _line(row, widths, status)
        lines.append(line)
    return lines


def _line(row: Sequence[str], widths: Sequence[int], status: int = -1) -> str:
    parts = []
    for i, (cell, size) in enumerate(zip(row, widths, strict=True)):
        text = cell if len(cell) <= size else cell[: size - 1] + "…"
        padding = " " * (size - len(text))
        if i == status:
            text = style(text, STATUS_COLOURS.get(cell, "red"))
        parts.append(text + padding)
    return GAP.join(parts).rstrip()


def clean(text: str) -> str:
    """Text from a manifest or an image must not steer the terminal: control characters are written as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def duration(seconds: float) -> str:
    """kubectl's way of writing an age: two units at most, the smaller one only while it matters."""
    s = int(max(0.0, seconds))
    if s < 120:
        return f"{s}s"
    minutes, hours, days = s // 60, s // 3600, s // 86400
    if minutes < 10:
        return f"{minutes}m{s % 60}s" if s % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y"


def size(count: float) -> str:
    """Bytes with a binary unit, three digits that matter."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1000:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}TiB"


def epoch(timestamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time in UTC, fractions included; 0.0 for an empty one."""
    if not timestamp:
        return 0.0
    import calendar
    import time

    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds + (float(f"0.{fraction}") if fraction.isdigit() else 0.0)


def age(timestamp: str, now: float) -> str:
    """Time since `timestamp` as `duration` writes it, `<unknown>` for none (reproducible images say 1970)."""
    then = epoch(timestamp)
    return duration(now - then) if then > 0 else "<unknown>"
