"""One daemon's worth of directories and rooms, without the daemon."""

from __future__ import annotations

import secrets
from pathlib import Path

from sandbox.cgroups.detect import detect
from sandbox.images.busybox import ensure_default_image
from sandbox.images.store import ImageStore
from sandbox.network.manager import NetworkManager
from sandbox.network.types import NetworkConfig
from sandbox.runtime.runtime import Runtime
from sandbox.store.database import Database

PAUSE = Path(__file__).parents[2] / "pause" / "build" / "pause"


class Host:
    """`runtime()` again, after `forget`, is a restart of the daemon."""

    def __init__(self, folder: Path) -> None:
        self.tag = secrets.token_hex(3)
        self.root = folder / "root"
        self.run_dir = Path(f"/run/sbt-{self.tag}")
        self.cgroup_parent = f"sandbox-test-{self.tag}"
        self.cgroups = detect()
        self.runtimes: list[Runtime] = []

    async def runtime(self) -> Runtime:
        """A runtime on this host's state, recovered."""
        self.database = Database(self.root / "state.db")
        self.images = ImageStore(self.root / "images", self.database)
        await ensure_default_image(self.images)
        config = NetworkConfig(
            conf_dir=self.root / "net.d", cache_dir=self.root / "cni", bridge=f"sb{self.tag}", subnet="10.199.0.0/24"
        )
        self.network = NetworkManager(config)
        runtime = Runtime(
            root=self.root,
            run_dir=self.run_dir,
            database=self.database,
            cgroups=self.cgroups,
            images=self.images,
            network=self.network,
            pause=PAUSE,
            cgroup_parent=self.cgroup_parent,
        )
        await runtime.recover()
        self.runtimes.append(runtime)
        return runtime

    async def forget(self, runtime: Runtime) -> None:
        """As if the daemon were gone: connections closed, nothing else done."""
        await runtime.close()
        self.runtimes.remove(runtime)
        self.network.close()
        self.database.close()

    async def close(self) -> None:
        for runtime in self.runtimes:
            for status in runtime.list_pod_sandboxes():
                await runtime.remove_pod_sandbox(status.id)
            await runtime.close()
        await self.network.remove_unused()
        self.network.close()
        self.database.close()
        await self.cgroups.remove(self.cgroup_parent)
        if (self.run_dir / "pods").exists():
            (self.run_dir / "pods").rmdir()
        if self.run_dir.exists():
            self.run_dir.rmdir()
