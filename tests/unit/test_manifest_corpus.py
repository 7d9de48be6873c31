"""Every wrong manifest of the corpus is refused with exactly the messages it lists, and every example is right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandbox.errors import ManifestError
from sandbox.manifest import Pod, load_manifests

sys.path.insert(0, str(Path(__file__).parent))
from manifest_corpus import Case, read_cases

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
CASES = read_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_wrong_manifest(case: Case) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifests([("f", case.manifest.encode())])
    got = tuple(str(error).removeprefix("f:").lstrip() for error in caught.value.errors)
    assert got == case.expected
    assert caught.value.exit_code == 2
    assert all(not line.endswith(".") for line in got)


def test_the_corpus_is_large_and_has_no_case_twice() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.expected for case in CASES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_valid(path: Path) -> None:
    objects = load_manifests([(path.name, path.read_bytes())], known=lambda kind, namespace, name: None)
    assert any(isinstance(thing, Pod) for thing in objects)


def test_web_example_is_what_the_documentation_says() -> None:
    (path,) = (path for path in EXAMPLES if path.name == "web.yaml")
    pod = next(thing for thing in load_manifests([(path.name, path.read_bytes())]) if isinstance(thing, Pod))
    assert pod.spec and pod.metadata and pod.metadata.name == "web"
    assert [container.name for container in pod.spec.containers] == ["httpd", "fetch"]
    assert (pod.metadata.annotations or {})["sandbox/pids"] == "64"
    for container in pod.spec.containers:
        assert container.image == "localhost/busybox"
        assert container.resources
        for amounts in (container.resources.requests, container.resources.limits):
            assert amounts and set(amounts) == {"cpu", "memory"}
