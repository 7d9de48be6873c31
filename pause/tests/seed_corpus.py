"""Writes plans of every operation into a directory: where the fuzzer starts from."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

from pause_plans import EVERY_OPERATION, plan  # noqa: E402

from sandbox.runtime.ops import encode_plan  # noqa: E402

directory = Path(sys.argv[1])
for number, op in enumerate(EVERY_OPERATION):
    (directory / f"op{number}").write_bytes(encode_plan(plan(op)))
(directory / "all").write_bytes(encode_plan(plan(*EVERY_OPERATION)))
