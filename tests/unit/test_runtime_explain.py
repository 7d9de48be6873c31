"""An operation that failed, as a person reads it."""

from __future__ import annotations

import errno

import pytest

from sandbox.runtime import ops
from sandbox.runtime.explain import MAX_STEP_CHARACTERS, explain, plan_error

PLAN = ops.Plan(
    (
        ops.Overlay(1, ("/layer",), "/upper", "/work"),
        ops.OpenTree(2, "/volumes/v", 1, sub_path="below"),
        ops.Filesystem(3, "proc"),
        ops.MoveMount(3, 1, "/proc", create="dir"),
        ops.MoveMount(2, 1, "/data", create="dir"),
        ops.Setns(0, 1, "pid"),
        ops.Chdir("/nope"),
        ops.Exec(("sh", "-c", "echo [1] two", "")),
    ),
    given=("the pause process",),
)


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (1, "open tree /volumes/v/below"),
        (3, "mount the new proc on the container's /proc"),
        (4, "mount /volumes/v/below on the container's /data"),
        (6, "chdir /nope"),
    ],
)
def test_slots_have_the_names_of_what_they_hold(index: int, text: str) -> None:
    assert explain(PLAN, index) == text


def test_a_command_is_quoted_as_a_shell_takes_it() -> None:
    assert explain(PLAN, 7) == "exec sh -c 'echo [1] two' ''"
    assert explain(ops.Plan((ops.Exec(("",)),)), 0) == "exec ''"


def test_a_long_command_is_cut() -> None:
    assert len(explain(ops.Plan((ops.Exec(("x" * 10_000,)),)), 0)) == MAX_STEP_CHARACTERS + 1


def test_the_usual_errors_say_what_to_do() -> None:
    error = plan_error(PLAN, 6, "c", errno.ENOENT)
    assert str(error) == "chdir /nope failed: ENOENT (no such file or directory)"
    assert "no such directory" in error.hint and error.subject == "c"
    assert plan_error(PLAN, 6, "c", errno.EIO).hint == ""
