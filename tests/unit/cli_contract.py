"""What the command line and a daemon owe each other. Run against the fake (unit) and the real one (integration).

`sandbox(*arguments, input=b"")` runs one command line and returns a `Result`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SLEEPER = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: localhost/busybox
    command: [sh, -c, "echo one; echo two; echo three; exec sleep 1000"]
"""
CONFIGURED = """\
    volumeMounts: [{{name: page, mountPath: /www}}]
  volumes:
  - name: page
    configMap: {{name: page}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: page}}
data: {{index.html: hello}}
"""
ENDING = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: localhost/busybox
    command: [sh, -c, "{script}"]
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Sandbox = Callable[..., Result]


def write(folder: Path, template: str, **values: str) -> str:
    path = folder / f"{values['name']}.yaml"
    path.write_text(template.format(**values))
    return str(path)


def run_list_and_remove(sandbox: Sandbox, folder: Path) -> None:
    """The life of a pod; each object on the way is a Kubernetes object."""
    manifest = write(folder, SLEEPER, name="life")
    made = sandbox("run", manifest)
    assert (made.code, made.err) == (0, ""), made
    assert made.out.startswith("pod/life ready  "), made.out
    listed = sandbox("ps")
    header, row = listed.out.splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "IP", "AGE"]
    assert row.split()[:4] == ["life", "1/1", "Running", "0"]
    assert row.split()[4] in made.out
    objects = sandbox("ps", "-o", "json").json
    assert objects["kind"] == "List"
    assert [o["kind"] for o in objects["items"]] == ["Pod"]
    assert objects["items"][0]["status"]["podIP"] == row.split()[4]
    assert sandbox("ps", "-o", "name").out == "pod/life\n"
    assert sandbox("logs", "--tail", "2", "life").out == "two\nthree\n"
    assert sandbox("logs", "life/main").out == "one\ntwo\nthree\n"
    described = sandbox("describe", "life").out
    assert "Name:             life\n" in described
    assert "Image:        localhost/busybox\n" in described
    assert sandbox("inspect", "life").json["pod"]["metadata"]["name"] == "life"
    assert sandbox("inspect", "life/main").json["status"]["name"] == "main"
    stats = sandbox("stats", "--interval", "0.05").out.splitlines()
    assert [line.split()[0] for line in stats] == ["NAME", "life", "life/main"]
    assert sandbox("down", manifest).out == "pod/life removed\n"
    again = sandbox("down", manifest)
    assert (again.code, again.out, again.err) == (0, "", "nothing to remove\n")
    assert sandbox("ps", "-a").out == ""


def wait_for_the_end(sandbox: Sandbox, folder: Path) -> None:
    """`--wait done` ends with the container's own exit code, and the pod is kept until it is removed."""
    failed = sandbox("run", "--wait", "done", write(folder, ENDING, name="seven", script="exit 7"))
    assert failed.code == 7, failed
    assert failed.out == "pod/seven failed (Error)\n"
    assert sandbox("ps").out == ""
    assert sandbox("ps", "-a").out.splitlines()[1].split()[:3] == ["seven", "0/1", "Error"]
    assert sandbox("rm", "seven").out == "pod/seven removed\n"
    good = sandbox("run", "--rm", write(folder, ENDING, name="good", script="true"))
    assert (good.code, good.out) == (0, "pod/good succeeded\n"), good
    assert sandbox("ps", "-a").out == ""


def what_does_not_exist(sandbox: Sandbox, _folder: Path) -> None:
    """Exit code 3 and a sentence that names it; `rm -f` finds nothing wrong."""
    for command in (["describe"], ["inspect"], ["logs"], ["stop"], ["rm"]):
        result = sandbox(*command, "nobody")
        assert result.code == 3, (command, result)
        assert result.err.startswith("error: "), result
        assert "nobody" in result.err
    assert sandbox("rm", "-f", "nobody").code == 0
    assert sandbox("rmi", "localhost/nobody").code == 3
    assert sandbox("exec", "nobody", "--", "true").code == 3


def wrong_manifests(sandbox: Sandbox, folder: Path) -> None:
    """Exit code 2, the place, the line itself with a caret, the nearest name; nothing is created."""
    path = write(folder, SLEEPER.replace("image:", "imag:"), name="typo")
    result = sandbox("run", path)
    assert result.code == 2, result
    assert f"error: {path}:9:5: " in result.err
    lines = result.err.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("    9 |     imag: localhost/busybox"))
    assert lines[at + 1].endswith("^")
    assert lines[at + 1].index("^") == lines[at].index("imag:")
    assert "'image'" in result.err or '"image"' in result.err
    assert sandbox("ps", "-a").out == ""


def dry_run_does_nothing(sandbox: Sandbox, folder: Path) -> None:
    result = sandbox("run", "--dry-run", write(folder, SLEEPER + CONFIGURED, name="dry"))
    assert result.code == 0, result
    assert "pod/dry" in result.out
    assert "exec" in result.out
    assert sandbox("ps", "-a").out == ""


def timeline(sandbox: Sandbox, folder: Path) -> None:
    """The spans as bars, and as numbers for a machine."""
    path = write(folder, SLEEPER, name="timed")
    drawn = sandbox("run", "--timeline", path)
    assert drawn.code == 0, drawn
    assert "network" in drawn.out
    assert " ms " in drawn.out
    assert "█" in drawn.out
    sandbox("rm", "-f", "timed")
    spans = sandbox("run", "--timeline", "-o", "json", path).json["timelines"][0]["spans"]
    assert {"name", "startMicroseconds", "durationMicroseconds"} <= set(spans[0])
    sandbox("rm", "-f", "timed")


def manifest_on_standard_input(sandbox: Sandbox, _folder: Path) -> None:
    result = sandbox("run", "-", input=SLEEPER.format(name="piped").encode())
    assert result.code == 0, result
    assert result.out.startswith("pod/piped ready")
    assert sandbox("rm", "-f", "piped").code == 0


CONTRACT = (
    run_list_and_remove,
    wait_for_the_end,
    what_does_not_exist,
    wrong_manifests,
    dry_run_does_nothing,
    timeline,
    manifest_on_standard_input,
)
