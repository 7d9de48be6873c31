"""Container logs are given back byte for byte."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.daemon import log_reader
from sandbox.daemon.log_reader import LineJoiner, LogFile, backward_lines, parse_entry, tail_starts
from sandbox.daemon.log_stream import LogOptions, attempts, follow_log, read_log
from sandbox.daemon.watch import DirectoryWatcher


def stamp(n: int) -> str:
    return f"2026-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}.{n:09d}Z"


def entry(n: int, stream: str, tag: str, content: bytes) -> bytes:
    return f"{stamp(n)} {stream} {tag} ".encode() + content + b"\n"


def write_log(path: Path, entries: list[tuple[str, str, bytes]]) -> None:
    path.write_bytes(b"".join(entry(n, *item) for n, item in enumerate(entries)))


async def read_all(directory: Path, options: LogOptions | None = None, attempt: int = 0) -> bytes:
    return b"".join([block async for block in read_log(directory, attempt, options or LogOptions())])


async def test_lines_and_parts_are_joined(tmp_path: Path) -> None:
    write_log(
        tmp_path / "0.log",
        [
            ("stdout", "F", b"one"),
            ("stdout", "P", b"tw"),
            ("stdout", "F", b"o"),
            ("stderr", "F", b""),
            ("stdout", "P", b"end"),
        ],
    )
    assert await read_all(tmp_path) == b"one\ntwo\n\nend"


async def test_streams_are_mixed_only_between_lines(tmp_path: Path) -> None:
    write_log(
        tmp_path / "0.log",
        [("stdout", "P", b"out-1 "), ("stderr", "F", b"error"), ("stdout", "P", b"out-2 "), ("stdout", "F", b"out-3")],
    )
    assert await read_all(tmp_path) == b"out-1 out-2 out-3\nerror\n"


def test_an_open_line_does_not_hold_back_more_than_the_bound() -> None:
    joiner = LineJoiner()
    assert joiner.feed(log_reader.Entry(0, b"t", b"stdout", False, b"open")) == b"open"
    block = b"x" * (log_reader.MAX_HELD_BYTES // 2)
    assert joiner.feed(log_reader.Entry(1, b"t", b"stderr", True, block)) == b""
    assert joiner.feed(log_reader.Entry(2, b"t", b"stderr", True, block)) == b""
    assert len(joiner.feed(log_reader.Entry(3, b"t", b"stderr", True, b"y"))) == 2 * len(block) + 4


async def test_timestamps_stand_before_lines_not_before_parts(tmp_path: Path) -> None:
    write_log(tmp_path / "0.log", [("stdout", "P", b"a"), ("stdout", "F", b"b"), ("stderr", "F", b"c")])
    expected = f"{stamp(0)} ab\n{stamp(2)} c\n".encode()
    assert await read_all(tmp_path, LogOptions(timestamps=True)) == expected


async def test_binary_content_and_foreign_lines(tmp_path: Path) -> None:
    content = bytes(b for b in range(256) if b != 10)
    (tmp_path / "0.log").write_bytes(
        b"torn\n"
        + entry(0, "stdout", "F", content)
        + b"2026 stdout X no\n"
        + entry(1, "stdout", "F", b"z")
        + b"unfinished"
    )
    assert await read_all(tmp_path) == content + b"\nz\n"


@pytest.mark.parametrize(
    ("tail", "expected"), [(0, b""), (1, b"c\n"), (2, b"bb\nc\n"), (3, b"a\nbb\nc\n"), (99, b"a\nbb\nc\n")]
)
async def test_tail_counts_lines_of_output(tmp_path: Path, tail: int, expected: bytes) -> None:
    write_log(
        tmp_path / "0.log", [("stdout", "F", b"a"), ("stdout", "P", b"b"), ("stdout", "F", b"b"), ("stderr", "F", b"c")]
    )
    assert await read_all(tmp_path, LogOptions(tail=tail)) == expected


async def test_tail_begins_a_line_that_the_other_stream_interrupts(tmp_path: Path) -> None:
    write_log(
        tmp_path / "0.log",
        [("stdout", "F", b"old"), ("stdout", "P", b"1"), ("stderr", "F", b"error"), ("stdout", "F", b"2")],
    )
    assert await read_all(tmp_path, LogOptions(tail=1)) == b"12\n"
    assert await read_all(tmp_path, LogOptions(tail=2)) == b"12\nerror\n"


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.sampled_from(["P", "F"]),
        st.binary(max_size=12).map(lambda b: b.replace(b"\n", b".")),
    ),
    max_size=40,
)


@given(entries=ENTRIES, tail=st.integers(0, 12), block=st.integers(1, 64))
@settings(max_examples=200, deadline=None)
def test_tail_agrees_with_counting_from_the_start(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str, bytes]], tail: int, block: int
) -> None:
    """The model: group entries to lines, order lines by their last entry, keep the last ones."""
    path = tmp_path_factory.mktemp("log") / "0.log"
    write_log(path, entries)
    lines: list[list[int]] = []
    unfinished: dict[str, list[int]] = {}
    for n, (stream, tag, _) in enumerate(entries):
        unfinished.setdefault(stream, []).append(n)
        if tag == "F":
            lines.append(unfinished.pop(stream))
    lines = sorted([*lines, *unfinished.values()], key=lambda line: line[-1])
    wanted = {n for line in lines[max(0, len(lines) - tail) :] for n in line} if tail else set()
    file = LogFile(str(path))
    file.skip_to_tail(tail)
    got = [e for e in iter(file.read_block, None) for e in e]
    assert {int(e.time[-10:-1]) for e in got} == wanted
    with path.open("rb") as raw:
        backward = list(backward_lines(raw, block))
    assert b"".join(line + b"\n" for _, line in reversed(backward)) == path.read_bytes()
    assert all(path.read_bytes()[offset:].startswith(line) for offset, line in backward)
    file.close()


@given(entries=ENTRIES, block=st.integers(60, 200), tail=st.none() | st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_the_fast_way_gives_what_the_slow_way_gives(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str, bytes]], block: int, tail: int | None
) -> None:
    path = tmp_path_factory.mktemp("log") / "0.log"
    write_log(path, entries)

    def read(plain: bool, block_bytes: int) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log_reader, "BLOCK_BYTES", block_bytes)
            file, joiner, output = LogFile(str(path)), LineJoiner(), b""
            if tail is not None:
                file.skip_to_tail(tail)
            while (found := file.read_block(plain=plain and joiner.takes_plain)) is not None:
                output += found if isinstance(found, bytes) else b"".join(map(joiner.feed, found))
            file.close()
            return output + joiner.flush()

    assert read(True, block) == read(False, 1 << 20)


def test_tail_of_a_large_file_reads_only_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0.log"
    with path.open("wb") as file:
        for n in range(200_000):
            file.write(entry(n, "stdout", "F", b"x" * 40))
    read = 0
    real = os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        nonlocal read
        data = real(fd, size, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    with path.open("rb") as raw:
        starts = tail_starts(raw, 10)
    assert path.stat().st_size - starts[b"stdout"] == 10 * len(entry(199_999, "stdout", "F", b"x" * 40))
    assert read <= 2 * log_reader.BLOCK_BYTES


async def test_since_finds_its_place(tmp_path: Path) -> None:
    write_log(tmp_path / "0.log", [("stdout", "F", b"%d" % n) for n in range(30_000)])
    for start in (0, 1, 3000, 29_999, 40_000):
        expected = b"".join(b"%d\n" % n for n in range(start, 30_000))
        assert await read_all(tmp_path, LogOptions(since=stamp(start))) == expected


async def test_a_log_that_grows_while_it_is_read_ends(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    write_log(path, [("stdout", "F", b"x" * 1000)] * 1000)
    size = 0
    async for block in read_log(tmp_path, 0, LogOptions()):
        size += len(block)
        with path.open("ab") as file:
            file.write(entry(0, "stdout", "F", b"y" * 1000) * 300)
    assert size == 1001 * 1000


class Follower:
    def __init__(self, directory: Path, options: LogOptions | None = None, attempt: int = 0) -> None:
        self.finished = False
        self.output = b""
        self.watcher = DirectoryWatcher()
        self._stream = follow_log(directory, attempt, options or LogOptions(), self.watcher, lambda: self.finished)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for block in self._stream:
            self.output += block

    async def until(self, expected: bytes) -> None:
        async with asyncio.timeout(5):
            while self.output != expected:
                assert expected.startswith(self.output), self.output
                await asyncio.sleep(0.002)

    async def end(self) -> bytes:
        self.finished = True
        self.watcher.wake_all()
        async with asyncio.timeout(5):
            await self.task
        self.watcher.close()
        return self.output


def append(path: Path, stream: str, tag: str, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(entry(0, stream, tag, content))


async def test_follow_sees_what_is_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    append(path, "stdout", "F", b"one")
    follower = Follower(tmp_path)
    await follower.until(b"one\n")
    started = asyncio.get_running_loop().time()
    append(path, "stdout", "P", b"tw")
    await follower.until(b"one\ntw")
    assert asyncio.get_running_loop().time() - started < 0.5  # told by inotify, not found by polling
    append(path, "stdout", "F", b"o")
    assert await follower.end() == b"one\ntwo\n"


async def test_follow_goes_on_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    append(path, "stdout", "F", b"one")
    follower = Follower(tmp_path)
    await follower.until(b"one\n")
    rotated = tmp_path / "0.log.20260101-000000"
    path.rename(rotated)
    append(rotated, "stdout", "F", b"two")  # the writer has not been told yet
    await follower.until(b"one\ntwo\n")
    path.touch()
    append(rotated, "stdout", "F", b"three")
    await follower.until(b"one\ntwo\nthree\n")
    append(path, "stdout", "F", b"four")
    await follower.until(b"one\ntwo\nthree\nfour\n")
    assert await follower.end() == b"one\ntwo\nthree\nfour\n"


async def test_follow_goes_on_with_the_next_attempt_and_after_truncation(tmp_path: Path) -> None:
    append(tmp_path / "3.log", "stdout", "F", b"one")
    follower = Follower(tmp_path, attempt=3)
    await follower.until(b"one\n")
    append(tmp_path / "3.log", "stdout", "F", b"two")
    append(tmp_path / "10.log", "stdout", "F", b"three")
    await follower.until(b"one\ntwo\nthree\n")
    (tmp_path / "10.log").write_bytes(b"")
    await asyncio.sleep(0.05)
    append(tmp_path / "10.log", "stdout", "F", b"4")
    await follower.until(b"one\ntwo\nthree\n4\n")
    assert await follower.end() == b"one\ntwo\nthree\n4\n"


async def test_follow_ends_with_everything_that_was_written_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.touch()
    follower = Follower(tmp_path)
    await asyncio.sleep(0.01)
    follower.finished = True
    append(path, "stdout", "F", b"last words")
    assert await follower.end() == b"last words\n"


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "0.log").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError):
        LogFile(str(tmp_path / "0.log"))


def test_attempts_are_numbers(tmp_path: Path) -> None:
    for name in ("0.log", "2.log", "10.log", "1.log.gz", "x.log", "01.log"):
        (tmp_path / name).touch()
    assert attempts(tmp_path) == [0, 2, 10]
    assert attempts(tmp_path / "absent") == []


@given(st.binary(max_size=80))
def test_any_line_is_an_entry_or_none(line: bytes) -> None:
    parsed = parse_entry(0, line)
    assert parsed is None or parsed.stream in (b"stdout", b"stderr")
