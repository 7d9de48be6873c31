"""Rules of a pod's life as pure functions of its record: what restarts, what is ready, which phase that is."""

from __future__ import annotations

from sandbox.pods.record import APP, INIT, SIDECAR, STOPPED, ContainerRecord, Finish, PodRecord

ALWAYS, ON_FAILURE, NEVER = "Always", "OnFailure", "Never"
PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"


def restart_policy(record: PodRecord) -> str:
    return str(record.manifest["spec"].get("restartPolicy") or ALWAYS)


def will_restart(record: PodRecord, container: ContainerRecord) -> bool:
    """Whether a container that ended runs again, while the pod is wanted."""
    if container.termination is None or container.kind == SIDECAR or container.resize_restart:
        return True
    policy = restart_policy(record)
    if container.kind == INIT or policy == ON_FAILURE:
        return container.termination.exit_code != 0 and policy != NEVER
    return policy == ALWAYS


def init_done(record: PodRecord) -> bool:
    """Init containers have succeeded; sidecars, which are started among them, run."""
    return all(c.succeeded if c.kind == INIT else c.running for c in record.of_kind(INIT, SIDECAR))


def is_ready(record: PodRecord) -> bool:
    return (
        record.finish is None
        and bool(record.sandbox_id)
        and record.initialized
        and all(c.running for c in record.of_kind(SIDECAR, APP))
    )


def natural_finish(record: PodRecord) -> Finish | None:
    """How the pod ended by itself, once nothing of it will run again."""
    for container in record.of_kind(INIT):
        if container.termination and not container.succeeded and not will_restart(record, container):
            return Finish(FAILED, message=_exit_sentence(container))
    apps = record.of_kind(APP)
    if any(c.termination is None or will_restart(record, c) for c in apps):
        return None
    failed = [c for c in apps if not c.succeeded]
    return Finish(FAILED, message=_exit_sentence(failed[0])) if failed else Finish(SUCCEEDED)


def phase(record: PodRecord) -> str:
    """As the kubelet's getPhase; a pod that was stopped has the phase its exit codes give."""
    if record.finish is not None:
        return record.finish.phase
    apps = record.of_kind(APP)
    if record.desired == STOPPED and record.settled:
        return SUCCEEDED if all(c.succeeded for c in apps) else FAILED
    if any(c.running for c in apps) or all(c.termination or c.last_termination for c in apps):
        return RUNNING
    return PENDING


def _exit_sentence(container: ContainerRecord) -> str:
    assert container.termination is not None
    return f"container {container.name} exited with code {container.termination.exit_code}"
