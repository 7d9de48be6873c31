"""What a pod's JSON amounts to in one row: kubectl's READY, STATUS and RESTARTS columns (`printPod`)."""

from __future__ import annotations

from sandbox.cli.style import age, epoch

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Pod = Mapping[str, Any]


def status_of(pod: Pod) -> str:
    """The STATUS column: the reason of what holds the pod up, else its phase."""
    status = pod.get("status", {})
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    if pod["metadata"].get("deletionTimestamp") and status.get("phase") not in ("Succeeded", "Failed"):
        return "Terminating"
    return _init_status(pod) or _container_status(status, reason)


def _init_status(pod: Pod) -> str:
    """`Init:…` while an init container that must end has not ended well; empty afterwards."""
    specs = {spec["name"]: spec for spec in pod["spec"].get("initContainers") or ()}
    statuses = pod.get("status", {}).get("initContainerStatuses") or ()
    for done, container in enumerate(statuses):
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated is not None:
            if terminated.get("exitCode") == 0:
                continue
            return "Init:" + (terminated.get("reason") or _ending(terminated))
        sidecar = specs.get(container["name"], {}).get("restartPolicy") == "Always"
        if sidecar and container.get("started"):
            continue
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{done}/{len(specs)}"
    return ""


def _container_status(status: Mapping[str, Any], reason: str) -> str:
    running = False
    for container in reversed(status.get("containerStatuses") or ()):
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if waiting is not None and waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated is not None:
            reason = terminated.get("reason") or _ending(terminated)
        elif container.get("ready") and "running" in state:
            running = True
    if reason == "Completed" and running:
        return "Running" if condition(status, "Ready") == "True" else "NotReady"
    return str(reason)


def _ending(terminated: Mapping[str, Any]) -> str:
    signal = terminated.get("signal")
    return f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode', '?')}"


def condition(status: Mapping[str, Any], kind: str) -> str:
    """The status of one condition, empty when it is not there."""
    return next((str(c.get("status", "")) for c in status.get("conditions") or () if c.get("type") == kind), "")


def counted(pod: Pod) -> list[Mapping[str, Any]]:
    """The container statuses that READY and RESTARTS count: the app containers and the sidecars."""
    sidecars = {s["name"] for s in pod["spec"].get("initContainers") or () if s.get("restartPolicy") == "Always"}
    status = pod.get("status", {})
    extra = [s for s in status.get("initContainerStatuses") or () if s["name"] in sidecars]
    return [*extra, *(status.get("containerStatuses") or ())]


def ready_of(pod: Pod) -> str:
    sidecars = sum(1 for s in pod["spec"].get("initContainers") or () if s.get("restartPolicy") == "Always")
    total = sidecars + len(pod["spec"].get("containers") or ())
    return f"{sum(1 for s in counted(pod) if s.get('ready'))}/{total}"


def restarts_of(pod: Pod, now: float) -> str:
    """The number of restarts and, after the first, how long ago the last was."""
    statuses = [*(pod.get("status", {}).get("initContainerStatuses") or ()), *counted(pod)]
    unique = {s["name"]: s for s in statuses}.values()
    count = sum(int(s.get("restartCount") or 0) for s in unique)
    ends = [((s.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or "" for s in unique]
    last = max(ends, key=epoch, default="")
    return f"{count} ({age(last, now)} ago)" if count and last else str(count)


def addresses_of(pod: Pod) -> str:
    status = pod.get("status", {})
    several = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    return ",".join(several) or str(status.get("podIP") or "<none>")


def row(pod: Pod, now: float, *, wide: bool = False, namespace: bool = False) -> list[str]:
    """The cells of `header`."""
    metadata = pod["metadata"]
    cells = [metadata["namespace"]] if namespace else []
    cells += [metadata["name"], ready_of(pod), status_of(pod), restarts_of(pod, now), addresses_of(pod)]
    cells.append(age(str(metadata.get("creationTimestamp") or ""), now))
    if wide:
        images = ",".join(dict.fromkeys(c.get("image", "") for c in pod["spec"].get("containers") or ()))
        qos = str(pod.get("status", {}).get("qosClass") or "<none>")
        cells += [qos, images, str(metadata.get("uid") or "")]
    return cells


def header(*, wide: bool = False, namespace: bool = False) -> list[str]:
    names = ["NAMESPACE"] if namespace else []
    names += ["NAME", "READY", "STATUS", "RESTARTS", "IP", "AGE"]
    return [*names, "QOS", "IMAGES", "UID"] if wide else names
