"""The text of `sandbox describe`: from the API's answer to lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sandbox.cli.podview import addresses_of, status_of
from sandbox.cli.style import STATUS_COLOURS, age, clean, style, table

Object = Mapping[str, Any]
LABEL = 18


def describe_pod(answer: Object, now: float, columns: int | None) -> list[str]:
    """`answer` is that of GET …/describe: pod, events, runtime."""
    pod, runtime = answer["pod"], answer.get("runtime") or {}
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    shown = status_of(pod)
    lines = _fields(
        0,
        [
            ("Name", metadata["name"]),
            ("Namespace", metadata["namespace"]),
            ("UID", metadata.get("uid")),
            ("Created", _when(metadata.get("creationTimestamp"), now)),
            ("Started", _when(status.get("startTime"), now)),
            ("Labels", _pairs(metadata.get("labels"))),
            ("Annotations", _pairs(metadata.get("annotations"))),
            ("Status", style(clean(shown), STATUS_COLOURS.get(shown, "red"))),
            ("Reason", status.get("reason")),
            ("Message", status.get("message")),
            ("IP", addresses_of(pod)),
            ("Host IP", status.get("hostIP")),
            ("QoS class", status.get("qosClass")),
            ("Restart policy", spec.get("restartPolicy")),
        ],
        raw=("Status",),
    )
    for title, key in (("Init containers", "initContainers"), ("Containers", "containers")):
        if spec.get(key):
            lines.append(f"{title}:")
            statuses = {s["name"]: s for s in status.get(key[:-1] + "Statuses") or ()}
            for container in spec[key]:
                lines += _container(container, statuses.get(container["name"], {}), runtime, now)
    lines += _conditions(status)
    lines += _volumes(spec)
    lines += _sandbox(runtime)
    lines += _events(answer.get("events") or (), now, columns)
    return lines


def _fields(indent: int, pairs: Sequence[tuple[str, Any]], raw: Sequence[str] = ()) -> list[str]:
    """`Name:   value` lines; what is empty is left out, a list takes a line each."""
    lines = []
    label = max(LABEL - indent, *(len(name) + 2 for name, _ in pairs)) if pairs else 0
    for name, value in pairs:
        values = value if isinstance(value, list) else [value]
        for number, text in enumerate(v for v in values if v not in (None, "", (), {})):
            shown = str(text) if name in raw else clean(str(text))
            lines.append(" " * indent + f"{name + ':' if not number else '':<{label}}{shown}")
    return lines


def _pairs(values: Object | None) -> list[str]:
    return [f"{key}={value}" for key, value in (values or {}).items()]


def _when(timestamp: Any, now: float) -> str:
    return f"{timestamp} ({age(str(timestamp), now)} ago)" if timestamp else ""


def _container(spec: Object, status: Object, runtime: Object, now: float) -> list[str]:
    behind = _named(runtime.get("containers"), spec["name"])
    resources = spec.get("resources") or {}
    ports = [f"{p['containerPort']}/{p.get('protocol', 'TCP')}{_host_port(p)}" for p in spec.get("ports") or ()]
    lines = [f"  {clean(spec['name'])}:"]
    lines += _fields(
        4,
        [
            ("Container ID", status.get("containerID")),
            ("Image", spec.get("image")),
            ("Image ID", status.get("imageID")),
            ("Command", _words(spec.get("command"))),
            ("Args", _words(spec.get("args"))),
            ("Ports", ", ".join(ports)),
            *_state("State", status.get("state") or {}, now),
            *_state("Last state", status.get("lastState") or {}, now),
            ("Ready", status.get("ready")),
            ("Restarts", status.get("restartCount")),
            ("Limits", ", ".join(_pairs(resources.get("limits")))),
            ("Requests", ", ".join(_pairs(resources.get("requests")))),
            ("Environment", [_variable(v) for v in spec.get("env") or ()]),
            ("Mounts", [_mount(m) for m in spec.get("volumeMounts") or ()]),
            ("PID", behind.get("pid")),
            ("Cgroup", behind.get("cgroupPath")),
            ("Changes", behind.get("upper")),
            ("Log", behind.get("logPath")),
        ],
    )
    return lines


def _named(containers: Any, name: str) -> Object:
    if isinstance(containers, dict):
        found = containers.get(name)
    else:
        found = next((c for c in containers or () if c.get("name") == name), None)
    return found or {}


def _host_port(port: Object) -> str:
    if not port.get("hostPort"):
        return ""
    return f" (host {port.get('hostIP') or '*'}:{port['hostPort']})"


def _words(words: Sequence[str] | None) -> str:
    """A command as it can be pasted into a shell."""
    if not words:
        return ""
    import shlex

    return shlex.join(words)


def _state(label: str, state: Object, now: float) -> Iterator[tuple[str, Any]]:
    for kind, detail in state.items():
        if detail is None:
            continue
        yield label, kind.capitalize()
        for name, key in (("  Reason", "reason"), ("  Message", "message"), ("  Exit code", "exitCode")):
            if detail.get(key) not in (None, ""):
                yield name, detail[key]
        for name, key in (("  Started", "startedAt"), ("  Finished", "finishedAt")):
            yield name, _when(detail.get(key), now)


def _variable(variable: Object) -> str:
    source = variable.get("valueFrom")
    if not source:
        return f"{variable['name']}={variable.get('value', '')}"
    kind, reference = next(iter(source.items()))
    where = reference.get("name") or reference.get("fieldPath") or reference.get("resource") or ""
    key = f"[{reference['key']}]" if reference.get("key") else ""
    return f"{variable['name']} from {kind} {where}{key}"


def _mount(mount: Object) -> str:
    sub_path = f", path {mount['subPath']}" if mount.get("subPath") else ""
    return f"{mount['mountPath']} from {mount['name']} ({'ro' if mount.get('readOnly') else 'rw'}{sub_path})"


def _conditions(status: Object) -> list[str]:
    found = status.get("conditions") or ()
    lines = ["Conditions:"] if found else []
    pairs = []
    for entry in found:
        why = ": ".join(str(entry[key]) for key in ("reason", "message") if entry.get(key))
        pairs.append((str(entry.get("type")), f"{entry.get('status')}{f'  {why}' if why else ''}"))
    return lines + _fields(2, pairs)


def _volumes(spec: Object) -> list[str]:
    volumes = spec.get("volumes") or ()
    pairs = []
    for volume in volumes:
        kind = next((key for key in volume if key != "name"), "emptyDir")
        detail = ", ".join(f"{k}={v}" for k, v in (volume.get(kind) or {}).items() if not isinstance(v, (dict, list)))
        pairs.append((volume["name"], f"{kind}{f' ({detail})' if detail else ''}"))
    return ["Volumes:", *_fields(2, pairs)] if pairs else []


def _sandbox(runtime: Object) -> list[str]:
    """What stands behind the pod in the kernel: every value but the containers, which have their own sections."""
    pairs: list[tuple[str, Any]] = []
    for key, value in runtime.items():
        if key == "containers" or value in (None, "", [], {}):
            continue
        shown = value
        if isinstance(value, dict):  # such as the namespaces: their values name them
            shown = [str(v) if str(v).startswith(name) else f"{name} {v}" for name, v in value.items()]
        pairs.append((_label(key), shown))
    return ["Sandbox:", *_fields(2, pairs)] if pairs else []


def _label(key: str) -> str:
    """`pauseProcess` → `Pause process`."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in key)
    return words[:1].upper() + words[1:]


def _events(events: Sequence[Object], now: float, columns: int | None) -> list[str]:
    if not events:
        return ["Events:           none"]
    rows = [
        [
            f"  {event.get('type', '')}",
            event.get("reason", ""),
            age(str(event.get("time") or ""), now),
            (event.get("object") or {}).get("container") or "",
            event.get("message", ""),
        ]
        for event in events
    ]
    return ["Events:", *table(("  TYPE", "REASON", "AGE", "CONTAINER", "MESSAGE"), rows, columns=columns)]
