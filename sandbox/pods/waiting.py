"""What `PodController.wait` waits for."""

from __future__ import annotations

from sandbox.errors import InvalidInput, SandboxError
from sandbox.pods import policy
from sandbox.pods.record import RUNNING
from sandbox.pods.worker import PodWorker


def reached(worker: PodWorker, condition: str) -> bool:
    """Whether the pod is `ready` (or has succeeded), `resized` or `done`. Raises why it never will be."""
    if worker.failure is not None:
        if worker.gone:
            raise worker.failure
        return False
    record = worker.record
    if condition == "done":
        return worker.gone or (record.settled and not record.remove_when_done)
    if condition != "ready":
        if condition == "resized":
            return worker.gone or not record.resizing or record.desired != RUNNING or record.finish is not None
        raise InvalidInput(f"{condition!r} is not something to wait for", hint="ready, resized or done")
    if policy.is_ready(record) and not record.resizing:
        return True
    if record.finish is not None and record.finish.phase == policy.SUCCEEDED:
        return True
    if worker.gone or record.finish is not None:
        why = record.finish.message if record.finish is not None else "it was removed"
        subject = "/".join(record.key)
        raise SandboxError(f"pod {subject} did not get ready: {why}", operation="wait", subject=subject)
    return False
