"""Lines without options take a short way; it must be chosen for nothing else, and end the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sandbox.cli.plain import is_plain


@pytest.mark.parametrize(
    "line",
    ["run pod.yaml", "run a.yaml b.yaml", "run -", "exec web true", "exec web/c ls -l", "exec web -- ls -l -- x"],
)
def test_lines_without_options_are_plain(line: str) -> None:
    assert is_plain(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "", "run", "run --dry-run pod.yaml", "run pod.yaml --wait none", "run -h", "--root /x run pod.yaml",
        "exec", "exec web", "exec web --", "exec -it web -- sh", "exec web -c c -- sh", "exec --help",
        "ps", "ps -a", "logs web",
    ],
)  # fmt: skip
def test_everything_else_is_parsed(line: str) -> None:
    assert not is_plain(line.split())


def test_completion_is_never_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SANDBOX_COMPLETE", "bash_complete")
    assert not is_plain(["run", "pod.yaml"])


def test_the_short_way_loads_no_parser() -> None:
    code = (
        "import sys; from sandbox.cli.plain import run_plain; code = run_plain(['run', '/no/such/file']);"
        "print(code, sorted({'click', 'typing', 'dataclasses', 'http', 'asyncio', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n" and done.stderr.startswith("error: cannot read '/no/such/file'")


@pytest.mark.parametrize(
    "words",
    [["run", "/no/such/file"], ["exec", "no//name", "true"], ["exec", "web", "true"], ["run", "-", "-"]],
)
def test_both_ways_end_the_same(words: list[str], tmp_path: object) -> None:
    """The short way and the parser's print the same and give the same code (no daemon runs in this directory)."""
    outcomes = []
    for module, function in (("plain", "run_plain"), ("root", "run")):
        code = (
            f"import os, sys; os.geteuid = lambda: 1; from sandbox.cli.{module} import {function};"
            f"sys.exit({function}({words!r}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={"SANDBOX_RUN_DIR": f"{tmp_path}/run", "PATH": "/usr/bin"},
        )
        outcomes.append((done.returncode, done.stdout, done.stderr))
    assert outcomes[0] == outcomes[1] and outcomes[0][0] != 0
