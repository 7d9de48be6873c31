"""Declarations: those of the package are right, wrong ones are refused with a sentence and a place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sandbox.errors import InvalidInput, ManifestError, NotFound
from sandbox.experiments import template
from sandbox.experiments.declaration import DIRECTORY, declared_names, find, read
from sandbox.manifest import load_manifests, to_yaml

PROMISED = ["cpu", "cpu-weight", "memory", "memory-high", "io", "io-operations", "pids", "pids-bomb", "noisy-neighbour"]
COMMANDS_OF_THE_TEXT = ["shares-512", "memory-500m", "read-1024"]

MINIMAL = """\
name: mine
title: Mine
method: as it is
limit: {label: limit, values: [1, 2]}
measured: {label: measured}
measure: {kind: rate, counter: cpu, of: loop, window: 1}
pods:
  - metadata: {name: one}
    spec:
      containers:
        - {name: loop, image: localhost/busybox, command: [sh, -c, "sleep {{number}}"]}
"""


def test_everything_promised_is_declared() -> None:
    assert declared_names() == sorted(PROMISED + COMMANDS_OF_THE_TEXT)


@pytest.mark.parametrize("name", declared_names())
def test_a_declaration_of_the_package(name: str) -> None:
    experiment = find(name)
    assert experiment.name == name
    assert experiment.lesson and experiment.method
    assert experiment.repetitions >= 2
    assert experiment.cases()
    assert all(case.expected is not None or experiment.expects_weights for case in experiment.cases())


@pytest.mark.parametrize("name", declared_names())
def test_its_pods_are_pods(name: str) -> None:
    experiment = find(name)
    for case in experiment.cases():
        for series in experiment.series:
            variables = {"limit": case.name, "number": "64", "block": "4096"}
            variables |= {"device": "8:0", "disk": "/experiment/data", "diskBytes": "65536"}
            variables |= dict(series.variables) | dict(case.variables)
            pods = [
                to_yaml({"apiVersion": "v1", "kind": "Pod", **template.fill(pod, variables)})
                for pod in experiment.pods_of(case)
            ]
            assert "{{" not in "".join(pods)
            assert load_manifests([(f"{n}.yaml", pod.encode()) for n, pod in enumerate(pods)])


def test_the_package_has_them_with_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    package = DIRECTORY.parents[1]
    patterns = project["tool"]["setuptools"]["package-data"]["sandbox"]
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    assert {*DIRECTORY.glob("*"), DIRECTORY.parent / "page.css"} <= shipped


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINIMAL)
    experiment = find(str(tmp_path / "mine.yaml"))
    assert [case.name for case in experiment.cases()] == ["1", "2"]
    assert (experiment.repetitions, experiment.seed) == (3, 1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: rate", "kind: rait", 'measure.kind: "rait" is not known, did you mean "rate"?'),
        ("counter: cpu", "counter: cpus", "measure.counter: 'cpus' is no counter of rate"),
        ("of: loop", "of: lop", "measure.of: no pod of case '1' has a container 'lop', there is loop"),
        (", window: 1", "", "measure: window is missing"),
        ("window: 1", "window: soon", "measure.window: expected a number from 0.1 to 3600, got a string"),
        ("title: Mine", "titel: Mine", "title is missing"),
        ("method: as it is", "method: x\nrepetition: 2", 'repetition: unknown field, did you mean "repetitions"?'),
        ("method: as it is", "method: [a]", "method: expected a string, got a list"),
        ("method: as it is", "method: x\nrepetitions: 0", "repetitions: expected a number from 1 to 1000"),
        ("method: as it is", "method: x\nrepetitions: 1.5", "repetitions: expected a whole number"),
        ("method: as it is", "method: x\nbaseline: alone", "there is no case 'alone'"),
        ("method: as it is", "method: x\ncases: [{name: a}]", "expected either limit (a sweep) or cases"),
        ("values: [1, 2]", "values: [2, 1]", "the smallest first"),
        ("values: [1, 2]", "values: [1, lots]", 'expected a quantity such as "500m"'),
        ("values: [1, 2]", "values: [1, 2], most: 1", "limit '2' is not between 0 and 1"),
        ("name: mine", "name: My/../Own", "expected at most 40 of a-z, 0-9 and -"),
        ("{{number}}", "{{nmber}}", "nothing says what {{nmber}} is in case '1'"),
        ("{{number}}", "{{disk}}", "nothing says what {{disk}} is"),
        ("metadata: {name: one}", "metadata: {}", "pods[0]: expected a Pod with metadata.name"),
        ("name: mine", "name: mine\nname: yours", "name"),
        ("measured: {label: measured}", "", "measured and measure are both needed"),
        ("title: Mine", "title: Mine\nseries: [{name: a}, {name: a}]", "'a' is there twice"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_refused_with_its_place(old: str, new: str, said: str) -> None:
    assert old in MINIMAL
    with pytest.raises(ManifestError) as caught:
        read("mine.yaml", MINIMAL.replace(old, new))
    assert said in str(caught.value)
    assert str(caught.value).startswith("mine.yaml:")
    assert caught.value.line > 0
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "- a\n", "a: b\n---\nc: d\n", "name: [", "name: *x\n"])
def test_what_is_no_declaration_at_all(text: str) -> None:
    with pytest.raises(ManifestError):
        read("mine.yaml", text)


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'memory'"):
        find("memroy")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        find(str(tmp_path / "none.yaml"))
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 20))
    with pytest.raises(ManifestError, match="longer than"):
        find(str(tmp_path / "big.yaml"))


def test_placeholders_are_filled_and_shell_is_left_alone() -> None:
    pod = {"command": ["sh", "-c", "echo $((i+1)) ${x} {{ limit }}"], "n": 1}
    assert template.fill(pod, {"limit": "8Mi"}) == {"command": ["sh", "-c", "echo $((i+1)) ${x} 8Mi"], "n": 1}
    assert list(template.names(pod)) == ["limit"]
    with pytest.raises(KeyError):
        template.fill(pod, {})
