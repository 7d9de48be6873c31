"""The pod controller: a small kubelet for one host. What is wanted comes in here; a worker a pod makes it so.

Used from the daemon's event loop only. Pods are known by namespace and name; a record's id is the pod's uid, so that a
pod that is made again under the same name shares nothing with the one before.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.errors import Conflict, DeadlineExceeded, NotFound
from sandbox.manifest import Finding, notes, references
from sandbox.pods import admission, views
from sandbox.pods.context import Context, PodEvents
from sandbox.pods.findings import HostCheck
from sandbox.pods.kube import KubeObject, Pod, PodManifest, name_of, namespace_of
from sandbox.pods.objects import ObjectStore, kind_of, object_id
from sandbox.pods.ports import EventSink, ImageResolver, RuntimePort, Tmpfs
from sandbox.pods.record import REMOVED, RUNNING, STOPPED, PodRecord, load_all, now_ns
from sandbox.pods.recovery import Orphans
from sandbox.pods.resize import Patch
from sandbox.pods.resizer import Resizer
from sandbox.pods.settings import PodSettings
from sandbox.pods.translate import Translator
from sandbox.pods.trees import KernelTmpfs
from sandbox.pods.volumes import Volumes
from sandbox.pods.waiting import reached
from sandbox.pods.worker import PodWorker
from sandbox.runtime.status import RuntimeEvent
from sandbox.store.database import Database
from sandbox.timeline import Timeline

logger = logging.getLogger(__name__)

REMEMBERED_PODS = 256

ChangeCallback = Callable[[str, str], None]


@dataclass(frozen=True)
class AppliedPod:
    """What `apply` did. `created` False: it was there already, just so, and was not touched."""

    namespace: str
    name: str
    uid: str
    created: bool
    timeline: Timeline = field(compare=False, default_factory=Timeline)


class PodController:
    """`resolve_image` turns a reference into an image id or raises ImageNotFound; `on_event` is called in order."""

    def __init__(
        self,
        runtime: RuntimePort,
        database: Database,
        settings: PodSettings,
        on_event: EventSink,
        *,
        resolve_image: ImageResolver,
        tmpfs: Tmpfs | None = None,
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._settings = settings
        self._on_event = on_event
        self._resolve_image = resolve_image
        self._objects = ObjectStore(database)
        self._volumes = Volumes(settings, self._objects, tmpfs or KernelTmpfs())
        self._translator = Translator(settings, self._objects, self._volumes)
        self._context = Context(
            runtime, database, settings, self._translator, self._volumes, on_event, self._record_changed
        )
        self._workers: dict[tuple[str, str], PodWorker] = {}
        self._by_sandbox: dict[str, PodWorker] = {}
        self._gone: dict[str, PodWorker] = {}
        """By uid, the last that went: whoever applied them may not have begun to wait yet."""
        self._subscribers: list[ChangeCallback] = []
        self._resizer = Resizer(self._context)
        self._orphans = Orphans(runtime, settings, self._volumes)
        runtime.subscribe(self._runtime_event)

    # Wanting ------------------------------------------------------------------------------------------------------

    async def apply(
        self, objects: Sequence[KubeObject], timeline: Timeline, *, wait: bool = True, remove_when_done: bool = False
    ) -> list[AppliedPod]:
        """Takes ConfigMaps, Secrets and pods. Everything is checked before anything is stored or made.

        A pod that exists with the same manifest is left alone (started again if it was stopped); with other limits it
        is resized, before anything else is made; with other differences it is a Conflict. `wait`: the caller goes on
        to `wait` for the pods; a pod whose first start fails is then removed again, and the error raised there.
        Raises InvalidInput, Conflict.
        """
        pods = [PodManifest.of(thing) for thing in objects if isinstance(thing, Pod)]
        applied: list[AppliedPod] = []
        fresh: list[PodWorker] = []
        await self._resizer.run(pods, self._workers, lambda: self._check_new(objects))
        with self._database.transaction():
            with timeline.span("validate"):
                for thing in objects:
                    if not isinstance(thing, Pod):
                        self._objects.put(thing)
                wanted = [(pod, self._existing(pod)) for pod in pods]
                for pod, existing in wanted:
                    if existing is None:
                        admission.check_pod(self._translator, self._volumes, pod)
            with timeline.span("image"):
                admission.check_images([pod for pod, existing in wanted if existing is None], self._resolve_image)
            with timeline.span("record"):
                for pod, existing in wanted:
                    worker = existing or self._admit(pod, remove_when_done)
                    if existing is None:
                        fresh.append(worker)
                    record = worker.record
                    applied.append(AppliedPod(*record.key, record.uid, existing is None, worker.timeline))
        for worker in fresh:
            self._workers[worker.record.key] = worker
            worker.timeline.spans.extend(timeline.spans)
            worker.strict = wait
            self._announce(worker)
            worker.start()
        for _, existing in wanted:
            if existing is not None and existing.record.desired == STOPPED:
                self._start_again(existing)
        return applied

    def preview(self, objects: Sequence[KubeObject]) -> list[admission.Preview]:
        """What `apply` would ask the runtime for; checks the same and leaves nothing. Raises as `apply` does."""
        with self._only_looking(objects) as pods:
            admission.check_images(pods, self._resolve_image)
            return [admission.preview_pod(self._translator, self._volumes, pod) for pod in pods]

    def findings(self, objects: Sequence[KubeObject]) -> list[Finding]:
        """Everything that this host has against the new pods among `objects`, with its place; leaves nothing."""
        check = HostCheck(self._runtime, self._translator, self._volumes, self._resolve_image)
        with self._only_looking(objects) as pods:
            new = [pod for pod in pods if (pod.namespace, pod.name) not in self._workers]
            return [finding for pod in new for finding in check.findings(pod)]

    @contextmanager
    def _only_looking(self, objects: Sequence[KubeObject]) -> Iterator[list[PodManifest]]:
        """The pods among `objects`, while the others are there as if they had been applied."""
        with suppress(_Rollback), self._database.transaction():
            for thing in objects:
                if not isinstance(thing, Pod):
                    self._objects.put(thing)
            yield [PodManifest.of(thing) for thing in objects if isinstance(thing, Pod)]
            raise _Rollback

    def _check_new(self, objects: Sequence[KubeObject]) -> None:
        """Raises what keeps the new pods among `objects` from being made; leaves nothing."""
        with self._only_looking(objects) as pods:
            new = [pod for pod in pods if (pod.namespace, pod.name) not in self._workers]
            for pod in new:
                admission.check_pod(self._translator, self._volumes, pod)
            admission.check_images(new, self._resolve_image)

    async def resize(self, namespace: str, name: str, patch: Patch) -> list[str]:
        """New limits for a container of a pod that runs; what changed, in words.

        Restarts that its resizePolicy asks for follow: `wait` for `resized`. Raises NotFound, InvalidInput (also for
        memory below the present use), Conflict.
        """
        return await self._resizer.patch(self._worker(namespace, name), patch)

    async def stop(self, namespace: str, name: str, grace_s: float | None = None) -> None:
        """Ends the pod's containers and keeps its record and logs. Idempotent. Raises NotFound."""
        worker = self._worker(namespace, name)
        worker.want(STOPPED, grace_s)
        while not worker.gone and not worker.record.settled:
            if worker.teardown_error is not None:
                raise worker.teardown_error
            await worker.changed()

    async def delete(self, namespace: str, name: str, *, force: bool = False, grace_s: float | None = None) -> None:
        """Removes the pod and all that is its. `force`: no grace. Returns when it is gone.

        Raises NotFound, or the error that keeps it (the removal goes on in the background).
        """
        worker = self._worker(namespace, name)
        worker.want(REMOVED, 0.0 if force else grace_s)
        while not worker.gone:
            if worker.teardown_error is not None:
                raise worker.teardown_error
            await worker.changed()

    async def down(self, objects: Sequence[KubeObject], *, grace_s: float | None = None) -> list[str]:
        """Removes what a manifest names, as `kind/namespace/name`; what is not there is no error.

        A ConfigMap or Secret that a pod which stays needs is kept.
        """
        removed: list[str] = []
        pods = [(namespace_of(t), name_of(t)) for t in objects if isinstance(t, Pod)]
        present = [key for key in dict.fromkeys(pods) if key in self._workers]
        results = await asyncio.gather(*(self.delete(*key, grace_s=grace_s) for key in present), return_exceptions=True)
        removed += [object_id("Pod", *key) for key, result in zip(present, results, strict=True) if result is None]
        needed = {(r.kind, r.namespace, r.name) for w in self._workers.values() for r in references(w.pod.source)}
        for thing in objects:
            identity = (kind_of(thing), namespace_of(thing), name_of(thing))
            if not isinstance(thing, Pod) and identity not in needed and self._objects.delete(*identity):
                removed.append(object_id(*identity))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, NotFound):
                raise result
        return removed

    # Looking ------------------------------------------------------------------------------------------------------

    def get(self, namespace: str, name: str) -> dict[str, Any]:
        """The Pod object, with its status. Raises NotFound."""
        return self._worker(namespace, name).object()

    def list(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """Pod objects by namespace and name; None: of all namespaces."""
        return [w.object() for key, w in sorted(self._workers.items()) if namespace in (None, key[0])]

    def describe(self, namespace: str, name: str) -> dict[str, Any]:
        """The Pod object, and what it is made of on this host. Raises NotFound."""
        worker = self._worker(namespace, name)
        return {"pod": worker.object(), "runtime": views.runtime_view(self._runtime, self._settings, worker.record)}

    def container_id(self, namespace: str, name: str, container: str = "") -> str:
        """The runtime's id of a running container (the first app container by default). Raises NotFound, Conflict."""
        return views.running_container(self._worker(namespace, name).record, container).container_id

    def log_path(self, namespace: str, name: str, container: str = "", *, previous: bool = False) -> Path:
        """The log file of the present or the previous attempt. It may not exist yet. Raises NotFound."""
        return views.log_path(self._settings, self._worker(namespace, name).record, container, previous)

    def timeline(self, namespace: str, name: str) -> Timeline:
        """Where the time of the pod's first start went. Raises NotFound."""
        return self._worker(namespace, name).timeline

    def object_keys(self, kind: str, namespace: str, name: str) -> frozenset[str] | None:
        """The keys of a stored ConfigMap or Secret, None when there is none (`manifest.references.Lookup`)."""
        data = self._objects.read(kind, namespace, name)
        return None if data is None else frozenset(data)

    def images_in_use(self) -> set[str]:
        """References and ids of the images of all pods, also of those that have ended."""
        used: set[str] = set()
        for worker in self._workers.values():
            used |= {c.image_id for c in worker.record.containers if c.image_id}
            used |= {c.image or "" for c in worker.pod.containers}
        return used

    async def wait(
        self, namespace: str, name: str, condition: str, timeout_s: float | None = None, *, uid: str = ""
    ) -> dict[str, Any]:
        """The Pod object once it is `ready` (or has succeeded) or `done` (finished or stopped, and cleared away).

        `uid` means this very pod, even if it has come and gone before the call.
        Raises NotFound, DeadlineExceeded, the error of a failed first start (the pod is gone then), and SandboxError
        when a pod that was to get ready failed or was removed.
        """
        worker = self._gone.get(uid) or self._worker(namespace, name)
        try:
            async with asyncio.timeout(timeout_s):
                while not reached(worker, condition):
                    await worker.changed()
        except TimeoutError:
            worker.strict = False
            raise DeadlineExceeded(
                f"pod {namespace}/{name} was not {condition} after {timeout_s:g} seconds",
                operation="wait",
                subject=f"{namespace}/{name}",
                hint=f"see `sandbox describe {name}`; the pod goes on",
            ) from None
        except asyncio.CancelledError:
            worker.strict = False  # nobody is there to be told: the pod stays, and is tried again
            raise
        return worker.object()

    def subscribe(self, callback: ChangeCallback) -> Callable[[], None]:
        """`callback(namespace, name)` after every change of a pod; returns what ends it."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    # Life of the daemon -------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """After the runtime has recovered: takes every stored pod up where it was, removes what belongs to none.

        Returns when the workers are on their way, not when they are done: a pod that is stuck holds up nobody.
        """
        for record in load_all(self._database):
            worker = PodWorker(self._context, record, PodManifest.from_json(record.manifest))
            self._workers[record.key] = worker
            if record.sandbox_id:
                self._by_sandbox[record.sandbox_id] = worker
        self._orphans.clear([worker.record for worker in self._workers.values()])
        for worker in self._workers.values():
            worker.start()

    async def close(self) -> None:
        """Ends the workers; the pods run on."""
        await self._orphans.close()
        await asyncio.gather(*(worker.close() for worker in self._workers.values()))

    # Inner workings -----------------------------------------------------------------------------------------------

    def _worker(self, namespace: str, name: str) -> PodWorker:
        worker = self._workers.get((namespace, name))
        if worker is None:
            raise NotFound(
                f"pod {namespace}/{name} does not exist", operation="find pod", subject=f"{namespace}/{name}"
            )
        return worker

    def _existing(self, pod: PodManifest) -> PodWorker | None:
        worker = self._workers.get((pod.namespace, pod.name))
        if worker is None:
            return None
        subject = "/".join(worker.record.key)
        if worker.record.desired == REMOVED:
            raise Conflict(f"pod {subject} is being removed", operation="apply", subject=subject, hint="try again")
        if worker.record.manifest != pod.to_json():
            raise Conflict(
                f"pod {subject} exists with another manifest",
                operation="apply",
                subject=subject,
                hint=f"remove it first with `sandbox rm {worker.record.name}`",
            )
        return worker

    def _admit(self, pod: PodManifest, remove_when_done: bool) -> PodWorker:
        record = PodRecord(
            uid=str(uuid.uuid4()),
            namespace=pod.namespace,
            name=pod.name,
            manifest=pod.to_json(),
            created_ns=now_ns(),
            remove_when_done=remove_when_done,
            containers=admission.container_records(pod),
        )
        self._context.store(record)
        return PodWorker(self._context, record, pod)

    def _announce(self, worker: PodWorker) -> None:
        events = PodEvents(self._on_event, worker.record)
        for note in notes(worker.pod.source):
            events.normal("FieldHasNoEffect", note)

    def _start_again(self, worker: PodWorker) -> None:
        record = worker.record
        for container in record.containers:
            if container.termination is not None:
                container.begin_attempt()
                container.waiting_reason = ""
        record.settled = record.initialized = record.resizing = False
        record.started_ns, record.grace_s, record.finish = 0, None, None
        worker.want(RUNNING, None)

    def _record_changed(self, record: PodRecord) -> None:
        worker = self._workers.get(record.key)
        if worker is None or worker.record is not record:
            return
        if record.sandbox_id:
            self._by_sandbox[record.sandbox_id] = worker
        if worker.gone:
            del self._workers[record.key]
            self._gone[record.uid] = worker
            if len(self._gone) > REMEMBERED_PODS:
                del self._gone[next(iter(self._gone))]
        if worker.gone or not record.sandbox_id:
            self._by_sandbox = {id: w for id, w in self._by_sandbox.items() if w is not worker}
        worker.notify()
        for callback in list(self._subscribers):
            callback(*record.key)

    def _runtime_event(self, event: RuntimeEvent) -> None:
        worker = self._by_sandbox.get(event.pod_sandbox_id)
        if worker is None:
            return
        if event.kind == "oom":
            worker.out_of_memory(event.container_id)
        elif event.kind != "started":
            worker.wake()


class _Rollback(Exception):
    """Ends a transaction whose writes were only for looking."""
