"""Unpacked layers: one directory for a diff_id, shared by every image that has it.

`layers/<26 characters>` is complete; `layers/tmp-*` is being unpacked. Names are short so that an overlay of many
layers fits into the one page of options that mount(2) takes on kernels before 6.5: 127 × 27 bytes.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from sandbox.errors import InvalidInput
from sandbox.images.streams import UnpackLimits
from sandbox.images.unpack import unpack
from sandbox.linux.trees import remove_tree

_TEMPORARY = "tmp-"
T = TypeVar("T")


async def in_thread(stop: threading.Event, function: Callable[[], T]) -> T:
    """Runs `function` in a worker thread. A cancelled caller sets `stop` and waits until the thread has let go."""
    task = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([task])
        task.exception()  # seen: the cancellation is what the caller is told
        raise


def short_id(diff_id: str) -> str:
    """128 bits of the digest in base 32."""
    return base64.b32encode(bytes.fromhex(diff_id.removeprefix("sha256:"))[:16]).decode().rstrip("=").lower()


class LayerStore:
    """Owns `root`/layers. Used from one event loop; the unpacking itself happens in threads."""

    def __init__(self, root: Path, limits: UnpackLimits) -> None:
        self._root = root / "layers"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._limits = limits
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._slots = asyncio.Semaphore(2)

    def path(self, diff_id: str) -> Path:
        return self._root / short_id(diff_id)

    def has(self, diff_id: str) -> bool:
        return self.path(diff_id).is_dir()

    async def ensure(self, diff_id: str, blob: Path, stop: threading.Event) -> None:
        """Unpacks `blob` unless the layer is there. Concurrent calls for one layer unpack it once.

        Raises InvalidInput when the content is not what `diff_id` says; nothing is left then.
        """
        lock = self._locks.get(diff_id)
        if lock is None:
            lock = self._locks[diff_id] = asyncio.Lock()
        async with lock:
            if not self.has(diff_id):
                async with self._slots:
                    await in_thread(stop, lambda: self._unpack(diff_id, blob, stop))

    def _unpack(self, diff_id: str, blob: Path, stop: threading.Event) -> None:
        directory = self._root / f"{_TEMPORARY}{secrets.token_hex(6)}"
        subject = f"layer {diff_id}"
        directory.mkdir(mode=0o755)
        try:
            directory.chmod(0o755)
            with blob.open("rb") as source:
                found = unpack(source, directory, self._limits, subject, stop)
            if found != diff_id:
                raise InvalidInput(
                    f"{subject} does not match its digest: its content is {found}",
                    operation="unpack layer",
                    subject=diff_id,
                )
            directory.rename(self.path(diff_id))
        except BaseException:
            remove_tree(directory)
            raise

    def set_aside(self, wanted: set[str]) -> list[Path]:
        """Renames every layer whose diff_id is not `wanted`; the caller gives the result to `discard`, in a thread."""
        keep = {short_id(diff_id) for diff_id in wanted}
        aside = []
        for entry in list(self._root.iterdir()):
            if entry.name in keep or entry.name.startswith(_TEMPORARY):
                continue
            target = self._root / f"{_TEMPORARY}{secrets.token_hex(6)}"
            entry.rename(target)
            aside.append(target)
        return aside

    @staticmethod
    def discard(directories: list[Path]) -> None:
        """Removes what `set_aside` or a killed daemon left."""
        for directory in directories:
            remove_tree(directory)

    def temporaries(self) -> list[Path]:
        """At start only: nothing is being unpacked, so all of them are left-overs."""
        return [entry for entry in self._root.iterdir() if entry.name.startswith(_TEMPORARY)]
