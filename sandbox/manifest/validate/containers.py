"""Containers of a pod, init containers included."""

from __future__ import annotations

import signal

from sandbox.manifest.kinds import nearest
from sandbox.manifest.models import core_v1
from sandbox.manifest.nodes import Path, quote
from sandbox.manifest.problems import Problems
from sandbox.manifest.validate.check import check_choice, check_range, check_required, check_text, check_unique
from sandbox.manifest.validate.env import validate_env
from sandbox.manifest.validate.host_ports import HostPorts
from sandbox.manifest.validate.names import dns_label, ip_address, port_name
from sandbox.manifest.validate.resources import validate_resize_policy, validate_resources
from sandbox.manifest.validate.security import validate_container_security
from sandbox.manifest.validate.volumes import validate_mounts

PROTOCOLS = ("TCP", "UDP", "SCTP")
PULL_POLICIES = ("Always", "Never", "IfNotPresent")


def validate_containers(spec: core_v1.PodSpec, path: Path, problems: Problems) -> None:
    if not spec.containers:
        problems.add((*path, "containers"), "expected at least one container, got none")
    located = [
        ((*path, field, index), container)
        for field in ("initContainers", "containers")
        for index, container in enumerate(getattr(spec, field) or [])
    ]
    for where, container in located:
        validate_container(container, spec, where, problems)
        _validate_restart_policy(container, where, problems)
    check_unique(problems, (((*where, "name"), container.name) for where, container in located), "container")
    _check_references_to_containers(spec, located, problems)
    _check_host_ports(spec, located, problems)


def validate_container(container: core_v1.Container, spec: core_v1.PodSpec, path: Path, problems: Problems) -> None:
    if check_required(problems, (*path, "name"), container.name):
        check_text(problems, (*path, "name"), container.name, dns_label)
    if check_required(problems, (*path, "image"), container.image):
        check_text(problems, (*path, "image"), container.image, _image)
    check_choice(problems, (*path, "imagePullPolicy"), container.imagePullPolicy, PULL_POLICIES)
    for field in ("command", "args"):
        for index, word in enumerate(getattr(container, field) or []):
            if "\0" in word:
                problems.add((*path, field, index), "expected a string without NUL characters")
    if container.workingDir and not container.workingDir.startswith("/"):
        problems.add((*path, "workingDir"), f"expected an absolute path, got {quote(container.workingDir)}")
    validate_env(container, path, problems)
    _validate_ports(container.ports or [], spec, (*path, "ports"), problems)
    validate_mounts(container, spec.volumes or [], (*path, "volumeMounts"), problems)
    validate_resources(container.resources, (*path, "resources"), problems)
    validate_resize_policy(
        container.resizePolicy or [],
        (*path, "resizePolicy"),
        problems,
        restarts=spec.restartPolicy != "Never",
        runs_on=path[1] == "containers" or container.restartPolicy == "Always",
    )
    validate_container_security(container.securityContext, spec.securityContext, (*path, "securityContext"), problems)
    _validate_stop_signal(container, spec, path, problems)
    message_path = container.terminationMessagePath
    if message_path and not message_path.startswith("/"):
        problems.add((*path, "terminationMessagePath"), f"expected an absolute path, got {quote(message_path)}")
    policies = ("File", "FallbackToLogsOnError")
    check_choice(problems, (*path, "terminationMessagePolicy"), container.terminationMessagePolicy, policies)


def _validate_restart_policy(container: core_v1.Container, path: Path, problems: Problems) -> None:
    """An init container with restartPolicy Always is a sidecar."""
    policy, where = container.restartPolicy, (*path, "restartPolicy")
    if policy is None:
        return
    if path[1] != "initContainers":
        problems.add(where, "a restart policy of one app container is not supported by this release", key=True)
    elif policy != "Always":
        problems.add(where, f"expected Always, which makes the init container a sidecar, got {quote(policy)}")


def _validate_stop_signal(container: core_v1.Container, spec: core_v1.PodSpec, path: Path, problems: Problems) -> None:
    name = container.lifecycle.stopSignal if container.lifecycle else None
    if name is None:
        return
    where = (*path, "lifecycle", "stopSignal")
    known = [
        *signal.Signals.__members__,
        *(f"SIGRTMIN+{n}" for n in range(1, 16)),
        *(f"SIGRTMAX-{n}" for n in range(1, 15)),
    ]
    if name not in known:
        guess = nearest(name, known)
        problems.add(where, f"unknown signal {quote(name)}" + (f', did you mean "{guess}"?' if guess else ""))
    if spec.os is None:
        problems.add(where, "stopSignal requires spec.os.name to be linux", key=True)


def _image(value: str) -> str:
    if value != value.strip():
        return f"expected an image without spaces around it, got {quote(value)}"
    if any(c.isspace() or not c.isprintable() for c in value) or len(value) > 4096:
        return f"expected the name of an image, got {quote(value)}"
    return ""


def _validate_ports(ports: list[core_v1.ContainerPort], spec: core_v1.PodSpec, path: Path, problems: Problems) -> None:
    for index, port in enumerate(ports):
        where = (*path, index)
        check_range(problems, (*where, "containerPort"), port.containerPort, 1, 65535)
        check_range(problems, (*where, "hostPort"), port.hostPort or None, 1, 65535)
        check_choice(problems, (*where, "protocol"), port.protocol, PROTOCOLS)
        if port.name is not None:
            check_text(problems, (*where, "name"), port.name, port_name)
        if port.hostIP:
            check_text(problems, (*where, "hostIP"), port.hostIP, ip_address)
        if spec.hostNetwork and port.hostPort and port.hostPort != port.containerPort:
            problems.add(
                (*where, "hostPort"),
                f"expected the containerPort {port.containerPort} with hostNetwork, got {port.hostPort}",
            )
    check_unique(problems, (((*path, i, "name"), port.name) for i, port in enumerate(ports)), "port name")


def _check_host_ports(spec: core_v1.PodSpec, located: list[tuple[Path, core_v1.Container]], problems: Problems) -> None:
    taken: HostPorts[Path] = HostPorts()
    for path, container in located:
        if path[1] == "initContainers" and container.restartPolicy != "Always":
            continue  # it is gone when the others listen
        for index, port in enumerate(container.ports or []):
            where = (*path, "ports", index, "containerPort" if spec.hostNetwork else "hostPort")
            if other := taken.take(port, where):
                line = problems.line_of(other)
                problems.add(where, f"the host port {port.hostPort}/{port.protocol} is taken on line {line}")


def _check_references_to_containers(
    spec: core_v1.PodSpec, located: list[tuple[Path, core_v1.Container]], problems: Problems
) -> None:
    names = {container.name for _, container in located}
    for path, container in located:
        for index, variable in enumerate(container.env or []):
            reference = variable.valueFrom and variable.valueFrom.resourceFieldRef
            if reference and reference.containerName and reference.containerName not in names:
                where = (*path, "env", index, "valueFrom", "resourceFieldRef", "containerName")
                problems.add(where, f"the pod has no container {quote(reference.containerName)}")
