"""What a pod is made of on this host, for `describe`, `exec` and `logs`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from sandbox.errors import Conflict, NotFound
from sandbox.pods.ports import RuntimePort
from sandbox.pods.record import APP, ContainerRecord, PodRecord
from sandbox.pods.settings import PodSettings

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def find_container(record: PodRecord, name: str) -> ContainerRecord:
    """The container of that name, or the first app container. Raises NotFound."""
    container = record.container(name) if name else record.of_kind(APP)[0]
    if container is None:
        raise NotFound(
            f"pod {record.namespace}/{record.name} has no container {name!r}",
            operation="find container",
            subject=name,
            hint=f"it has {', '.join(c.name for c in record.containers)}",
        )
    return container


def running_container(record: PodRecord, name: str) -> ContainerRecord:
    """Raises NotFound, or Conflict when the container does not run."""
    container = find_container(record, name)
    if not container.running:
        raise Conflict(
            f"container {container.name!r} of pod {record.namespace}/{record.name} is not running",
            operation="find running container",
            subject=container.name,
            hint=f"see `sandbox describe {record.name}`",
        )
    return container


def log_path(settings: PodSettings, record: PodRecord, name: str, previous: bool) -> Path:
    """`previous`: of the attempt before the present one; NotFound when there was none."""
    container = find_container(record, name)
    attempt = container.attempt - 1 if previous else container.attempt
    if attempt < 0:
        raise NotFound(
            f"container {container.name!r} of pod {record.namespace}/{record.name} has not run before",
            operation="find log",
            subject=container.name,
        )
    directory = settings.log_directory(record.namespace, record.name, record.uid)
    return directory / container.name / f"{attempt}.log"


def runtime_view(runtime: RuntimePort, settings: PodSettings, record: PodRecord) -> dict[str, Any]:
    """Processes, namespaces, cgroups and paths. Empty parts where nothing runs."""
    view: dict[str, Any] = {
        "logDirectory": str(settings.log_directory(record.namespace, record.name, record.uid)),
        "volumesDirectory": str(settings.volumes_directory(record.uid)),
        "containers": [_container_view(runtime, settings, record, c) for c in record.containers],
    }
    with contextlib.suppress(NotFound):
        if record.sandbox_id:
            status = runtime.pod_sandbox_status(record.sandbox_id)
            view |= {
                "podSandboxId": status.id,
                "state": status.state,
                "pausePid": status.pause_pid,
                "monitorPid": status.monitor_pid,
                "netnsPath": status.netns_path,
                "netnsInode": _inode(status.netns_path),
                "cgroupPath": status.cgroup_path,
                "hostname": status.hostname,
                "namespaces": _namespaces(status.pause_pid),
            }
    return view


def _container_view(
    runtime: RuntimePort, settings: PodSettings, record: PodRecord, container: ContainerRecord
) -> dict[str, Any]:
    view: dict[str, Any] = {
        "name": container.name,
        "containerId": container.container_id,
        "attempt": container.attempt,
        "logPath": str(log_path(settings, record, container.name, False)),
    }
    with contextlib.suppress(NotFound):
        if container.container_id:
            status = runtime.container_status(container.container_id)
            view |= {
                "state": status.state,
                "pid": status.pid,
                "imageId": status.image_id,
                "cgroupPath": status.cgroup_path,
                "namespaces": _namespaces(status.pid) if status.state == "RUNNING" else {},
            }
    return view


def _inode(path: str) -> int:
    try:
        return Path(path).stat().st_ino
    except OSError:
        return 0


def _namespaces(pid: int) -> dict[str, str]:
    """Namespace type to its identity, such as net:[4026531840]; those of a process that is gone are missing."""
    found: dict[str, str] = {}
    for name in _NAMESPACES:
        with contextlib.suppress(OSError):
            found[name] = str(Path(f"/proc/{pid}/ns/{name}").readlink())
    return found
