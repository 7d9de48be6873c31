"""A record as the Pod object a Kubernetes user expects: manifest, metadata and status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sandbox.pods import limits, policy
from sandbox.pods.kube import PodManifest
from sandbox.pods.record import (
    APP,
    INIT,
    REMOVED,
    RUNNING,
    SIDECAR,
    STOPPED,
    Condition,
    ContainerRecord,
    PodRecord,
    Termination,
    now_ns,
)
from sandbox.pods.resize import container_of

CONTAINER_ID_PREFIX = "sandbox://"


def timestamp(time_ns: int) -> str | None:
    """RFC 3339 in whole seconds, as metav1.Time."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time_ns else None


def pod_object(record: PodRecord, pod: PodManifest, host_ip: str) -> dict[str, Any]:
    """The whole object; shares nothing mutable with the record but the manifest's values."""
    metadata = {
        **record.manifest["metadata"],
        "namespace": record.namespace,
        "uid": record.uid,
        "creationTimestamp": timestamp(record.created_ns),
    }
    if record.desired == REMOVED:
        metadata["deletionTimestamp"] = timestamp(record.deleted_ns)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": record.manifest["spec"],
        "status": pod_status(record, pod, host_ip),
    }


def pod_status(record: PodRecord, pod: PodManifest, host_ip: str) -> dict[str, Any]:
    images = {c.name: c.image or "" for c in [*pod.spec.containers, *(pod.spec.initContainers or ())]}
    addresses = [host_ip] if pod.spec.hostNetwork and record.sandbox_id else list(record.addresses)
    reason, message = _reason(record)
    status: dict[str, Any] = {
        "phase": policy.phase(record),
        "conditions": [_condition(condition) for condition in record.conditions],
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "qosClass": limits.qos_class(pod),
        "containerStatuses": [_container(record, c, images) for c in record.of_kind(APP)],
    }
    inits = record.of_kind(INIT, SIDECAR)
    if inits:
        status["initContainerStatuses"] = [_container(record, c, images) for c in inits]
    if addresses:
        status |= {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    if record.started_ns:
        status["startTime"] = timestamp(record.started_ns)
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message
    return status


def _reason(record: PodRecord) -> tuple[str, str]:
    if record.finish is not None:
        return record.finish.reason, record.finish.message
    if record.desired == STOPPED:
        return "Stopped", "the pod was stopped by request"
    return record.waiting_reason, record.waiting_message


def current_conditions(record: PodRecord) -> tuple[Condition, ...]:
    """The conditions as they are now; those that did not change keep their time."""
    finished = record.finish is not None or record.desired == STOPPED
    unready = _unready(record)
    why = ("PodCompleted", "") if finished else ("ContainersNotReady", f"containers with unready status: {unready}")
    ready = policy.is_ready(record)
    init = record.initialized
    wanted = [
        ("PodScheduled", True, "", ""),
        ("PodReadyToStartContainers", bool(record.sandbox_id), "", ""),
        ("Initialized", init, "" if init else "ContainersNotInitialized", ""),
        ("ContainersReady", ready, *(("", "") if ready else why)),
        ("Ready", ready, *(("", "") if ready else why)),
    ]
    if record.resizing:
        wanted.append(("PodResizeInProgress", True, "", ""))
    before = {condition.type: condition for condition in record.conditions}
    result = []
    for kind, value, reason, message in wanted:
        status = "True" if value else "False"
        known = before.get(kind)
        since = known.transition_ns if known and known.status == status else now_ns()
        result.append(Condition(kind, status, since, reason, message))
    return tuple(result)


def _unready(record: PodRecord) -> str:
    return "[" + " ".join(c.name for c in record.of_kind(APP) if not c.running) + "]"


def _condition(condition: Condition) -> dict[str, Any]:
    result = {
        "type": condition.type,
        "status": condition.status,
        "lastProbeTime": None,
        "lastTransitionTime": timestamp(condition.transition_ns),
    }
    if condition.reason:
        result["reason"] = condition.reason
    if condition.message:
        result["message"] = condition.message
    return result


def _container(record: PodRecord, container: ContainerRecord, images: dict[str, str]) -> dict[str, Any]:
    ended = container.termination
    backing_off = ended is not None and _restarts(record, container)
    id = container.container_id or (ended.container_id if ended else "")
    last = ended if backing_off else container.last_termination
    return {
        "name": container.name,
        "image": images.get(container.name, ""),
        "imageID": container.image_id,
        "containerID": CONTAINER_ID_PREFIX + id if id else "",
        "restartCount": container.attempt,
        "ready": container.running if container.kind != INIT else container.succeeded,
        "started": container.running,
        "state": _state(record, container, backing_off),
        "lastState": {"terminated": _terminated(last)} if last else {},
        **_resources(record, container),
    }


def _resources(record: PodRecord, container: ContainerRecord) -> dict[str, Any]:
    """`resources` are in effect; `allocatedResources` the requests that were granted, and will be after a restart."""
    wanted = container_of(record.manifest, container.name).get("resources") or {}
    present = wanted if container.resources is None else container.resources
    result: dict[str, Any] = {"resources": present} if container.running and present else {}
    if wanted.get("requests"):
        result["allocatedResources"] = wanted["requests"]
    return result


def _restarts(record: PodRecord, container: ContainerRecord) -> bool:
    wanted = record.desired == RUNNING and record.finish is None
    return wanted and policy.will_restart(record, container)


def _state(record: PodRecord, container: ContainerRecord, backing_off: bool) -> dict[str, Any]:
    if container.running:
        return {"running": {"startedAt": timestamp(container.started_ns)}}
    if container.termination and not backing_off:
        return {"terminated": _terminated(container.termination)}
    if container.waiting_reason:
        reason = container.waiting_reason
    elif container.resize_restart:
        reason = "ContainerCreating"
    elif backing_off:
        reason = "CrashLoopBackOff"
    else:
        waits_for_init = container.kind == APP and not record.initialized and record.of_kind(INIT, SIDECAR)
        reason = "PodInitializing" if waits_for_init else "ContainerCreating"
    waiting = {"reason": reason}
    if container.waiting_message:
        waiting["message"] = container.waiting_message
    return {"waiting": waiting}


def _terminated(termination: Termination) -> dict[str, Any]:
    result: dict[str, Any] = {
        "exitCode": termination.exit_code,
        "reason": termination.reason,
        "startedAt": timestamp(termination.started_ns),
        "finishedAt": timestamp(termination.finished_ns),
    }
    if termination.signal:
        result["signal"] = termination.signal
    if termination.message:
        result["message"] = termination.message
    if termination.container_id:
        result["containerID"] = CONTAINER_ID_PREFIX + termination.container_id
    return result


def exit_code(pod: dict[str, Any]) -> int:
    """Of a finished Pod object: 0 when it succeeded, else the first exit code that is not 0 (1 when there is none)."""
    if pod["status"]["phase"] == policy.SUCCEEDED:
        return 0
    sidecars = {c["name"] for c in pod["spec"].get("initContainers", []) if c.get("restartPolicy") == "Always"}
    for status in pod["status"].get("initContainerStatuses", []) + pod["status"]["containerStatuses"]:
        code = status["state"].get("terminated", {}).get("exitCode", 0)
        if code and status["name"] not in sidecars:
            return int(code)
    return 1
