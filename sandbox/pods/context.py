"""What all workers of a controller share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.pods import status
from sandbox.pods.ports import EventSink, RuntimePort
from sandbox.pods.record import PodRecord, save
from sandbox.pods.settings import PodSettings
from sandbox.pods.translate import Translator
from sandbox.pods.volumes import Volumes
from sandbox.store.database import Database

NORMAL, WARNING = "Normal", "Warning"


@dataclass(frozen=True)
class Context:
    """`changed` is called after every stored change of a pod."""

    runtime: RuntimePort
    database: Database
    settings: PodSettings
    translator: Translator
    volumes: Volumes
    on_event: EventSink
    changed: Callable[[PodRecord], None]

    def store(self, record: PodRecord) -> None:
        """Writes the record, its conditions brought up to date, and tells those who watch."""
        record.conditions = status.current_conditions(record)
        save(self.database, record)
        self.changed(record)


@dataclass(frozen=True)
class PodEvents:
    """Events of one pod, with the reasons of the kubelet (`pkg/kubelet/events/event.go`) where it has one."""

    sink: EventSink
    record: PodRecord

    def normal(self, reason: str, message: str, container: str = "") -> None:
        self.sink(NORMAL, reason, message, self.record.namespace, self.record.name, container)

    def warning(self, reason: str, message: str, container: str = "") -> None:
        self.sink(WARNING, reason, message, self.record.namespace, self.record.name, container)
