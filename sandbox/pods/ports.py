"""What the pod controller needs from others, as Protocols: the boundary at which the unit tests put a small fake.

A contract test runs the same cases against the fake and against the real runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from sandbox.cgroups.resources import CgroupResources
from sandbox.runtime.config import ContainerConfig, PodSandboxConfig
from sandbox.runtime.status import ContainerStatus, PodSandboxStatus, RuntimeEvent
from sandbox.runtime.updates import ResourceChange
from sandbox.timeline import Timeline


class RuntimePort(Protocol):
    """The part of `sandbox.runtime.Runtime` that pods use. stop and remove are idempotent; status raises NotFound."""

    async def run_pod_sandbox(self, config: PodSandboxConfig, timeline: Timeline) -> str: ...
    async def stop_pod_sandbox(self, id: str) -> None: ...
    async def remove_pod_sandbox(self, id: str) -> None: ...
    def pod_sandbox_status(self, id: str) -> PodSandboxStatus: ...
    def list_pod_sandboxes(self) -> list[PodSandboxStatus]: ...
    async def create_container(self, pod_sandbox_id: str, config: ContainerConfig, timeline: Timeline) -> str: ...
    async def start_container(self, id: str, timeline: Timeline) -> None: ...
    async def stop_container(self, id: str, grace_s: float) -> None: ...
    async def remove_container(self, id: str) -> None: ...
    async def update_resources(self, changes: Sequence[ResourceChange], stored: Callable[[], None] = ...) -> None: ...
    def container_status(self, id: str) -> ContainerStatus: ...
    def list_containers(self, pod_sandbox_id: str | None = None) -> list[ContainerStatus]: ...
    def subscribe(self, callback: Callable[[RuntimeEvent], None]) -> object: ...

    # What it would say, without doing it: raise as the real thing does.
    def check_limits(self, resources: CgroupResources) -> None: ...
    def sandbox_plan(self, config: PodSandboxConfig) -> object: ...
    def container_plan(self, sandbox: PodSandboxConfig, config: ContainerConfig) -> object: ...


class Tmpfs(Protocol):
    """Mounts of the daemon's own, for volumes in memory. Both are idempotent."""

    def mount(self, path: Path, size_bytes: int | None, mode: int) -> None:
        """A tmpfs on `path` (a directory that exists). None: the kernel's default size, half of the memory."""

    def unmount(self, path: Path) -> None:
        """Nothing happens when `path` is no mount point or does not exist."""


ImageResolver = Callable[[str], str]
"""A reference to the image's id. Raises ImageNotFound."""

EventSink = Callable[[str, str, str, str, str, str], None]
"""type (Normal, Warning), reason, message, namespace, pod, container (empty: the pod's)."""
