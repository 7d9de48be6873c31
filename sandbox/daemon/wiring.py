"""The parts of the daemon, made and joined in one place."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web

from sandbox.cgroups import detect
from sandbox.cgroups.driver import CgroupDriver
from sandbox.daemon.config import Config, find_pause
from sandbox.daemon.events import EventLog
from sandbox.daemon.process import make_private_directory
from sandbox.daemon.watch import DirectoryWatcher
from sandbox.errors import ImageNotFound, SandboxError
from sandbox.images.busybox import build_busybox
from sandbox.images.store import ImageStore
from sandbox.network.manager import NetworkConfig, NetworkManager
from sandbox.pods.controller import PodController
from sandbox.pods.settings import PodSettings
from sandbox.runtime.runtime import Runtime
from sandbox.runtime.status import RuntimeEvent
from sandbox.store.database import Database

logger = logging.getLogger("sandbox.daemon")

DEFAULT_IMAGE = "localhost/busybox:latest"


@dataclass
class Services:
    """What handlers work with. Made by `build`, ended by `close`."""

    config: Config
    database: Database
    cgroups: CgroupDriver
    images: ImageStore
    network: NetworkManager
    runtime: Runtime
    controller: PodController
    events: EventLog
    watcher: DirectoryWatcher
    started_ns: int = field(default_factory=time.time_ns)
    sockets: set[web.WebSocketResponse] = field(default_factory=set)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def request_stop(self) -> None:
        """Asks the daemon to stop: streams end, running operations finish. Idempotent."""
        self._stop.set()
        self.events.close()
        self.watcher.wake_all()

    async def stop_requested(self) -> None:
        await self._stop.wait()
