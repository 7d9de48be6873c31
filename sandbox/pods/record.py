"""What the controller remembers of a pod: its manifest, what is wanted, and how far each container got.

    desired     running ──▶ stopped ──▶ running …            any ──▶ removed ──▶ (no record)
    container   waiting ──▶ running ──▶ terminated ──▶ waiting (next attempt) …

Records are written before the runtime is touched: a state says what was about to happen, the runtime says what did.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sandbox.runtime.codec import from_json, to_json
from sandbox.store.database import Database

RUNNING, STOPPED, REMOVED = "running", "stopped", "removed"
APP, INIT, SIDECAR = "app", "init", "sidecar"
KIND_POD, KIND_OBJECT = "pods", "objects"


def now_ns() -> int:
    """Wall clock: it is stored and compared after a restart of the daemon."""
    return time.time_ns()


@dataclass(frozen=True)
class Termination:
    """How one instance of a container ended. Times are nanoseconds of the wall clock."""

    container_id: str
    exit_code: int
    reason: str
    signal: int = 0
    message: str = ""
    started_ns: int = 0
    finished_ns: int = 0


@dataclass
class Backoff:
    """The kubelet's back-off: the first restart is immediate, then base, 2·base … max after the end of each run.

    `delay_s` 0: no restart yet. Everything is stored, so that a restarted daemon goes on where it was.
    """

    delay_s: float = 0.0
    updated_ns: int = 0

    def ready_ns(self, finished_ns: int, reset_s: float) -> int:
        """When a run that ended at `finished_ns` may be followed by the next."""
        if not self.delay_s or finished_ns - self.updated_ns > reset_s * 1e9:
            return finished_ns
        return finished_ns + int(self.delay_s * 1e9)

    def advance(self, finished_ns: int, base_s: float, max_s: float, reset_s: float) -> None:
        """To be called when the next run begins (client-go `flowcontrol.Backoff.Next`)."""
        expired = finished_ns - self.updated_ns > reset_s * 1e9
        self.delay_s = base_s if not self.delay_s or expired else min(self.delay_s * 2, max_s)
        self.updated_ns = now_ns()


@dataclass
class ContainerRecord:
    """One container of the pod over all its attempts."""

    name: str
    kind: str = APP
    container_id: str = ""
    """The present instance in the runtime; empty: none, or not known to have been made."""
    attempt: int = 0
    """Of the present instance, or of the next while there is none; also the restart count."""
    image_id: str = ""
    running: bool = False
    started_ns: int = 0
    termination: Termination | None = None
    """Of the present attempt."""
    last_termination: Termination | None = None
    """Of the attempt before."""
    waiting_reason: str = ""
    waiting_message: str = ""
    retry_ns: int = 0
    """Not before this may a failed creation be tried again."""
    backoff: Backoff = field(default_factory=Backoff)
    resources: dict[str, Any] | None = None
    """Requests and limits of the present instance, as its status shows them."""
    resize_restart: bool = False
    """The present instance ends to be started again, at once, with new limits."""

    @property
    def succeeded(self) -> bool:
        return self.termination is not None and self.termination.exit_code == 0

    def begin_attempt(self) -> None:
        """The end of the last attempt moves aside; the record shows a container that is about to be created."""
        if self.termination is not None:
            self.last_termination = self.termination
            self.attempt += 1
        self.termination = None
        self.container_id = ""
        self.running = False
        self.started_ns = 0
        self.resize_restart = False
        self.waiting_reason, self.waiting_message = "ContainerCreating", ""

    def end_attempt(self, termination: Termination) -> None:
        self.running = False
        self.termination = termination
        self.waiting_reason = self.waiting_message = ""


@dataclass(frozen=True)
class Finish:
    """The pod will run nothing any more. `phase` is Succeeded or Failed."""

    phase: str
    reason: str = ""
    message: str = ""


@dataclass
class Condition:
    """A pod condition; the time is that of its last change."""

    type: str
    status: str
    transition_ns: int
    reason: str = ""
    message: str = ""


@dataclass
class PodRecord:
    """`sandbox_id` empty: no pod sandbox, or none known to have been made. `grace_s` None: the pod's own."""

    uid: str
    namespace: str
    name: str
    manifest: dict[str, Any]
    created_ns: int
    desired: str = RUNNING
    remove_when_done: bool = False
    deleted_ns: int = 0
    grace_s: float | None = None
    sandbox_id: str = ""
    sandbox_attempt: int = 0
    sandbox_retry_ns: int = 0
    sandbox_backoff: Backoff = field(default_factory=Backoff)
    addresses: tuple[str, ...] = ()
    started_ns: int = 0
    waiting_reason: str = ""
    waiting_message: str = ""
    """Why there is no pod sandbox yet."""
    initialized: bool = False
    """In the present pod sandbox the init containers are done."""
    resizing: bool = False
    """Limits of the manifest are not all in effect yet."""
    finish: Finish | None = None
    settled: bool = False
    """After `finish` or `stopped`: nothing of the pod is left in the runtime."""
    conditions: tuple[Condition, ...] = ()
    containers: tuple[ContainerRecord, ...] = ()

    def container(self, name: str) -> ContainerRecord | None:
        return next((c for c in self.containers if c.name == name), None)

    def of_kind(self, *kinds: str) -> list[ContainerRecord]:
        return [c for c in self.containers if c.kind in kinds]

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


def save(database: Database, record: PodRecord) -> None:
    database.put(KIND_POD, record.uid, to_json(record), owner=f"{record.namespace}/{record.name}")


def load_all(database: Database) -> list[PodRecord]:
    return [from_json(PodRecord, body) for _, body in database.all(KIND_POD)]


def drop(database: Database, uid: str) -> None:
    """Idempotent."""
    database.delete(KIND_POD, uid)
