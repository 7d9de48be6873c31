"""`sandbox top`: what pods use, live. rich is imported when there is a terminal to draw on, and not before."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

import click

from sandbox.cli.complete import pod_names
from sandbox.cli.context import CliContext, pod_name
from sandbox.cli.options import pass_context, with_namespace
from sandbox.cli.sparkline import sparkline
from sandbox.cli.style import clean, colours, is_terminal
from sandbox.cli.usage import Row, Rows, amount, open_stream, percent, samples, whole
from sandbox.errors import InvalidInput

if TYPE_CHECKING:
    from rich.table import Table

    from sandbox.cli.usage import Usage

HISTORY = 512
"""Samples a pod: more than any terminal has columns for."""
SORTS = {"c": "cpu", "m": "memory", "i": "io", "n": "name"}
FIXED_COLUMNS = 96
"""What the columns of numbers take; sparklines share what is left."""
Key = tuple[str, str, str]


@click.command()
@click.argument("pods", metavar="[POD...]", nargs=-1, shell_complete=pod_names)
@click.option("-A", "--all-namespaces", is_flag=True, help="The pods of every namespace.")
@click.option(
    "--interval", type=click.FloatRange(0.05, 60), default=1.0, show_default=True, metavar="SECONDS", help="Of samples."
)
@with_namespace
@pass_context
def top(context: CliContext, pods: tuple[str, ...], all_namespaces: bool, interval: float) -> int:
    """Show live what pods use, the busiest first. q or Ctrl-C quits; c, m, i and n sort by CPU, memory, I/O and name.

    \b
    Examples:
      sandbox top
      sandbox top -A --interval 2
    """
    if not (is_terminal() and is_terminal(sys.stdin)):
        raise InvalidInput("sandbox top draws on a terminal, and this is none", hint="use `sandbox stats -w`")
    wanted = tuple(dict.fromkeys(pod_name(name) for name in pods))
    with closing(open_stream(context, None if all_namespaces else context.namespace, wanted, interval)) as stream:
        queue: SimpleQueue[list[Usage] | Exception | None] = SimpleQueue()
        read_end, write_end = os.pipe()

        def read() -> None:
            """Ends with the stream, or with the program: nobody waits for it."""
            try:
                for sample in samples(stream):
                    queue.put(sample)
                    os.write(write_end, b"s")
                queue.put(None)
            except Exception as error:
                queue.put(error)
            os.write(write_end, b"e")

        Thread(target=read, daemon=True).start()
        return Screen(namespaces=all_namespaces).run(queue, read_end, write_end)


class Screen:
    """Rows and their history; redrawn for each sample, key and change of the terminal's size."""

    def __init__(self, *, namespaces: bool) -> None:
        self._namespaces = namespaces
        self._rows = Rows()
        self._shown: list[Row] = []
        self._sort = "cpu"
        self._cpu: dict[Key, deque[float]] = {}
        self._memory: dict[Key, deque[float]] = {}

    def run(self, queue: SimpleQueue[list[Usage] | Exception | None], read_end: int, write_end: int) -> int:
        """Until q, Ctrl-C or the end of the stream. A byte in `read_end` says that something is in `queue`."""
        from rich.console import Console
        from rich.live import Live

        stdin = sys.stdin.fileno()
        console = Console(no_color=not colours(), highlight=False)
        with _keys(stdin), _resizes(write_end), Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(self.draw(console.width, console.height), refresh=True)
                ready, _, _ = select.select([stdin, read_end], [], [])
                if stdin in ready and self._key(os.read(stdin, 64)):
                    return 0
                if read_end in ready:
                    os.read(read_end, 4096)
                    if not self._take(queue):
                        return 0

    def _key(self, keys: bytes) -> bool:
        """True when it is time to go: q, Ctrl-C, Ctrl-D, or the terminal has gone."""
        for key in keys.decode("latin-1").lower():
            self._sort = SORTS.get(key, self._sort)
        return not keys or bool(set(keys) & set(b"qQ\x03\x04"))

    def _take(self, queue: SimpleQueue[list[Usage] | Exception | None]) -> bool:
        """Every sample that has come. False at the end of the stream; raises what broke it."""
        while True:
            try:
                item = queue.get_nowait()
            except Empty:
                return True
            if item is None:
                return False
            if isinstance(item, Exception):
                raise item
            self.take(item)

    def take(self, sample: list[Usage]) -> None:
        self._shown = self._rows.take(sample)
        keys = {_key_of(row) for row in self._shown}
        for history in (self._cpu, self._memory):
            for key in history.keys() - keys:
                del history[key]
        for row in self._shown:
            if row.cpu_milli is not None:
                self._cpu.setdefault(_key_of(row), deque(maxlen=HISTORY)).append(row.cpu_milli)
            used = float(row.usage.get("memoryWorkingSetBytes") or 0)
            self._memory.setdefault(_key_of(row), deque(maxlen=HISTORY)).append(used)

    def ordered(self) -> list[Row]:
        """Pods by what is sorted by, each followed by its containers where there are several."""
        pods = sorted((row for row in self._shown if not row.container), key=self._rank)
        below: dict[tuple[str, str], list[Row]] = {}
        for row in self._shown:
            if row.container:
                below.setdefault((row.namespace, row.pod), []).append(row)
        ordered: list[Row] = []
        for pod in pods:
            containers = below.get((pod.namespace, pod.pod), [])
            ordered += [pod, *(sorted(containers, key=self._rank) if len(containers) > 1 else ())]
        return ordered

    def _rank(self, row: Row) -> tuple[float, str, str, str]:
        values = {
            "cpu": row.cpu_milli or 0.0,
            "memory": float(row.usage.get("memoryWorkingSetBytes") or 0),
            "io": (row.read_bytes_s or 0.0) + (row.write_bytes_s or 0.0),
            "name": 0.0,
        }
        return -values[self._sort], *_key_of(row)

    def draw(self, columns: int, lines: int) -> Table:
        """A table that fits: sparklines get the width that is left, rows beyond the height are counted."""
        from rich.table import Table

        rows = self.ordered()
        room = max(1, lines - 3)
        names = [clean(row.name(namespaces=self._namespaces)) for row in rows]
        name_width = min(max([8, *map(len, names)]), 40)
        spark = max(0, min(40, (columns - FIXED_COLUMNS - name_width) // 2))
        hidden = f", {len(rows) - room} rows below do not fit" if len(rows) > room else ""
        pods = sum(1 for row in rows if not row.container)
        title = f"{pods} pod{'' if pods == 1 else 's'} by {self._sort}{hidden}   q quits, c m i n sort"
        table = Table(title=title, title_justify="left", box=None, expand=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("NAME", no_wrap=True, max_width=name_width, overflow="ellipsis")
        for header in ("CPU", "", "THROTTLED", "MEMORY", "", "LIMIT", "PEAK", "OOM", "PIDS", "READ/s", "WRITE/s"):
            table.add_column(header, no_wrap=True, justify="right" if header else "left", overflow="ellipsis")
        table.add_column("PRESSURE", no_wrap=True, justify="right")
        for row, name in list(zip(rows, names, strict=True))[:room]:
            table.add_row(*self._cells(row, name, spark), style="dim" if row.container else "")
        return table

    def _cells(self, row: Row, name: str, spark: int) -> list[str]:
        usage, key = row.usage, _key_of(row)
        limit = float(usage.get("memoryLimitBytes") or 0)
        return [
            _escape(name),
            "-" if row.cpu_milli is None else f"{row.cpu_milli:.0f}m",
            f"[green]{sparkline(self._cpu.get(key, ()), spark)}[/]",
            percent(row.throttled_percent),
            amount(usage.get("memoryWorkingSetBytes")),
            f"[cyan]{sparkline(self._memory.get(key, ()), spark, limit)}[/]",
            amount(usage.get("memoryLimitBytes")),
            amount(usage.get("memoryPeakBytes")),
            f"[red]{usage['oomKills']}[/]" if usage.get("oomKills") else whole(usage.get("oomKills")),
            whole(usage.get("pids")),
            amount(row.read_bytes_s),
            amount(row.write_bytes_s),
            row.pressure,
        ]


def _key_of(row: Row) -> Key:
    return row.namespace, row.pod, row.container


def _escape(text: str) -> str:
    """Square brackets are markup to rich."""
    return text.replace("[", "\\[")


@contextmanager
def _keys(stdin: int) -> Iterator[None]:
    """Keys as they are pressed, without echo; Ctrl-C is one of them."""
    before = termios.tcgetattr(stdin)
    try:
        tty.setraw(stdin, termios.TCSADRAIN)
        mode = termios.tcgetattr(stdin)
        mode[1] = before[1]  # output goes on as it was: a line ends at its beginning
        termios.tcsetattr(stdin, termios.TCSADRAIN, mode)
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


@contextmanager
def _resizes(write_end: int) -> Iterator[None]:
    """SIGWINCH becomes a byte in the pipe."""
    before = signal.signal(signal.SIGWINCH, lambda _signum, _frame: os.write(write_end, b"w") and None)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
