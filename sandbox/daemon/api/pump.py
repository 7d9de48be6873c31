"""Moving bytes between pipes or terminals and a WebSocket, without threads."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

from aiohttp import web

READ_BYTES = 64 << 10


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    future = asyncio.get_running_loop().create_future()

    def done() -> None:
        if not future.done():
            future.set_result(None)

    add(fd, done)
    try:
        await future
    finally:
        remove(fd)


async def readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _ready(fd, loop.add_reader, loop.remove_reader)


async def writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _ready(fd, loop.add_writer, loop.remove_writer)


class Ending:
    """Set when the process has ended: from then on a pump waits for more output no longer than `linger_s`."""

    def __init__(self, linger_s: float) -> None:
        self._linger_s = linger_s
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def more(self, fd: int) -> bool:
        """Waits until `fd` is readable: True; False when the process has ended and nothing more came."""
        waiting = asyncio.create_task(readable(fd))
        ended = asyncio.create_task(self._event.wait())
        try:
            await asyncio.wait((waiting, ended), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                await asyncio.wait((waiting,), timeout=self._linger_s)
            return waiting.done()
        finally:
            waiting.cancel()
            ended.cancel()


async def copy_out(fd: int, socket: web.WebSocketResponse, channel: int, ending: Ending) -> None:
    """Everything that comes out of `fd` until its end, as messages of `channel`, at the client's pace.

    A process in the background may hold `fd` open for ever: then `ending` ends it, with all that was written sent.
    """
    os.set_blocking(fd, False)
    prefix = bytes([channel])
    while True:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            if await ending.more(fd):
                continue
            return
        except OSError as error:
            if error.errno == errno.EIO:  # the last slave of a terminal was closed (pty(7))
                return
            raise
        if not data:
            return
        await socket.send_bytes(prefix + data)


async def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`. Raises OSError (EPIPE, EIO) when nobody reads any more."""
    os.set_blocking(fd, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await writable(fd)
