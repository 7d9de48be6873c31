"""scripts/vm: its arguments, and which tests are worth the machine. See scripts/vm --help."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

from tests.vm import image, machine

TESTS = (
    *sorted(f"tests/unit/{p.name}" for p in (image.CHECKOUT / "tests" / "unit").glob("test_cgroups_*.py")),
    "tests/integration/test_cgroups_driver.py",
    "tests/integration/test_linux_bpf.py",
    "tests/integration/test_runtime_pods.py",
    "tests/integration/test_runtime_v2.py",
    "tests/integration/test_runtime_updates.py",
    "tests/integration/test_cli_contract.py::test_contract_with_the_daemon",
    "tests/integration/test_cli_contract.py::test_run_starts_a_daemon_and_stop_leaves_the_pods",
    "tests/integration/test_cli_contract.py::test_exec_carries_streams_and_exit_codes",
    "tests/integration/test_daemon_pods.py::test_stats_and_describe",
    "tests/integration/test_survival.py::test_ten_pods_and_ten_kills_of_the_daemon",
    "tests/integration/test_survival.py::test_down_leaves_nothing",
)
ENVIRONMENT = {"SANDBOX_TEST_ROUNDS": "3"}
"""Python runs several times slower in there: fewer pods, and fewer kills of their daemon."""
CANNOT = 77


def main() -> int:
    arguments = sys.argv[1:]
    command: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1 :]
        if not command:
            print("error: no command after --", file=sys.stderr)
            return 2
    parser = argparse.ArgumentParser(prog="scripts/vm", add_help=False)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--timeout", type=float, default=540.0)
    parser.add_argument("--shell", action="store_true")
    options, tests = parser.parse_known_args(arguments)
    if command and tests:
        parser.error(f"unknown argument {tests[0]}")
    if not command and not options.shell:
        named = any((image.CHECKOUT / word.partition("::")[0]).exists() for word in tests)
        command = ["python", "-m", "pytest", *(() if named else TESTS), *tests]
        if options.output:
            command.append("--junit-xml=/output/junit.xml")
    if shutil.which(machine.QEMU) is None:
        print(f"error: {machine.QEMU} is not installed", file=sys.stderr)
        return CANNOT
    try:
        made = image.provide()
    except image.CannotBuild as error:
        print(f"error: {error}", file=sys.stderr)
        return CANNOT if isinstance(error, image.NoKernel) else 1
    return machine.run(
        made, command, timeout_s=options.timeout, environment=ENVIRONMENT, on_output=_show, output=options.output
    )


def _show(block: bytes) -> None:
    while block:
        block = block[os.write(1, block) :]


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
