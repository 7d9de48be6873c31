"""From the bytes of manifests to objects that can be run: parse, decode, default, validate, look at the whole set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sandbox.errors import ManifestError
from sandbox.manifest.decode import decode_object
from sandbox.manifest.defaults import DEFAULT_NAMESPACE, apply_defaults
from sandbox.manifest.kinds import KINDS, LIST_KINDS, explain_unknown, nearest
from sandbox.manifest.models import KubeObject, Model, Pod, core_v1
from sandbox.manifest.nodes import Entry, Kind, Node, Path, describe, quote
from sandbox.manifest.parse import DEFAULT_LIMITS, Limits, parse
from sandbox.manifest.problems import Finding, Problems, Report, TooManyProblems
from sandbox.manifest.reference import Lookup, check_references, keys_of
from sandbox.manifest.support import check_support
from sandbox.manifest.validate import validate
from sandbox.manifest.validate.host_ports import HostPorts


@dataclass
class _Loaded:
    obj: KubeObject
    problems: Problems

    @property
    def identity(self) -> tuple[str, str, str]:
        metadata = self.obj.metadata
        assert metadata is not None
        return type(self.obj).__name__, metadata.namespace or "", metadata.name or ""


class Manifests:
    """The objects of `files` (name, content) in their order, defaulted and valid; each knows where it was written.

    `namespace` is for objects that name none. Making one only reads, and may be done in a thread: the problems are
    raised by `check`.
    """

    def __init__(
        self,
        files: Sequence[tuple[str, bytes]],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._report = Report()
        self._loaded: list[_Loaded] = []
        with suppress(TooManyProblems):  # the report holds them
            for name, content in files:
                _load_file(name, content, namespace, limits, self._report, self._loaded)
            if not files or (not self._loaded and not self._report.errors):
                where = ", ".join(name for name, _ in files) or "no file"
                problem = ManifestError(f"no object in {where}, expected a Pod", file=files[0][0] if files else "")
                self._report.add(problem)

    def check(self, known: Lookup | None = None) -> list[KubeObject]:
        """The objects, or ManifestError, or ManifestErrors (its subclass) with up to 20 problems.

        `known` tells which ConfigMaps and Secrets exist besides the given ones; without it a reference to one that is
        not given passes (see `references`).
        """
        with suppress(TooManyProblems):
            _check_set(self._loaded, known)
        self._report.raise_if_any()
        return [item.obj for item in self._loaded]

    def refuse(self, findings: Iterable[Finding]) -> None:
        """Raises what somebody else found wrong with the objects of `check`, each at its place in the files."""
        loaded = {id(item.obj): item for item in self._loaded}
        with suppress(TooManyProblems):
            for found in findings:
                loaded[id(found.obj)].problems.add(found.path, found.message, found.hint, key=found.key)
        self._report.raise_if_any()


def load_manifests(
    files: Sequence[tuple[str, bytes]],
    *,
    namespace: str = DEFAULT_NAMESPACE,
    known: Lookup | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[KubeObject]:
    """`Manifests` read and checked at once."""
    return Manifests(files, namespace=namespace, limits=limits).check(known)


def _load_file(
    name: str, content: bytes, namespace: str, limits: Limits, report: Report, loaded: list[_Loaded]
) -> None:
    try:
        documents = parse(name, content, limits)
    except ManifestError as error:
        report.add(error)
        return
    for document in documents:
        _load_node(Problems(report, name, document), namespace, loaded)


def _load_node(problems: Problems, namespace: str, loaded: list[_Loaded]) -> None:
    node = problems.root
    if node.kind is not Kind.MAP:
        problems.at(node, (), f"expected a mapping with apiVersion and kind, got {describe(node)}")
        return
    api_version, kind = _text(node, "apiVersion", problems), _text(node, "kind", problems)
    if api_version is None or kind is None:
        return
    if api_version == "v1" and kind in LIST_KINDS:
        _load_list(node, problems, namespace, loaded)
        return
    entry = KINDS.get((api_version, kind))
    if entry is None or entry.model is None:
        problems.add(("kind",), explain_unknown(api_version, kind))
        return
    obj = decode_object(entry.model, node, (), problems)
    if problems.count:
        return  # what could not be decoded cannot be validated
    check_support(obj, problems)
    apply_defaults(obj, namespace)
    validate(obj, problems)
    loaded.append(_Loaded(obj, problems))


def _text(node: Node, field: str, problems: Problems) -> str | None:
    value = node.get(field)
    if value is None or value.is_null():
        similar = nearest(field, [entry.key.text for entry in node.entries.values()])
        suffix = f', "{similar}" is not it' if similar and similar != field else ""
        problems.at(node, (field,), f"missing, every object needs apiVersion and kind{suffix}")
        return None
    if type(value.value) is not str:
        problems.at(value, (field,), f"expected a string, got {describe(value)}")
        return None
    return value.value


def _load_list(node: Node, problems: Problems, namespace: str, loaded: list[_Loaded]) -> None:
    """`kind: List`. Paths in messages start at the item: its line says which one it is."""
    for name, entry in node.entries.items():
        if name not in ("apiVersion", "kind", "metadata", "items"):
            problems.at(entry.key, (name,), "unknown field of List, which has apiVersion, items, kind, metadata")
    items = node.get("items")
    if items is None or items.is_null():
        return
    if items.kind is not Kind.LIST:
        problems.at(items, ("items",), f"expected a list of objects, got {describe(items)}")
        return
    for item in items.items:
        if item.kind is Kind.MAP and (item.get("kind") or Node(Kind.SCALAR, "", 0, 0)).value in LIST_KINDS:
            problems.at(item, (), "a List cannot hold a List")
        else:
            _load_node(Problems(problems.report, problems.file, item), namespace, loaded)


def _check_set(loaded: list[_Loaded], known: Lookup | None) -> None:
    """What is wrong between objects: the same name twice, the same host port, references to nothing."""
    given: dict[tuple[str, str, str], _Loaded] = {}
    for item in loaded:
        first = given.setdefault(item.identity, item)
        if first is not item:
            kind, namespace, name = item.identity
            place = f"{first.problems.file}:{first.problems.line_of(('metadata', 'name'))}"
            item.problems.add(
                ("metadata", "name"),
                f"duplicate {kind} {quote(name)} in namespace {quote(namespace)}, first at {place}",
            )
    keys = {identity: keys_of(item.obj) for identity, item in given.items() if not isinstance(item.obj, Pod)}
    pods = [(item.obj, item) for item in loaded if isinstance(item.obj, Pod)]
    for pod, item in pods:
        check_references(pod, keys, known, item.problems)
    _check_host_ports([(pod, item) for pod, item in pods if given[item.identity] is item])


def _check_host_ports(pods: list[tuple[Pod, _Loaded]]) -> None:
    taken: HostPorts[_Loaded] = HostPorts()
    for pod, item in pods:
        for path, port in _host_ports(pod):
            other = taken.take(port, item)
            if other is not None and other is not item:  # within a pod it was said already
                name = quote(other.identity[2])
                item.problems.add(path, f"the host port {port.hostPort}/{port.protocol} is taken by pod {name}")


def _host_ports(pod: Pod) -> list[tuple[Path, core_v1.ContainerPort]]:
    found: list[tuple[Path, core_v1.ContainerPort]] = []
    for index, container in enumerate((pod.spec and pod.spec.containers) or []):
        for position, port in enumerate(container.ports or []):
            if port.hostPort:
                found.append((("spec", "containers", index, "ports", position, "hostPort"), port))
    return found


def from_manifest(data: dict[str, Any]) -> KubeObject:
    """The inverse of `to_manifest`, for an object that was loaded before and stored as JSON. Raises ManifestError."""
    entry = KINDS.get((str(data.get("apiVersion")), str(data.get("kind"))))
    if entry is None or entry.model is None:
        raise ManifestError(explain_unknown(str(data.get("apiVersion")), str(data.get("kind"))))
    obj: KubeObject = decode_value(entry.model, data)
    return obj


def decode_value(cls: type[Model], data: dict[str, Any]) -> Any:
    """An instance of `cls` from plain JSON, without defaults or validation. Raises ManifestError."""
    report = Report()
    root = _node_of(data)
    obj = None
    with suppress(TooManyProblems):
        obj = decode_object(cls, root, (), Problems(report, "", root, keep_server_fields=True))
    report.raise_if_any()
    return obj


def _node_of(value: Any) -> Node:
    if isinstance(value, dict):
        entries = {key: Entry(Node(Kind.SCALAR, key, 0, 0, text=key), _node_of(item)) for key, item in value.items()}
        return Node(Kind.MAP, entries, 0, 0)
    if isinstance(value, list | tuple):
        return Node(Kind.LIST, [_node_of(item) for item in value], 0, 0)
    return Node(Kind.SCALAR, value, 0, 0, text=str(value))
