"""One line on the terminal that says what is being done, and is gone when it is done."""

from __future__ import annotations

import sys

from sandbox.cli.style import clean, is_terminal, style, width

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from typing import TextIO


class StatusLine:
    """Shows nothing where `stream` is not a terminal. A context manager: the line is erased at its end.

    Not rich: loading it takes longer than the pods whose progress it would show.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._visible = is_terminal(self._stream)
        self._shown = False

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        if not self._visible:
            return
        columns = width(self._stream) or 80
        text = clean(text)[: max(columns - 2, 8)]
        self._stream.write("\r\x1b[K" + style(text + "…", "dim", stream=self._stream))
        self._stream.flush()
        self._shown = True

    def clear(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False
