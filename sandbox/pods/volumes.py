"""Volumes of a pod: made before its first container, mounted into those that ask, gone with the pod.

ROOT/volumes/<uid>/<volume>        emptyDir, configMap
RUN_DIR/volumes/<uid>/<volume>     a tmpfs each: emptyDir in memory, secret
the host's own path                hostPath
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.errors import InvalidInput, KernelError
from sandbox.manifest.models import core_v1
from sandbox.manifest.quantity import parse_bytes
from sandbox.pods import env, trees
from sandbox.pods.atomic import FileContent, check_key, check_relative, write_atomically
from sandbox.pods.hostpath import check_host_path, prepare_host_path
from sandbox.pods.kube import Container, PodManifest
from sandbox.pods.objects import CONFIG_MAP, SECRET, ObjectStore, missing_key
from sandbox.pods.ports import Tmpfs
from sandbox.pods.settings import PodSettings
from sandbox.runtime.config import Mount, Propagation

_PROPAGATION = {
    None: Propagation.PRIVATE,
    "None": Propagation.PRIVATE,
    "HostToContainer": Propagation.HOST_TO_CONTAINER,
    "Bidirectional": Propagation.BIDIRECTIONAL,
}
_PAYLOAD_TMPFS_BYTES = 4 << 20
"""A Secret holds at most 1 MiB; while it is replaced, twice that is there."""


class Volumes:
    """Everything is idempotent: a retry after a crash ends where the first attempt would have."""

    def __init__(self, settings: PodSettings, objects: ObjectStore, tmpfs: Tmpfs) -> None:
        self._settings = settings
        self._objects = objects
        self._tmpfs = tmpfs

    def check(self, pod: PodManifest) -> None:
        """Looks without touching: every reference and every host path. Raises InvalidInput."""
        for volume in pod.spec.volumes or []:
            self.check_one(pod, volume)

    def check_one(self, pod: PodManifest, volume: core_v1.Volume) -> None:
        """As `check`."""
        if volume.hostPath is not None:
            check_host_path(volume.name, volume.hostPath.path, volume.hostPath.type or "")
        elif volume.configMap is not None or volume.secret is not None:
            self._payload(pod, volume)
        elif volume.emptyDir is None or volume.emptyDir.medium not in (None, "", "Memory"):
            raise InvalidInput(
                f"volume {volume.name!r} of pod {pod.name!r} is of a kind that is not supported",
                subject=volume.name,
                hint="emptyDir (on disk or in Memory), hostPath, configMap and secret are",
            )

    def prepare(self, pod: PodManifest, uid: str) -> None:
        """Makes every volume of the pod. Raises InvalidInput, or KernelError with the step and the kernel's answer."""
        for volume in pod.spec.volumes or []:
            try:
                self._prepare_one(pod, uid, volume)
            except OSError as error:
                raise KernelError(
                    f"volume {volume.name!r} of pod {pod.name!r} cannot be made at {error.filename}",
                    operation="make volume",
                    subject=volume.name,
                    errno=error.errno or 0,
                ) from error

    async def teardown(self, uid: str) -> None:
        """Removes every volume of the pod but the host's own paths. Idempotent. Raises KernelError."""
        memory = self._settings.memory_volumes_directory(uid)
        try:
            if memory.is_dir():
                for place in memory.iterdir():
                    self._tmpfs.unmount(place)
            await trees.remove_tree(memory)
            await trees.remove_tree(self._settings.volumes_directory(uid))
        except OSError as error:
            raise KernelError(
                f"the volumes of pod {uid} cannot be removed: {error.filename}",
                operation="remove volumes",
                subject=uid,
                errno=error.errno or 0,
            ) from error

    def owners(self) -> set[str]:
        """uids that have volumes."""
        parents = [self._settings.volumes_directory("x").parent, self._settings.memory_volumes_directory("x").parent]
        return {entry.name for parent in parents if parent.is_dir() for entry in parent.iterdir()}

    def mounts(
        self, pod: PodManifest, uid: str, container: Container, variables: Mapping[str, str], *, make_sub_paths: bool
    ) -> tuple[Mount, ...]:
        """What the container mounts; sub paths that are missing are made if asked. Raises InvalidInput, KernelError."""
        volumes = {volume.name: volume for volume in pod.spec.volumes or []}
        mounts = []
        for wanted in container.volumeMounts or []:
            volume = volumes.get(wanted.name)
            if volume is None:
                raise InvalidInput(
                    f"container {container.name!r} mounts volume {wanted.name!r}, which the pod does not have",
                    subject=wanted.name,
                )
            mount = _mount(wanted, volume, self._place(uid, volume), _sub_path(wanted, container, variables))
            if make_sub_paths and mount.sub_path and not _is_payload(volume) and Path(mount.host_path).is_dir():
                _make_sub_path(mount)
            mounts.append(mount)
        return tuple(mounts)

    def _prepare_one(self, pod: PodManifest, uid: str, volume: Any) -> None:
        group = pod.spec.securityContext.fsGroup if pod.spec.securityContext else None
        place = self._place(uid, volume)
        if volume.hostPath is not None:
            prepare_host_path(volume.name, volume.hostPath.path, volume.hostPath.type or "")
        elif volume.emptyDir is not None:
            fresh = not place.is_dir() or (_in_memory(volume) and not os.path.ismount(place))
            place.mkdir(parents=True, exist_ok=True)
            if _in_memory(volume):
                limit = volume.emptyDir.sizeLimit
                self._tmpfs.mount(place, (parse_bytes(limit) or None) if limit else _memory_limit(pod), 0o777)
            if fresh:
                _own(place, 0o777, group)
        else:
            files = self._payload(pod, volume)
            place.mkdir(parents=True, exist_ok=True)
            if volume.secret is not None:
                self._tmpfs.mount(place, _PAYLOAD_TMPFS_BYTES, 0o755)
            _own(place, 0o755, group)
            write_atomically(place, files, group)

    def _place(self, uid: str, volume: Any) -> Path:
        if volume.hostPath is not None:
            return Path(volume.hostPath.path)
        check_key(volume.name)
        in_memory = volume.secret is not None or (volume.emptyDir is not None and _in_memory(volume))
        settings = self._settings
        directory = settings.memory_volumes_directory(uid) if in_memory else settings.volumes_directory(uid)
        return directory / str(volume.name)

    def _payload(self, pod: PodManifest, volume: Any) -> dict[str, FileContent]:
        """The files of a configMap or secret volume."""
        kind, source = (CONFIG_MAP, volume.configMap) if volume.configMap is not None else (SECRET, volume.secret)
        name = source.name if kind == CONFIG_MAP else source.secretName
        needed_by = f"volume {volume.name!r} of pod {pod.name!r}"
        data = self._objects.read(kind, pod.namespace, name)
        if data is None:
            if source.optional:
                return {}
            raise self._objects.missing(kind, pod.namespace, name, needed_by)
        mode = 0o644 if source.defaultMode is None else source.defaultMode
        if not source.items:
            return {check_key(key): FileContent(value, mode) for key, value in data.items()}
        files: dict[str, FileContent] = {}
        for item in source.items:
            if item.key in data:
                files[check_relative(item.path)] = FileContent(data[item.key], mode if item.mode is None else item.mode)
            elif not source.optional:
                raise missing_key(kind, name, item.key, data, needed_by)
        return files


def _mount(wanted: Any, volume: Any, place: Path, sub_path: str) -> Mount:
    readonly = bool(wanted.readOnly) or _is_payload(volume)
    return Mount(
        container_path=wanted.mountPath,
        host_path=str(place),
        readonly=readonly,
        recursive_read_only=readonly and wanted.recursiveReadOnly in ("Enabled", "IfPossible"),
        propagation=_PROPAGATION[wanted.mountPropagation],
        sub_path=sub_path,
    )


def _sub_path(mount: Any, container: Container, variables: Mapping[str, str]) -> str:
    if mount.subPathExpr:
        path = env.expand(mount.subPathExpr, variables)
        if "$(" in path:
            raise InvalidInput(
                f"subPathExpr {mount.subPathExpr!r} of container {container.name!r} uses a variable that is not set",
                subject=mount.subPathExpr,
            )
    else:
        path = mount.subPath or ""
    if not path:
        return ""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InvalidInput(f"sub path {path!r} of container {container.name!r} leaves its volume", subject=path)
    return path


def _is_payload(volume: Any) -> bool:
    """Its files are the daemon's: a container never writes there."""
    return volume.configMap is not None or volume.secret is not None


def _in_memory(volume: Any) -> bool:
    return bool(volume.emptyDir.medium == "Memory")


def _memory_limit(pod: PodManifest) -> int | None:
    """The sum of the containers' memory limits, if each has one: no tmpfs can then hold more."""
    total = 0
    for container in pod.spec.containers:
        limit = ((container.resources.limits if container.resources else None) or {}).get("memory")
        if limit is None:
            return None
        total += parse_bytes(limit)
    return total or None


def _own(place: Path, mode: int, group: int | None) -> None:
    """`group` (fsGroup) gets the directory and, by the setgid bit, whatever is made in it."""
    if group is not None:
        os.chown(place, -1, group)
        mode |= 0o2070
    place.chmod(mode)


def _make_sub_path(mount: Mount) -> None:
    try:
        mode = Path(mount.host_path).stat().st_mode & 0o7777
        trees.make_below(Path(mount.host_path), mount.sub_path, mode)
    except OSError as error:
        raise KernelError(
            f"sub path {mount.sub_path!r} cannot be made below {mount.host_path}",
            operation="make sub path",
            subject=mount.sub_path,
            errno=error.errno or 0,
        ) from error
