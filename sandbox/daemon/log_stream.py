"""A container's log as one stream: tail, since, and following over rotation and restarts until it ends for good."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.daemon.log_reader import LineJoiner, LogFile
from sandbox.daemon.watch import DirectoryWatcher, Watch

FALLBACK_POLL_S = 1.0
"""How often a follower looks without having been told: where inotify's limits are reached, and for a lost wake-up."""

_ATTEMPT = re.compile(r"(0|[1-9][0-9]*)\.log")


@dataclass(frozen=True)
class LogOptions:
    """`tail`: lines from the end, None all; `since`: RFC 3339 in UTC, empty all."""

    tail: int | None = None
    since: str = ""
    timestamps: bool = False


def attempts(directory: Path) -> list[int]:
    """The attempts that have a log file, oldest first."""
    try:
        names = os.listdir(directory)  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        return []
    return sorted(int(match.group(1)) for name in names if (match := _ATTEMPT.fullmatch(name)))


async def read_log(directory: Path, attempt: int, options: LogOptions) -> AsyncGenerator[bytes, None]:
    """What `attempt` has written until now. Raises FileNotFoundError when it has no log file."""
    file = _open(directory, attempt)
    try:
        file.end_here()
        _skip(file, options)
        async for output in _drain(file, LineJoiner(timestamps=options.timestamps)):
            yield output
    finally:
        file.close()


async def follow_log(
    directory: Path, attempt: int, options: LogOptions, watcher: DirectoryWatcher, finished: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """The log from `attempt` on, through rotations and later attempts.

    `finished` says that nothing more will ever be written (or that the daemon stops): the stream ends when it said so
    before the last read. Raises FileNotFoundError when `attempt` has no log file.
    """
    joiner = LineJoiner(timestamps=options.timestamps)
    file = _open(directory, attempt)
    watch = _watch(watcher, directory)
    try:
        _skip(file, options)
        while True:
            # Asked before reading: what was written before the end, or before the move to another file, is not lost.
            ending = finished()
            successor = _successor(directory, file, attempt)
            async for output in _drain(file, joiner):
                yield output
            if successor is not None or file.was_truncated():
                attempt = attempt if successor is None else successor
                file.close()
                file = _open(directory, attempt)
                if options.since:
                    file.skip_before(options.since.encode())
            elif ending:
                return
            elif watch is not None:
                await watch.wait(FALLBACK_POLL_S)
            else:
                await asyncio.sleep(FALLBACK_POLL_S)
    finally:
        file.close()
        if watch is not None:
            watch.close()


async def _drain(file: LogFile, joiner: LineJoiner) -> AsyncGenerator[bytes, None]:
    """Everything that is there now."""
    while (block := file.read_block(plain=joiner.takes_plain)) is not None:
        if output := block if isinstance(block, bytes) else b"".join(map(joiner.feed, block)):
            yield output
        await asyncio.sleep(0)  # a log of gigabytes must not hold up the others
    if output := joiner.flush():
        yield output


def _skip(file: LogFile, options: LogOptions) -> None:
    if options.tail is not None:
        file.skip_to_tail(options.tail)
    if options.since:
        file.skip_before(options.since.encode())


def _successor(directory: Path, file: LogFile, attempt: int) -> int | None:
    """The attempt whose file comes after `file`, when that one is final; None while it may still grow.

    After a rotation the path names a new file. While that is empty the writer may still be busy with the old one.
    """
    with suppress(FileNotFoundError):
        if file.was_rotated() and Path(file.path).stat().st_size > 0:
            return attempt
    return next((number for number in attempts(directory) if number > attempt), None)


def _open(directory: Path, attempt: int) -> LogFile:
    return LogFile(str(directory / f"{attempt}.log"))


def _watch(watcher: DirectoryWatcher, directory: Path) -> Watch | None:
    try:
        return watcher.watch(str(directory))
    except OSError:
        return None  # the user's inotify instances or watches are used up: polling is slower and as exact
