"""Which pod and container a request means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from sandbox.daemon.api.app import SERVICES
from sandbox.errors import Conflict, NotFound

STATUS_KEYS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
DEFAULT_CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True)
class Target:
    """One container of a pod: the pod as Kubernetes JSON, the container's spec and status."""

    pod: dict[str, Any]
    spec: dict[str, Any]
    status: dict[str, Any]
    is_init: bool

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def state(self) -> dict[str, Any]:
        return self.status.get("state") or {}

    @property
    def ended_for_good(self) -> bool:
        """True when this container will never run again in this pod."""
        if self.pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return True
        terminated = self.state.get("terminated")
        if terminated is None:
            return False
        policy = self.spec.get("restartPolicy") or self.pod["spec"].get("restartPolicy", "Always")
        if self.is_init and policy == "Always" and "restartPolicy" not in self.spec:
            policy = "OnFailure"
        return bool(policy == "Never" or (policy == "OnFailure" and terminated.get("exitCode") == 0))

    def running_id(self) -> str:
        """The runtime's id of the running instance. Raises Conflict when there is none."""
        if "running" not in self.state:
            state = next(iter(self.state), "waiting")
            reason = (self.state.get(state) or {}).get("reason", "")
            raise Conflict(
                f"container {self.name!r} is not running ({state}{f': {reason}' if reason else ''})",
                subject=self.name,
                hint="see `sandbox describe`",
            )
        return container_id(self.status)


def container_id(status: dict[str, Any]) -> str:
    """`containerID` without its scheme."""
    return str(status.get("containerID", "")).rpartition("://")[2]


def pod_of(request: web.Request) -> dict[str, Any]:
    """The pod that the path names. Raises NotFound."""
    pod: dict[str, Any] = request.app[SERVICES].controller.get(
        request.match_info["namespace"], request.match_info["name"]
    )
    return pod


def target_of(pod: dict[str, Any], container: str = "") -> Target:
    """The named container; without a name the default one, as kubectl chooses: annotation, else the first."""
    specs = {
        spec["name"]: (spec, key == "initContainers")
        for key in ("containers", "initContainers", "ephemeralContainers")
        for spec in pod["spec"].get(key) or ()
    }
    annotations = pod["metadata"].get("annotations") or {}
    name = container or annotations.get(DEFAULT_CONTAINER_ANNOTATION, "") or next(iter(specs), "")
    if name not in specs:
        raise NotFound(
            f"pod {pod['metadata']['name']!r} has no container {name!r}",
            subject=name,
            hint=f"its containers are {', '.join(specs)}",
        )
    spec, is_init = specs[name]
    statuses = (s for key in STATUS_KEYS for s in pod.get("status", {}).get(key) or ())
    return Target(pod, spec, next((s for s in statuses if s["name"] == name), {}), is_init)


def log_directory(root: Path, pod: dict[str, Any], container: str) -> Path:
    """ROOT/logs/<namespace>_<pod>_<uid>/<container>, as the kubelet names it."""
    metadata = pod["metadata"]
    return root / "logs" / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}" / container
