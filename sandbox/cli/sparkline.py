"""A line of numbers as a line of blocks."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], columns: int, top: float = 0.0) -> str:
    """The last `columns` values, right-aligned, the highest block at `top` (0: the highest of them)."""
    if columns <= 0:
        return ""
    shown = list(values)[-columns:]
    highest = top or max(shown, default=0.0)
    blocks = [_block(value, highest) for value in shown]
    return "".join(blocks).rjust(columns)


def _block(value: float, highest: float) -> str:
    if value <= 0 or highest <= 0:
        return BLOCKS[0]
    return BLOCKS[min(len(BLOCKS) - 1, int(value / highest * len(BLOCKS)))]
