"""Typed objects: defaults, lists, references, notes, and back to JSON."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import InvalidInput, ManifestError, ManifestErrors
from sandbox.manifest import (
    ConfigMap,
    Pod,
    Secret,
    from_manifest,
    load_manifests,
    notes,
    references,
    to_manifest,
    to_yaml,
)
from sandbox.manifest.load import decode_value
from sandbox.manifest.models import core_v1, meta_v1
from sandbox.manifest.parse import parse
from sandbox.manifest.support import TABLE, Support, verdict

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: i}]\n"


def load(text: str, **options: Any) -> list[Any]:
    return load_manifests([("f", text.encode())], **options)


def pod_of(spec: str, container: str = "name: c, image: i") -> Pod:
    body = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers: [{{{container}}}]\n{spec}"
    (pod,) = load(body)
    assert isinstance(pod, Pod)
    return pod


def test_defaults_of_a_pod_are_those_of_kubernetes() -> None:
    container = (
        "name: c, image: i, ports: [{containerPort: 80}], "
        "resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 100m}}"
    )
    volumes = (
        "  volumes: [{name: a}, {name: b, configMap: {name: m}}, "
        "{name: c, secret: {secretName: s}}, {name: d, hostPath: {path: /}}]\n"
    )
    assert to_manifest(pod_of(volumes, container)) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "imagePullPolicy": "Always",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {
                        "limits": {"cpu": "1", "memory": "1Gi"},
                        "requests": {"cpu": "100m", "memory": "1Gi"},
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": True,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
            "volumes": [
                {"name": "a", "emptyDir": {}},
                {"name": "b", "configMap": {"name": "m", "defaultMode": 420}},
                {"name": "c", "secret": {"secretName": "s", "defaultMode": 420}},
                {"name": "d", "hostPath": {"path": "/", "type": ""}},
            ],
        },
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("localhost:5000/busybox", "Always"),
        ("busybox:1.36", "IfNotPresent"),
        ("localhost:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    pod = pod_of("", f'name: c, image: "{image}"')
    assert pod.spec and pod.spec.containers[0].imagePullPolicy == policy


def test_host_network_takes_the_container_ports() -> None:
    pod = pod_of("  hostNetwork: true\n", "name: c, image: i, ports: [{containerPort: 80}]")
    assert pod.spec and (pod.spec.containers[0].ports or [])[0].hostPort == 80


def test_string_data_wins_and_is_not_kept() -> None:
    (secret,) = load(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: YQ==, b: Yg==}\nstringData: {b: é}\n"
    )
    assert isinstance(secret, Secret)
    assert secret.data == {"a": "YQ==", "b": base64.b64encode("é".encode()).decode()}
    assert secret.stringData is None
    assert secret.type == "Opaque"


def test_generate_name() -> None:
    text = POD.replace("name: p", "generateName: p-")
    (one,), (other,) = load(text), load(text)
    assert one.metadata.name.startswith("p-")
    assert len(one.metadata.name) == 7
    assert one.metadata.name != other.metadata.name


def test_null_is_not_set_and_yaml_of_the_cluster_is_accepted() -> None:
    text = POD.replace("{name: p}", "{name: p, creationTimestamp: null, uid: x, resourceVersion: '1', labels: {a: }}")
    (pod,) = load(text + "  nodeSelector: null\nstatus: {phase: Running, whatever: 1}\n")
    assert pod.metadata.labels == {"a": ""}
    assert pod.metadata.uid is None
    assert pod.status is None


def test_octal_modes_and_whole_floats() -> None:
    pod = pod_of(
        "  terminationGracePeriodSeconds: 5.0\n  volumes: [{name: a, configMap: {name: m, defaultMode: 0400}}]\n"
    )
    assert pod.spec and (pod.spec.volumes or [])[0].configMap
    assert pod.spec.terminationGracePeriodSeconds == 5
    assert type(pod.spec.terminationGracePeriodSeconds) is int
    assert pod.spec.volumes[0].configMap.defaultMode == 0o400  # type: ignore[index]


def test_quantities_may_be_numbers() -> None:
    pod = pod_of("", "name: c, image: i, resources: {limits: {cpu: 0.5, memory: 1e6}}")
    assert pod.spec and pod.spec.containers[0].resources
    assert pod.spec.containers[0].resources.limits == {"cpu": "0.5", "memory": "1000000"}


def test_several_files_documents_and_lists_keep_their_order() -> None:
    first = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"
        "- {apiVersion: v1, kind: Secret, metadata: {name: a}}\n"
    )
    objects = load_manifests([("1", (first + "---\n" + POD).encode()), ("2", POD.replace("p}", "q}").encode())])
    assert [(type(thing), thing.metadata.name) for thing in objects if thing.metadata] == [
        (ConfigMap, "a"),
        (Secret, "a"),
        (Pod, "p"),
        (Pod, "q"),
    ]


def test_namespace_of_the_caller() -> None:
    (pod,) = load(POD, namespace="blue")
    assert pod.metadata.namespace == "blue"


def test_problems_of_all_files_in_order_and_not_more_than_twenty() -> None:
    wrong = POD + "  a: 1\n  b: 2\n"
    with pytest.raises(ManifestErrors) as caught:
        load_manifests([("1", wrong.encode()), ("2", b"a: [\n"), ("3", wrong.encode())])
    assert [(error.file, error.line) for error in caught.value.errors] == [
        ("1", 6),
        ("1", 7),
        ("2", 2),
        ("3", 6),
        ("3", 7),
    ]
    assert str(caught.value).count("\n") == 4
    many = POD + "".join(f"  x{i}: 1\n" for i in range(100))
    with pytest.raises(ManifestErrors) as caught:
        load(many)
    assert len(caught.value.errors) == 20


def test_an_error_as_json_has_its_place() -> None:
    with pytest.raises(ManifestError) as caught:
        load(POD + "  imagee: 1\n")
    body = caught.value.to_json()
    assert (body["file"], body["line"], body["column"], body["exitCode"]) == ("f", 6, 3, 2)
    assert body["message"].startswith("f:6:3: spec.imagee: unknown field of PodSpec")


REFERENCES = """\
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: blue}
spec:
  volumes:
  - {name: a, configMap: {name: m, items: [{key: k, path: x}]}}
  - {name: b, secret: {secretName: s, optional: true}}
  containers:
  - name: c
    image: i
    envFrom: [{configMapRef: {name: e}}]
    env: [{name: A, valueFrom: {secretKeyRef: {name: t, key: z}}}]
"""


def test_references() -> None:
    (pod,) = load(REFERENCES)
    assert [(r.kind, r.namespace, r.name, r.key, r.optional) for r in references(pod)] == [
        ("ConfigMap", "blue", "m", None, False),
        ("ConfigMap", "blue", "m", "k", False),
        ("Secret", "blue", "s", None, True),
        ("ConfigMap", "blue", "e", None, False),
        ("Secret", "blue", "t", "z", False),
    ]


def test_references_to_nothing_are_found_where_they_are_written() -> None:
    known = {("ConfigMap", "blue", "m"): frozenset({"other"}), ("ConfigMap", "blue", "e"): frozenset[str]()}
    with pytest.raises(ManifestErrors) as caught:
        load(REFERENCES, known=lambda *identity: known.get(identity))
    assert [str(error) for error in caught.value.errors] == [
        'f:6:50: spec.volumes[0].configMap.items[0].key: ConfigMap "m" has no key "k", it has other',
        'f:12:54: spec.containers[0].env[0].valueFrom.secretKeyRef.name: there is no Secret "t" in namespace "blue"',
    ]
    known |= {("ConfigMap", "blue", "m"): frozenset({"k"}), ("Secret", "blue", "t"): frozenset({"z"})}
    load(REFERENCES, known=lambda *identity: known.get(identity))


def test_a_reference_misspelt_names_the_nearest_given() -> None:
    text = POD + "  volumes: [{name: a, configMap: {name: setings}}]\n"
    config = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n"
    with pytest.raises(ManifestError, match='no ConfigMap "setings" in namespace "default", did you mean "settings"'):
        load(text + config, known=lambda *identity: None)


def test_disk_space_that_nobody_limits_is_noted() -> None:
    container = "name: c, image: i, resources: {limits: {ephemeral-storage: 1Gi, memory: 1Gi}}"
    volumes = (
        "  volumes: [{name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}}, {name: d, emptyDir: {sizeLimit: 1Mi}}]"
    )
    assert [note.replace("spec.containers[0].resources.", "") for note in notes(pod_of(volumes, container))] == [
        "spec.volumes[1].emptyDir.sizeLimit: is enforced only with medium: Memory",
        "limits.ephemeral-storage: has no effect, this release does not limit disk space",
        "requests.ephemeral-storage: has no effect, this release does not limit disk space",
    ]


def test_notes_say_what_has_no_effect_here() -> None:
    assert notes(pod_of("")) == []
    pod = pod_of("  tolerations: [{operator: Exists}]\n  nodeSelector: {a: b}\n  affinity: {}\n  hostUsers: true\n")
    assert notes(pod) == [
        "spec.affinity: has no effect, there is one host and no scheduler",
        "spec.nodeSelector: has no effect, there is one host and no scheduler",
        "spec.tolerations: has no effect, there is one host and no scheduler",
    ]


def test_the_table_knows_every_field_of_its_classes() -> None:
    server = {"status", "managedFields", "selfLink", "uid", "resourceVersion", "generation"}
    server |= {"creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"}
    for cls, fields in TABLE.items():
        known = {field.metadata.get("json", field.name) for field in dataclasses.fields(cls)}
        assert set(fields) <= known, cls
        missing = known - set(fields) - server
        assert not missing, f"{cls.__name__}: {missing}"


def test_what_the_table_does_not_know_is_refused() -> None:
    assert verdict(core_v1.Container, "somethingNew").support is Support.REFUSED
    assert verdict(core_v1.Affinity, "nodeAffinity").support is Support.REFUSED


def test_dump_and_load_again_is_the_same() -> None:
    text = REFERENCES.replace("{name: p,", "{name: p, labels: {a: b},")
    (pod,) = load(text)
    data = to_manifest(pod)
    assert from_manifest(data) == pod
    assert from_manifest(json.loads(json.dumps(data))) == pod
    (again,) = load(yaml.safe_dump(data))
    assert again == pod
    data["metadata"]["labels"]["a"] = "changed"
    assert pod.metadata.labels == {"a": "b"}


def test_our_own_objects_keep_what_a_server_writes() -> None:
    now = datetime(2026, 1, 31, 12, 0, 0, 500, tzinfo=UTC)
    pod = Pod(
        metadata=meta_v1.ObjectMeta(name="p", uid="u", creationTimestamp=now.replace(microsecond=0)),
        status=core_v1.PodStatus(
            phase="Running",
            containerStatuses=[
                core_v1.ContainerStatus(
                    name="c",
                    image="i",
                    imageID="",
                    ready=True,
                    restartCount=0,
                    state=core_v1.ContainerState(running=core_v1.ContainerStateRunning(startedAt=now)),
                )
            ],
        ),
    )
    data = to_manifest(pod)
    assert data["metadata"]["creationTimestamp"] == "2026-01-31T12:00:00Z"
    assert data["status"]["containerStatuses"][0]["restartCount"] == 0
    assert data["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] == "2026-01-31T12:00:00.000500Z"
    assert from_manifest(data) == pod
    assert decode_value(core_v1.PodStatus, data["status"]) == pod.status


def test_models_are_dataclasses_when_asked() -> None:
    pod = Pod(metadata=meta_v1.ObjectMeta(name="a"))
    assert dataclasses.is_dataclass(pod)
    assert copy.deepcopy(pod) == pod
    assert dataclasses.replace(pod, metadata=meta_v1.ObjectMeta(name="b")) != pod
    assert core_v1.EmptyDirVolumeSource() != []
    assert "name='a'" in repr(pod)
    with pytest.raises(TypeError):
        core_v1.Container(nam="x")
    with pytest.raises(TypeError):
        hash(pod)


def test_the_room_leaves_no_trace_of_its_stand_in_for_the_client_library() -> None:
    code = "import sandbox.manifest, sys; print(sorted(m for m in sys.modules if m.startswith('lightkube.core')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


_CLASSES = (core_v1.PodSpec, core_v1.Container, core_v1.Volume, core_v1.EnvVar, core_v1.Pod)
_NAMES = sorted({field.name for cls in _CLASSES for field in dataclasses.fields(cls)})
_WORDS = st.sampled_from(["", "a", "1Gi", "/x", "v1", "Pod", "Always", "\0"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    spec=st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=6),
    container=st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=6),
)
def test_no_structure_fails_otherwise(spec: dict[str, Any], container: dict[str, Any]) -> None:
    spec = spec | {"containers": [{"name": "c", "image": "i"} | container]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    try:
        objects = load_manifests([("f", yaml.safe_dump(body).encode())], known=lambda *identity: None)
    except ManifestError as error:
        assert 1 <= len(error.errors) <= 20
        assert all(one.line >= 1 and str(one).startswith("f:") for one in error.errors)
    else:
        assert from_manifest(to_manifest(objects[0])) == objects[0]


def test_from_manifest_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InvalidInput):
        from_manifest({"apiVersion": "v1", "kind": "Service"})
    with pytest.raises(InvalidInput):
        from_manifest({"apiVersion": "v1", "kind": "Pod", "spec": 5})


@pytest.mark.parametrize(
    "text", ["yes", "n", "0644", "1e3", "0E0", "0o7", "1_0", "~", "null", "", "<<", "5", " x", "a: b"]
)
def test_strings_survive_a_round_through_yaml_text(text: str) -> None:
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"key": text, text or "k": "v"}}
    (node,) = parse("f", to_yaml(data).encode())
    assert [node.get("data").get(key).value for key in data["data"]] == list(data["data"].values())  # type: ignore


def test_several_lines_are_written_as_a_block() -> None:
    assert to_yaml({"data": {"page": "a\n  b\n"}, "list": ["x"]}) == "data:\n  page: |\n    a\n      b\nlist:\n- x\n"


def test_yaml_text_needs_none_of_the_models() -> None:
    code = "from sandbox.manifest import to_yaml; import sys; print([m for m in sys.modules if 'lightkube' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_sidecar_is_an_init_container_that_is_always_restarted() -> None:
    pod = pod_of("  initContainers: [{name: s, image: i, restartPolicy: Always}]\n")
    assert pod.spec and (pod.spec.initContainers or [])[0].restartPolicy == "Always"


def _field_table() -> str:
    """The lists of docs/manifests.md, from the table that decides."""
    lines = []
    for support, title in ((Support.NOTED, "Accepted with a note"), (Support.REFUSED, "Refused")):
        lines += [f"### {title}", "", "| object | field | what is said |", "|---|---|---|"]
        sentences: dict[tuple[str, str], list[str]] = {}
        for cls, fields in TABLE.items():
            for name, found in fields.items():
                if found.support is support:
                    sentences.setdefault((cls.__name__, found.sentence), []).append(f"`{name}`")
        lines += [f"| {cls} | {', '.join(names)} | {sentence} |" for (cls, sentence), names in sentences.items()]
        lines.append("")
    return "\n".join(lines)


def test_the_documentation_lists_what_is_noted_and_refused() -> None:
    page = (Path(__file__).parents[2] / "docs" / "manifests.md").read_text()
    assert _field_table() in page, "the lists belong into docs/manifests.md:\n" + _field_table()


_ADDRESS = "{containerPort: 80, hostPort: 80, hostIP: 'fd::#'}"


def _many(template: str, count: int) -> str:
    return ", ".join(template.replace("#", str(index)) for index in range(count))


@pytest.mark.parametrize(
    ("container", "spec", "valid"),
    [
        (f"ports: [{_many('{containerPort: 80, hostPort: 80, hostIP: 10.0.#.1}', 250)}]", "", True),
        (f"ports: [{_many(_ADDRESS, 9000)}]", "", True),
        (
            f"volumeMounts: [{_many('{name: v#, mountPath: /v#}', 7000)}]",
            f"volumes: [{_many('{name: v#}', 7000)}]",
            True,
        ),
        (f"env: [{_many('{name: A#, valueFrom: {configMapKeyRef: {name: m, key: k#}}}', 5000)}]", "", True),
        (f"resources: {{limits: {{{_many('x#: 1', 9000)}}}}}", "", False),
        (f"? {'x' * 1_000_000}\n    : 1", "", False),
    ],
    ids=["ports", "addresses", "mounts", "references", "resources", "long names"],
)
def test_a_large_manifest_takes_time_in_proportion(container: str, spec: str, valid: bool) -> None:
    config = f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{{_many('k#: v', 9000)}}}\n"
    text = f"{POD.replace('image: i}', 'image: i, ' + container + '}')}  {spec}\n{config}"
    started = time.process_time()
    try:
        load(text)
    except ManifestError as error:
        assert not valid, error
        assert len(str(error)) < 20 * 2000
    else:
        assert valid
    assert time.process_time() - started < 8
