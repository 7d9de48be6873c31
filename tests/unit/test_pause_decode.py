"""What Python encodes the C decoder takes, and nothing that differs from it in a byte that matters.

The decoder runs under AddressSanitizer in a program of its own (`make -C pause test`).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pause_plans import EVERY_OPERATION, plan

from sandbox.runtime import ops

PAUSE = Path(__file__).parents[2] / "pause"


@pytest.fixture(scope="session")
def units() -> Path:
    subprocess.run(["make", "-s", "-C", str(PAUSE), "build/test_units"], check=True, capture_output=True)
    return PAUSE / "build" / "test_units"


def decode(units: Path, folder: Path, plans: list[bytes]) -> list[str]:
    files = []
    for number, data in enumerate(plans):
        files.append(folder / str(number))
        files[-1].write_bytes(data)
    done = subprocess.run([units, "decode", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_c_unit_tests_pass(units: Path) -> None:
    assert subprocess.run([units], capture_output=True, text=True).stdout == "ok\n"


def test_every_operation_is_taken(units: Path, tmp_path: Path) -> None:
    assert {type(op) for op in EVERY_OPERATION} | {ops.Exec} == set(ops.Op.__subclasses__())
    answers = decode(units, tmp_path, [ops.encode_plan(plan(op)) for op in EVERY_OPERATION])
    assert answers == ["ok 2"] * len(EVERY_OPERATION)
    assert decode(units, tmp_path, [ops.encode_plan(plan(*EVERY_OPERATION))]) == [f"ok {len(EVERY_OPERATION) + 1}"]


def test_a_truncated_plan_is_refused(units: Path, tmp_path: Path) -> None:
    data = ops.encode_plan(plan(EVERY_OPERATION[0], EVERY_OPERATION[6]))
    answers = decode(units, tmp_path, [data[:size] for size in range(len(data))] + [data + b"\0"])
    assert all(answer.startswith("refused") for answer in answers)


def test_a_flipped_byte_is_refused_or_another_plan(units: Path, tmp_path: Path) -> None:
    """Only values that the format leaves free may change: the number of slots, numbers, the letters of strings."""
    data = ops.encode_plan(plan(ops.Overlay(2, ("/layers/2", "/l"), "/upper", "/work"), ops.Setsid()))
    flipped = [data[:i] + bytes([data[i] ^ 0xFF]) + data[i + 1 :] for i in range(len(data))]
    answers = decode(units, tmp_path, flipped)
    taken = [i for i, answer in enumerate(answers) if answer.startswith("ok")]
    header, op = 16, 64
    slot_count, attr_flags = 12, range(header + 16, header + 24)
    texts = range(header + 3 * op, len(data))
    assert all(i == slot_count or i in attr_flags or (i in texts and data[i] != 0) for i in taken)
    assert set(attr_flags) <= set(taken)


@pytest.mark.parametrize(
    "steps",
    [
        (ops.Exec(("true",)), ops.Setsid()),
        (ops.Dup(0, 3),),
        (ops.Mark(0),),
        (ops.Mark(16),),
        (ops.Chdir(""),),
        (ops.Hostname("a\0b"),),
        (ops.Overlay(2, ("/a",), upper="/u"),),
        (ops.Seccomp(b"123"),),
        (ops.Credentials(0xFFFFFFFF, 0),),
    ],
    ids=lambda steps: steps[0].describe(),
)
def test_nonsense_is_refused(units: Path, tmp_path: Path, steps: tuple[ops.Op, ...]) -> None:
    (answer,) = decode(units, tmp_path, [ops.encode_plan(plan(*steps))])
    assert answer == "refused 0"


def test_a_plan_without_exec_is_refused(units: Path, tmp_path: Path) -> None:
    assert decode(units, tmp_path, [ops.encode_plan(ops.Plan((ops.Setsid(),)))]) == ["refused 0"]


def test_bounds_of_the_encoder() -> None:
    with pytest.raises(ValueError, match="1 to"):
        ops.encode_plan(ops.Plan(()))
    with pytest.raises(ValueError, match="slots"):
        ops.encode_plan(plan(ops.Close(256)))
    with pytest.raises(ValueError, match="bytes"):
        ops.encode_plan(plan(ops.WriteFile(0, "x", bytes(ops.MAX_PLAN_BYTES))))
