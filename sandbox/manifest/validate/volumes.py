"""Volumes of a pod and their mounts in a container."""

from __future__ import annotations

from sandbox.manifest.kinds import nearest
from sandbox.manifest.models import core_v1
from sandbox.manifest.nodes import Path, quote
from sandbox.manifest.problems import Problems
from sandbox.manifest.quantity import parse_quantity
from sandbox.manifest.validate.check import check_choice, check_required, check_text, check_unique
from sandbox.manifest.validate.names import config_key, dns_label, dns_subdomain, relative_path

HOST_PATH_TYPES = (
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
)


def volume_sources(volume: core_v1.Volume) -> list[str]:
    """The sources that are set: one of them in a valid volume."""
    return [name for name in core_v1.Volume.__annotations__ if name != "name" and getattr(volume, name) is not None]


def validate_volumes(volumes: list[core_v1.Volume], path: Path, problems: Problems) -> None:
    check_unique(problems, (((*path, i, "name"), volume.name) for i, volume in enumerate(volumes)), "volume")
    for index, volume in enumerate(volumes):
        where = (*path, index)
        check_text(problems, (*where, "name"), volume.name, dns_label)
        sources = volume_sources(volume)
        if len(sources) > 1:
            problems.add(
                (*where, sources[1]), f"expected one source of a volume, got {' and '.join(sources)}", key=True
            )
        _validate_source(volume, where, problems)


def _validate_source(volume: core_v1.Volume, path: Path, problems: Problems) -> None:
    if volume.emptyDir is not None:
        _validate_empty_dir(volume.emptyDir, (*path, "emptyDir"), problems)
    if volume.hostPath is not None:
        _validate_host_path(volume.hostPath, (*path, "hostPath"), problems)
    if volume.configMap is not None:
        where = (*path, "configMap")
        if check_required(problems, (*where, "name"), volume.configMap.name):
            check_text(problems, (*where, "name"), volume.configMap.name, dns_subdomain)
        _validate_items(volume.configMap.items, volume.configMap.defaultMode, where, problems)
    if volume.secret is not None:
        where = (*path, "secret")
        if check_required(problems, (*where, "secretName"), volume.secret.secretName):
            check_text(problems, (*where, "secretName"), volume.secret.secretName, dns_subdomain)
        _validate_items(volume.secret.items, volume.secret.defaultMode, where, problems)


def _validate_empty_dir(source: core_v1.EmptyDirVolumeSource, path: Path, problems: Problems) -> None:
    if source.medium and source.medium.startswith("HugePages"):
        problems.add((*path, "medium"), "huge pages as a medium are not supported by this release")
    else:
        check_choice(problems, (*path, "medium"), source.medium, ("", "Memory"))
    if source.sizeLimit is not None:
        value = parse_quantity(source.sizeLimit)
        if value < 0:
            problems.add((*path, "sizeLimit"), f"expected at least 0, got {source.sizeLimit}")
        elif value != value.to_integral_value():
            problems.add((*path, "sizeLimit"), f"expected a whole number of bytes, got {quote(source.sizeLimit)}")


def _validate_host_path(source: core_v1.HostPathVolumeSource, path: Path, problems: Problems) -> None:
    check_choice(problems, (*path, "type"), source.type, HOST_PATH_TYPES)
    if not check_required(problems, (*path, "path"), source.path):
        return
    if not source.path.startswith("/"):
        problems.add((*path, "path"), f"expected an absolute path, got {quote(source.path)}")
    elif ".." in source.path.split("/"):
        problems.add((*path, "path"), f"expected a path without '..', got {quote(source.path)}")
    elif "\0" in source.path:
        problems.add((*path, "path"), "expected a path without NUL characters")


def _validate_items(
    items: list[core_v1.KeyToPath] | None, default_mode: int | None, path: Path, problems: Problems
) -> None:
    _check_mode(default_mode, (*path, "defaultMode"), problems)
    for index, item in enumerate(items or []):
        where = (*path, "items", index)
        check_text(problems, (*where, "key"), item.key, config_key)
        if check_required(problems, (*where, "path"), item.path):
            check_text(problems, (*where, "path"), item.path, relative_path)
        _check_mode(item.mode, (*where, "mode"), problems)
    check_unique(problems, (((*path, "items", i, "path"), item.path) for i, item in enumerate(items or [])), "path")


def _check_mode(mode: int | None, path: Path, problems: Problems) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        problems.add(path, f"expected a mode of 0 to 0777 (511), got {mode}", "octal numbers begin with 0")


def validate_mounts(
    container: core_v1.Container, volumes: list[core_v1.Volume], path: Path, problems: Problems
) -> None:
    known = {volume.name for volume in volumes}
    mounts = container.volumeMounts or []
    privileged = bool(container.securityContext and container.securityContext.privileged)
    for index, mount in enumerate(mounts):
        where = (*path, index)
        if check_required(problems, (*where, "name"), mount.name) and mount.name not in known:
            guess = nearest(mount.name, sorted(known))
            suffix = f', did you mean "{guess}"?' if guess else ""
            problems.add((*where, "name"), f"the pod has no volume {quote(mount.name)}{suffix}")
        _validate_mount(mount, privileged, where, problems)
    paths = (((*path, i, "mountPath"), mount.mountPath.rstrip("/") or "/") for i, mount in enumerate(mounts))
    check_unique(problems, paths, "mountPath")


def _validate_mount(mount: core_v1.VolumeMount, privileged: bool, path: Path, problems: Problems) -> None:
    where = (*path, "mountPath")
    if check_required(problems, where, mount.mountPath):
        parts = mount.mountPath.split("/")
        if not mount.mountPath.startswith("/"):
            problems.add(where, f"expected an absolute path, got {quote(mount.mountPath)}")
        elif ":" in mount.mountPath or "\0" in mount.mountPath:
            problems.add(where, f"expected a path without ':' and NUL, got {quote(mount.mountPath)}")
        elif ".." in parts:
            problems.add(where, f"expected a path without '..', got {quote(mount.mountPath)}")
        elif not mount.mountPath.strip("/."):
            problems.add(where, "expected a path below /, got the root of the container")
    if mount.subPath:
        check_text(problems, (*path, "subPath"), mount.subPath, relative_path)
        if mount.subPathExpr:
            problems.add((*path, "subPathExpr"), "expected either subPath or subPathExpr, got both", key=True)
    modes = ("None", "HostToContainer", "Bidirectional")
    check_choice(problems, (*path, "mountPropagation"), mount.mountPropagation, modes)
    if mount.mountPropagation == "Bidirectional" and not privileged:
        problems.add((*path, "mountPropagation"), "Bidirectional is only for privileged containers")
    recursive = mount.recursiveReadOnly
    check_choice(problems, (*path, "recursiveReadOnly"), recursive, ("Disabled", "IfPossible", "Enabled"))
    if recursive in ("IfPossible", "Enabled"):
        if not mount.readOnly:
            problems.add((*path, "recursiveReadOnly"), f"{recursive} requires readOnly: true")
        if mount.mountPropagation not in (None, "None"):
            problems.add((*path, "recursiveReadOnly"), f"{recursive} cannot be combined with mountPropagation")
