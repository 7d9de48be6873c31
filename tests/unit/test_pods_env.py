"""Environment variables and their expansion."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import InvalidInput
from sandbox.manifest import load_manifests
from sandbox.pods.env import EnvContext, build_environment, expand
from sandbox.pods.fields import PodFacts
from sandbox.pods.kube import Pod, PodManifest
from sandbox.pods.objects import ObjectStore
from sandbox.store.database import Database
from tests.unit.pods_fakes import pod

VARIABLES = {"A": "1", "EMPTY": "", "NESTED": "$(A)", "odd name": "odd"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$(EMPTY)", ""),
        ("$(NESTED)", "$(A)"),
        ("$(odd name)", "odd"),
        ("$A ${A}", "$A ${A}"),
        ("$(A", "$(A"),
        ("$($(A)", "$($(A)"),
        ("$", "$"),
        ("a$", "a$"),
        ("$()", "$()"),
        ("$\n(A)", "$\n(A)"),
        ("$$", "$"),
    ],
)
def test_expansion_is_that_of_kubernetes(text: str, expected: str) -> None:
    assert expand(text, VARIABLES) == expected


@given(st.text(alphabet="$()AB ", max_size=30))
def test_expansion_agrees_with_a_literal_reading_of_the_go_source(text: str) -> None:
    assert expand(text, {"A": "<a>"}) == _reference(text, {"A": "<a>"})


def _reference(text: str, variables: dict[str, str]) -> str:
    """third_party/forked/golang/expansion/expand.go, line by line."""
    out, checkpoint, cursor = "", 0, 0
    while cursor < len(text):
        if text[cursor] == "$" and cursor + 1 < len(text):
            out += text[checkpoint:cursor]
            rest = text[cursor + 1 :]
            if rest[0] == "$":
                read, advance = "$", 1
            elif rest[0] == "(":
                end = rest.find(")")
                if end >= 0:
                    name = rest[1:end]
                    read, advance = variables.get(name, f"$({name})"), end + 1
                else:
                    read, advance = "$(", 1
            else:
                read, advance = "$" + rest[0], 1
            out += read
            cursor += advance
            checkpoint = cursor + 1
        cursor += 1
    return out + text[checkpoint:]


CONFIG = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {colour: red, size: big, a.b: dotted}}"
KEY = base64.b64encode(b"hush\xff").decode()
SECRET = f"{{apiVersion: v1, kind: Secret, metadata: {{name: s}}, data: {{key: {KEY}}}, stringData: {{word: plain}}}}"


def _environment(tmp_path: Path, container: str, *, labels: str = "") -> dict[str, str]:
    objects = ObjectStore(Database(tmp_path / "state.db"))
    text = pod(container=container).replace("{name: web}", "{name: web, labels: {tier: front}, annotations: {k: v}}")
    loaded = load_manifests([("a.yaml", text.encode()), ("b", CONFIG.encode()), ("c", SECRET.encode())])
    manifest: Any = None
    for thing in loaded:
        if isinstance(thing, Pod):
            manifest = PodManifest.of(thing)
        else:
            objects.put(thing)
    facts = PodFacts("uid-1", "node-1", "192.0.2.7", ("10.0.0.5", "fd00::5"))
    return build_environment(manifest, manifest.spec.containers[0], EnvContext("default", objects, facts))


def test_values_see_the_ones_before_them(tmp_path: Path) -> None:
    env = _environment(
        tmp_path, "env: [{name: A, value: one}, {name: B, value: $(A)-$(C)-$$(A)}, {name: C, value: late}]"
    )
    assert env == {"A": "one", "B": "one-$(C)-$(A)", "C": "late"}


def test_env_wins_over_env_from_and_sees_it(tmp_path: Path) -> None:
    env = _environment(
        tmp_path,
        "envFrom: [{configMapRef: {name: c}}, {prefix: S_, secretRef: {name: s}}]\n"
        "env: [{name: colour, value: 'not $(colour)'}]",
    )
    assert env["colour"] == "not red" and env["size"] == "big" and env["a.b"] == "dotted"
    assert env["S_word"] == "plain" and env["S_key"].encode("utf-8", "surrogateescape") == b"hush\xff"


def test_optional_references_to_nothing_are_left_out(tmp_path: Path) -> None:
    env = _environment(
        tmp_path,
        "envFrom: [{configMapRef: {name: absent, optional: true}}]\n"
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: absent, optional: true}}},"
        " {name: B, valueFrom: {secretKeyRef: {name: absent, key: absent, optional: true}}},"
        " {name: C, valueFrom: {configMapKeyRef: {name: c, key: size}}}]",
    )
    assert env == {"C": "big"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "uid-1"),
        ("metadata.labels['tier']", "front"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['k']", "v"),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "192.0.2.7"),
        ("status.podIP", "10.0.0.5"),
        ("status.podIPs", "10.0.0.5,fd00::5"),
    ],
)
def test_field_references(tmp_path: Path, path: str, value: str) -> None:
    assert _environment(tmp_path, f'env: [{{name: A, valueFrom: {{fieldRef: {{fieldPath: "{path}"}}}}}}]') == {
        "A": value
    }


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", "1", "2"),
        ("limits.cpu", "1m", "1500"),
        ("limits.memory", "1", str(100 << 20)),
        ("limits.memory", "1Mi", "100"),
        ("limits.memory", "1Gi", "1"),
        ("requests.cpu", "1m", "250"),
        ("requests.memory", "1Mi", "100"),
    ],
)
def test_resource_references_are_divided_and_rounded_up(
    tmp_path: Path, resource: str, divisor: str, value: str
) -> None:
    env = _environment(
        tmp_path,
        "resources: {limits: {cpu: 1500m, memory: 100Mi}, requests: {cpu: 250m}}\n"
        f"env: [{{name: A, valueFrom: {{resourceFieldRef: {{resource: {resource}, divisor: {divisor}}}}}}}]",
    )
    assert env == {"A": value}


def test_a_resource_without_a_limit_is_the_hosts(tmp_path: Path) -> None:
    env = _environment(tmp_path, "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]")
    assert int(env["A"]) > 64 << 20


def test_a_missing_key_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    objects = ObjectStore(Database(tmp_path / "state.db"))
    (thing,) = load_manifests([("b", CONFIG.encode())])
    objects.put(thing)
    text = pod(container="env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: colr}}}]")
    (loaded,) = load_manifests([("a", text.encode())])
    assert isinstance(loaded, Pod)
    manifest = PodManifest.of(loaded)
    context = EnvContext("default", objects, PodFacts("", "", ""))
    with pytest.raises(InvalidInput, match="'colr', which ConfigMap 'c' does not have") as caught:
        build_environment(manifest, manifest.spec.containers[0], context)
    assert caught.value.hint == "did you mean 'colour'?"
