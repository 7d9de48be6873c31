"""What the host has against a pod is said at its line, before anything is made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox.errors import ManifestError
from sandbox.manifest import Manifests
from tests.unit.pods_fakes import Harness, pod


@pytest_asyncio.fixture
async def harness(tmp_path: Path) -> Harness:
    (tmp_path / "resolv.conf").write_text("")
    return Harness(tmp_path)


def errors_of(harness: Harness, *texts: str) -> list[ManifestError]:
    manifests = Manifests([(f"{n}.yaml", text.encode()) for n, text in enumerate(texts)])
    objects = manifests.check(harness.controller.object_keys)
    try:
        manifests.refuse(harness.controller.findings(objects))
    except ManifestError as error:
        return list(error.errors)
    return []


def only(harness: Harness, text: str, marker: str) -> str:
    """The one error there is, which stands where `marker` is written in `text`."""
    (error,) = errors_of(harness, text)
    lines = text.splitlines()
    line = next(number for number, content in enumerate(lines, 1) if marker in content)
    assert (error.file, error.line, error.column) == ("0.yaml", line, lines[line - 1].index(marker) + 1)
    return error.message


def annotated(pairs: str, **options: str) -> str:
    return pod(**options).replace("{name: web}", f"{{name: web, annotations: {{{pairs}}}}}")


async def test_an_image_that_is_not_there(harness: Harness) -> None:
    text = pod(containers="app").replace("localhost/busybox", "localhost/busybx")
    assert "localhost/busybx' is not in the store" in only(harness, text, "localhost/busybx")


async def test_every_container_is_told_of(harness: Harness) -> None:
    text = pod(containers="a b", init="c").replace("localhost/busybox", "nowhere/x")
    found = errors_of(harness, text, pod("fine"), pod("other").replace("busybox", "y"))
    assert [(e.file, e.message.split(":")[0]) for e in found] == [
        ("0.yaml", "spec.initContainers[0].image"),
        ("0.yaml", "spec.containers[0].image"),
        ("0.yaml", "spec.containers[1].image"),
        ("2.yaml", "spec.containers[0].image"),
    ]


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ('sandbox/pidz: "5"', "there is no limit 'pidz', did you mean 'pids'?"),
        ('sandbox/pids.ap: "5"', "the pod has no container 'ap', did you mean 'app'?"),
        ('sandbox/pids.app: "many"', "expected a quantity"),
        ("sandbox/memory-high: 5Mi", "memory.high needs cgroup v2"),
    ],
)
async def test_an_annotation_that_cannot_be(harness: Harness, pair: str, sentence: str) -> None:
    message = only(harness, annotated(pair), "sandbox/" if "high" not in pair else "5Mi")
    assert sentence in message
    assert "annotation sandbox/" not in message, "the path names it"


async def test_a_limit_without_a_controller(harness: Harness) -> None:
    limits = "resources:\n  limits: {hugepages-2Mi: 2Mi, memory: 1Gi}"
    assert "controller hugetlb is not mounted" in only(harness, pod(container=limits), "limits: {")


async def test_a_host_path_of_another_type(harness: Harness, tmp_path: Path) -> None:
    spec = f"volumes:\n- name: v\n  hostPath: {{path: {tmp_path}, type: Socket}}"
    assert "is not a socket" in only(harness, pod(spec=spec), "{path:")


async def test_what_only_the_runtime_knows(harness: Harness) -> None:
    text = pod(container="securityContext: {runAsNonRoot: true}")
    assert "must not run as root" in only(harness, text, "name: app")


@pytest.fixture
def nothing_is_kept(harness: Harness) -> Iterator[None]:
    yield
    assert harness.controller.object_keys("ConfigMap", "default", "c") is None
    assert not harness.runtime.calls


@pytest.mark.usefixtures("nothing_is_kept")
async def test_objects_that_are_given_with_the_pod_are_there_to_be_referred_to(harness: Harness) -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {k: v}\n"
    reference = "env: [{name: X, valueFrom: {configMapKeyRef: {name: c, key: k}}}]"
    assert errors_of(harness, config, pod(container=reference)) == []


async def test_a_pod_that_exists_is_not_looked_at_again(harness: Harness) -> None:
    await harness.run(pod())
    harness.images.clear()
    assert errors_of(harness, pod()) == []
    await harness.controller.close()
