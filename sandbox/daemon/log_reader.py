"""Reading container logs in the CRI format, exactly: what the container wrote, byte for byte.

A line of the file is an entry: `<RFC 3339 time> <stdout|stderr> <P|F> <bytes>`. P is a part of a longer line that goes
on in the next entry of the same stream; F ends a line (Kubernetes' kubelet-cri-logging design).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK_BYTES = 256 << 10
MAX_HELD_BYTES = 1 << 20
"""How much of one stream waits for an open line of the other before lines are mixed after all."""

_WHOLE_LINES = re.compile(rb"^[^ \n]+ (?:stdout|stderr) F ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the file. `offset` is where it starts."""

    offset: int
    time: bytes
    stream: bytes
    full: bool
    content: bytes


def parse_entry(offset: int, line: bytes) -> Entry | None:
    """An entry from a line without its newline; None when it is not one (torn by a full disk, or foreign)."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    tags = parts[2].split(b":")
    if tags[0] not in (b"F", b"P"):
        return None
    return Entry(offset, parts[0], parts[1], tags[0] == b"F", parts[3] if len(parts) == 4 else b"")


def normalized_time(stamp: bytes) -> bytes:
    """A key under which UTC stamps sort by time, whatever their number of fractional digits."""
    seconds, _, fraction = stamp.rstrip(b"Z").partition(b".")
    return seconds + b"." + fraction.ljust(9, b"0")


class LineJoiner:
    """Turns entries into output: parts joined, streams mixed only between lines.

    An open line (a part without its end) goes out at once; what the other stream writes meanwhile is held back until
    the line ends, `flush` is called, or MAX_HELD_BYTES are waiting.
    """

    def __init__(self, *, timestamps: bool = False) -> None:
        self._timestamps = timestamps
        self._open: bytes | None = None
        self._continues: set[bytes] = set()
        self._held: list[Entry] = []
        self._held_bytes = 0

    def feed(self, entry: Entry) -> bytes:
        if self._open is not None and entry.stream != self._open:
            self._held.append(entry)
            self._held_bytes += len(entry.content)
            return self.flush() if self._held_bytes > MAX_HELD_BYTES else b""
        output = self._emit(entry)
        if entry.full and self._held:
            output += self._release()
        return output

    @property
    def takes_plain(self) -> bool:
        """True when whole lines need not go through `feed`: nothing is open, and no time is to be put before them."""
        return self._open is None and not self._timestamps and not self._continues

    def flush(self) -> bytes:
        """What is held back: at the end of the file, or when a reader must not wait."""
        self._open = None
        return self._release()

    def _release(self) -> bytes:
        held, self._held, self._held_bytes = self._held, [], 0
        return b"".join(map(self._emit, held))

    def _emit(self, entry: Entry) -> bytes:
        prefix = b""
        if self._timestamps and entry.stream not in self._continues:
            prefix = entry.time + b" "
        if entry.full:
            self._open = None
            self._continues.discard(entry.stream)
            return prefix + entry.content + b"\n"
        self._open = entry.stream
        self._continues.add(entry.stream)
        return prefix + entry.content


class LogFile:
    """One log file that is being read forward, entry by entry. Owns its descriptor."""

    def __init__(self, path: str) -> None:
        """Raises FileNotFoundError. A symbolic link or a pipe in the place of a log is not followed."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self.path = path
        self._file: BinaryIO = os.fdopen(fd, "rb", buffering=0)
        self._starts: dict[bytes, int] = {}
        self._since = b""
        self._offset = 0
        self._rest = b""
        self._end: int | None = None

    def close(self) -> None:
        self._file.close()

    def skip_to_tail(self, lines: int) -> None:
        """Begins with the last `lines` lines of the output, as they stand now. Reads only the end of the file."""
        self._starts = tail_starts(self._file, lines)
        self._offset = min(self._starts.values())
        self._rest = b""

    def skip_before(self, time: bytes) -> None:
        """Leaves out entries older than `time` (RFC 3339, UTC); finds the place by bisection."""
        self._since = normalized_time(time)
        self._offset = max(self._offset, _bisect_time(self._file, self._since))
        self._rest = b""

    def end_here(self) -> None:
        """What is written from now on is not read: else a reader might never catch up with a fast writer."""
        self._end = os.fstat(self._file.fileno()).st_size

    def read_block(self, *, plain: bool = False) -> list[Entry] | bytes | None:
        """The next entries; None at the end of what is there now. May be called again when the file has grown.

        With `plain`, where every entry is wanted and is a whole line, the contents come as one piece: twice as fast.
        The last line stays unread while it has no newline: the monitor is writing it.
        """
        position = self._offset + len(self._rest)
        size = BLOCK_BYTES if self._end is None else min(BLOCK_BYTES, self._end - position)
        block = os.pread(self._file.fileno(), size, position) if size > 0 else b""
        if not block:
            return None
        data = self._rest + block
        complete = data.rfind(b"\n") + 1
        self._rest = data[complete:]
        offset, self._offset = self._offset, self._offset + complete
        if plain and not self._since and offset >= max(self._starts.values(), default=0):
            content, count = _WHOLE_LINES.subn(b"", data[:complete])
            if count == data.count(b"\n", 0, complete):
                return content
        return self._entries(data[:complete], offset)

    def _entries(self, data: bytes, offset: int) -> list[Entry]:
        entries = []
        for line in data.split(b"\n")[:-1]:
            entry = parse_entry(offset, line)
            offset += len(line) + 1
            if entry is not None and self._wanted(entry):
                entries.append(entry)
        return entries

    def _wanted(self, entry: Entry) -> bool:
        if self._starts and entry.offset < self._starts.get(entry.stream, 0):
            return False
        return not self._since or normalized_time(entry.time) >= self._since

    def was_truncated(self) -> bool:
        """True when the file is now shorter than what was read (copytruncate)."""
        return os.fstat(self._file.fileno()).st_size < self._offset

    def was_rotated(self) -> bool:
        """True when the path names another file now, or none."""
        try:
            now = os.lstat(self.path)
        except FileNotFoundError:
            return True
        mine = os.fstat(self._file.fileno())
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino)


def backward_lines(file: BinaryIO, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the complete lines of a file from the last to the first, reading it from its end in blocks."""
    end = position = os.fstat(file.fileno()).st_size
    pieces: list[bytes] = []  # of the line whose start is still to be found, last piece first
    complete = False
    while position > 0:
        start = max(0, position - block_bytes)
        block = os.pread(file.fileno(), position - start, start)
        position = start
        while (newline := block.rfind(b"\n")) >= 0:
            pieces.append(block[newline + 1 :])
            begin = start + newline + 1
            if complete and begin < end:
                yield begin, b"".join(reversed(pieces))
            pieces, complete, end = [], True, begin - 1
            block = block[:newline]
        pieces.append(block)
    if complete:
        yield 0, b"".join(reversed(pieces))


def tail_starts(file: BinaryIO, lines: int) -> dict[bytes, int]:
    """For each stream the offset of its first entry that belongs to the last `lines` lines of the output.

    A line is made of an F entry and the P entries of its stream before it; a P at the end without an F is a line, too.
    """
    size = os.fstat(file.fileno()).st_size
    starts = {b"stdout": size, b"stderr": size}
    if lines <= 0:
        return starts
    count = 0
    open_streams: set[bytes] = set()  # whose chosen line may have earlier parts
    for offset, line in backward_lines(file):
        entry = parse_entry(offset, line)
        if entry is None:
            continue
        if entry.full or entry.stream not in open_streams:
            open_streams.discard(entry.stream)
            if count == lines:
                # A new line of this stream, one too many: it and all before it stay out.
                if not open_streams:
                    break
                continue
            count += 1
            open_streams.add(entry.stream)
        if starts[entry.stream] > offset and entry.stream in open_streams:
            starts[entry.stream] = offset
    return starts


def _bisect_time(file: BinaryIO, since: bytes) -> int:
    """The offset of a line start such that every entry before it is older than `since` (times only grow)."""
    low, high = 0, os.fstat(file.fileno()).st_size
    while high - low > BLOCK_BYTES:
        middle = (low + high) // 2
        block = os.pread(file.fileno(), BLOCK_BYTES, middle)
        newline = block.find(b"\n")
        end = block.find(b"\n", newline + 1)
        entry = parse_entry(0, block[newline + 1 : end]) if 0 <= newline < end else None
        if entry is None:
            break
        if normalized_time(entry.time) < since:
            low = middle + newline + 1
        else:
            high = middle
    return low
