"""The parts of the daemon, made and joined in one place."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web

from sandbox.cgroups.detect import detect
from sandbox.cgroups.driver import CgroupDriver
from sandbox.daemon.config import Config, find_pause
from sandbox.daemon.events import WARNING, EventLog
from sandbox.daemon.process import make_private_directory
from sandbox.daemon.watch import DirectoryWatcher
from sandbox.errors import SandboxError
from sandbox.images.busybox import ensure_default_image
from sandbox.images.store import ImageStore
from sandbox.images.streams import UnpackLimits
from sandbox.network.manager import NetworkConfig, NetworkManager
from sandbox.pods.controller import PodController
from sandbox.pods.settings import PodSettings
from sandbox.runtime.runtime import Runtime
from sandbox.store.database import Database

logger = logging.getLogger("sandbox.daemon")


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
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each pod has changed: followers look again only then."""
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

    async def start(self) -> None:
        """Takes up what runs on the host. Called once, before requests are served."""
        await self.runtime.recover()
        await self.controller.recover()
        try:
            await ensure_default_image(self.images)
        except SandboxError as error:
            logger.warning("no default image: %s", error, extra={"fields": {"hint": error.hint}})

    async def close(self) -> None:
        """Lets go of everything; pods keep running."""
        await self.controller.close()
        await self.runtime.close()
        self.network.close()
        self.watcher.close()
        self.database.close()

    def pod_changed(self, namespace: str, name: str) -> None:
        self.changes[namespace, name] += 1
        self.watcher.wake_all()


async def build(config: Config) -> Services:
    """Everything, joined; nothing of the host was touched but the state directory."""
    pause = find_pause(config)
    for name in ("cni", "images", "logs", "pods", "volumes"):
        make_private_directory(config.root / name, "root")
    make_private_directory(config.run_dir / "pods", "run_dir")
    database = Database(config.database_path)
    cgroups = detect()
    images = ImageStore(config.root / "images", database, UnpackLimits(total_bytes=config.image_max_bytes))
    network = NetworkManager(_network_config(config))
    runtime = Runtime(
        root=config.root,
        run_dir=config.run_dir,
        database=database,
        cgroups=cgroups,
        images=images,
        network=network,
        pause=pause,
        cgroup_parent=config.cgroup_parent,
    )
    events = EventLog(database)
    settings = PodSettings(
        root=config.root,
        run_dir=config.run_dir,
        backoff_base_s=config.back_off_initial_s,
        backoff_max_s=config.back_off_max_s,
        unified_cgroups=cgroups.mode == "v2",
    )
    controller = PodController(
        runtime,
        database,
        settings,
        partial(record_event, events),
        resolve_image=lambda reference: images.resolve(reference).id,
    )
    watcher = DirectoryWatcher()
    services = Services(config, database, cgroups, images, network, runtime, controller, events, watcher)
    controller.subscribe(services.pod_changed)
    return services


def record_event(
    events: EventLog, type: str, reason: str, message: str, namespace: str, name: str, container: str
) -> None:
    """An event of a pod, also into the daemon's own log."""
    events.record(reason, message, type=type, namespace=namespace, name=name, container=container)
    fields = {"pod": f"{namespace}/{name}", "container": container, "reason": reason}
    level = logging.WARNING if type == WARNING else logging.INFO
    logger.log(level, message, extra={"fields": {key: value for key, value in fields.items() if value}})


def _network_config(config: Config) -> NetworkConfig:
    return NetworkConfig(
        conf_dir=config.cni_conf_dir,
        bin_dirs=config.cni_bin_dirs,
        cache_dir=config.root / "cni",
        network="" if config.network == "auto" else config.network,
        bridge=config.bridge,
        subnet=config.subnet,
        subnet6=config.subnet6,
        mtu=config.mtu,
    )
