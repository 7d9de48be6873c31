"""Pods for the time of a measurement, through the daemon's HTTP API as any other client would make them."""

from __future__ import annotations

import json
import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sandbox.cli.client import ApiError, Client, target
from sandbox.errors import DaemonUnavailable, DeadlineExceeded, NotFound, SandboxError
from sandbox.experiments.interrupts import undisturbed

T = TypeVar("T")
IMAGE = "localhost/busybox"
POLL_S = 0.01
READING_S = 0.02
REMOVE_TIMEOUT_S = 180.0
CGROUPS = Path("/sys/fs/cgroup")


def until(condition: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """The first true value of `condition`. Raises DeadlineExceeded that names `what`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"{what} did not come within {timeout_s:g} s", operation="wait", subject=what)
        time.sleep(POLL_S)


def shell_container(name: str, script: str, **more: Any) -> dict[str, Any]:
    """A busybox container that runs `script`."""
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **more}


def pod_manifest(
    name: str, *, namespace: str, containers: Sequence[dict[str, Any]], annotations: dict[str, str], **spec: Any
) -> dict[str, Any]:
    """A Pod; `spec` are further fields of its spec."""
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}
    metadata = {"name": name, "namespace": namespace, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


class LivePod:
    """A context manager: the pod is made at its beginning and removed at its end, also when Ctrl-C ends it."""

    def __init__(
        self, client: Client, manifest: dict[str, Any], *, wait: str = "ready", timeout_s: float = 30.0
    ) -> None:
        self.client = client
        self.manifest = manifest
        self.name = str(manifest["metadata"]["name"])
        self.namespace = str(manifest["metadata"]["namespace"])
        self._wait, self._timeout_s = wait, timeout_s

    def __enter__(self) -> LivePod:
        try:
            self.create()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.remove()

    def create(self) -> None:
        """Returns when it is ready. Raises ApiError: the manifest is wrong, or a container could not be started."""
        body = {
            "files": [{"name": f"{self.name}.json", "content": json.dumps(self.manifest)}],
            "wait": self._wait,
            "timeoutSeconds": self._timeout_s,
        }
        with self.client.request("POST", target("v1", "apply"), body, stream=True) as response:
            events = list(response.events())
        errors = [event["error"] for event in events if event.get("type") == "error"]
        if errors:
            raise ApiError(errors)
        if not events or events[-1].get("type") != "end":
            raise DaemonUnavailable("the daemon ended before the pod was ready", operation="make a pod")

    def path(self, *segments: str, query: Any = ()) -> str:
        return target("v1", "namespaces", self.namespace, "pods", self.name, *segments, query=query)

    def remove(self) -> None:
        """Kills and removes the pod. Idempotent; a second Ctrl-C does not cut it short.

        Tried again while a process waits for I/O that a limit holds back: nothing can kill it before.
        """
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        with undisturbed():
            while True:
                try:
                    self.client.call("DELETE", self.path(query=[("force", 1), ("graceSeconds", 0)]))
                    return
                except ApiError as error:
                    first = error.errors[0]
                    if first.get("reason") == NotFound.reason:
                        return
                    if first.get("operation") != "kill" or time.monotonic() > deadline:
                        raise

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.client.get(self.path())["status"]
        return status

    def container_status(self, name: str) -> dict[str, Any]:
        """The Kubernetes container status; empty before there is one."""
        return next((s for s in self.status().get("containerStatuses") or () if s["name"] == name), {})

    def ended(self, container: str) -> dict[str, Any] | None:
        """The `terminated` state of a container, None while it has not ended.

        Raises SandboxError when it cannot be started: nothing would ever end.
        """
        status = self.status()
        if status.get("phase") == "Pending" and status.get("message"):
            raise SandboxError(str(status["message"]), operation="start a pod", subject=self.name)
        ours: dict[str, Any] = next((s for s in status.get("containerStatuses") or () if s["name"] == container), {})
        state = ours.get("state") or {}
        waiting = state.get("waiting") or {}
        if str(waiting.get("reason", "")).endswith(("Error", "ErrImageNeverPull", "BackOff")):
            raise SandboxError(
                f"container {container!r} cannot be started: {waiting.get('message') or waiting['reason']}",
                operation="start a container",
                subject=f"{self.name}/{container}",
            )
        return state.get("terminated") or None

    def termination(self, container: str, timeout_s: float) -> dict[str, Any]:
        """How a container ended, once it has. Raises DeadlineExceeded, or SandboxError as `ended` does."""
        return until(lambda: self.ended(container), timeout_s, f"the end of container {self.name}/{container}")

    def log(self, container: str, *, previous: bool = False, timestamps: bool = False) -> str:
        query: list[tuple[str, str | int]] = [("container", container), ("previous", int(previous))]
        if timestamps:
            query.append(("timestamps", 1))
        with self.client.request("GET", self.path("log", query=query)) as response:
            return response.read().decode("utf-8", "replace")

    def runtime(self) -> dict[str, Any]:
        """What stands behind the pod in the kernel, as `describe` tells it."""
        found: dict[str, Any] = self.client.get(self.path("describe"))["runtime"]
        return found

    def usage(self) -> dict[str, Any]:
        """The counters of the pod, with `containers`. Raises NotFound when it does not run."""
        for pod in self.client.get(target("v1", "stats", query=[("namespace", self.namespace)]))["pods"]:
            if pod["name"] == self.name:
                usage: dict[str, Any] = pod
                return usage
        raise NotFound(f"there is no pod {self.name!r} that runs", operation="read its use", subject=self.name)

    def container_usage(self, container: str) -> dict[str, Any]:
        """The counters of one container. Raises NotFound."""
        for usage in self.usage().get("containers") or ():
            if usage["name"] == container:
                found: dict[str, Any] = usage
                return found
        raise NotFound(f"container {container!r} of pod {self.name!r} does not run", subject=container)


def slope(readings: Sequence[tuple[float, float]]) -> float:
    """What a counter grows by in a second: the least-squares line through (seconds, count).

    A throttled counter climbs in stairs of the kernel's slices. Its two ends alone are wrong by up to a stair.
    """
    origin, base = readings[0]
    fit = statistics.linear_regression([t - origin for t, _ in readings], [count - base for _, count in readings])
    return fit.slope


class PodSet:
    """The pods of one measurement. Names of containers are unique among all of them."""

    def __init__(self, pods: Sequence[LivePod]) -> None:
        self._pods = {c["name"]: pod for pod in pods for c in pod.manifest["spec"]["containers"]}

    def of(self, container: str) -> LivePod:
        return self._pods[container]

    def __contains__(self, container: str) -> bool:
        return container in self._pods

    def usage(self) -> dict[str, dict[str, Any]]:
        """The counters of every container that runs, from one answer."""
        one = next(iter(self._pods.values()))
        ours = {pod.name for pod in self._pods.values()}
        pods = one.client.get(target("v1", "stats", query=[("namespace", one.namespace)]))["pods"]
        return {c["name"]: c for pod in pods if pod["name"] in ours for c in pod.get("containers") or ()}

    def kernel_files(self, container: str, names: Sequence[str]) -> dict[str, str]:
        """What files of its cgroup say; without those that this host, or this cgroup any more, does not have."""
        views = self.of(container).runtime()["containers"]
        path = next((view.get("cgroupPath", "") for view in views if view["name"] == container), "").strip("/")
        found: dict[str, str] = {}
        for name in names if path else ():
            for mount in (CGROUPS, *sorted(CGROUPS.iterdir())):
                with suppress(OSError):
                    text = (mount / path / name).read_text(encoding="ascii").strip()
                    if text:
                        found[name] = text[:200]
        return found


class PodFactory:
    """Makes pods of one experiment: names that nobody else has, in a namespace of their own."""

    NAMESPACE = "experiments"

    def __init__(self, client: Client, experiment: str) -> None:
        self.client = client
        self._prefix = f"{experiment}-{secrets.token_hex(3)}"
        self._count = 0

    @contextmanager
    def pods(self, manifests: Sequence[dict[str, Any]], wait: str = "ready") -> Iterator[PodSet]:
        """One pod for each of `manifests` (metadata and spec as declared), removed at the end in any case."""
        self._count += 1
        with ExitStack() as stack:
            made = []
            for declared in manifests:
                metadata, spec = declared["metadata"], declared["spec"]
                name = f"{self._prefix}-{self._count}-{metadata['name']}"
                manifest = pod_manifest(
                    name, namespace=self.NAMESPACE, annotations=metadata.get("annotations", {}), **spec
                )
                made.append(stack.enter_context(LivePod(self.client, manifest, wait=wait)))
            yield PodSet(made)

    def daemon(self) -> dict[str, Any]:
        """What the daemon says of itself."""
        answer: dict[str, Any] = self.client.get(target("v1", "version"))
        return answer


def wait_gone(client: Client, timeout_s: float) -> None:
    """Returns when nothing answers at the socket any more."""

    def gone() -> bool:
        with suppress(DaemonUnavailable):
            client.connect().close()
            return False
        return True

    until(gone, timeout_s, "the end of the daemon")
