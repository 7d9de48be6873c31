"""scripts/vm: exact output, exit codes and files come out of the machine, and nothing of it is left."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.vm import image, machine  # noqa: E402

COMMAND = [sys.executable, "-m", "tests.vm"]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.environ.get("SANDBOX_TEST_VM"), reason="boots machines: scripts/test --vm"),
    pytest.mark.skipif(shutil.which(machine.QEMU) is None, reason=f"{machine.QEMU} is not installed"),
    # Fetched from Debian: not from in here, where the tests have a network of their own.
    pytest.mark.skipif(
        not list(image.CACHE.glob("linux-image-*")), reason="no kernel yet: scripts/vm -- true gets one"
    ),
]


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    yield
    assert list(temporary.iterdir()) == []
    assert _machines(temporary) == []


def _machines(temporary: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if words.startswith(machine.QEMU.encode()) and str(temporary).encode() in words:
            found.append(int(process.name))
    return found


def test_output_files_and_exit_code_are_the_commands(tmp_path: Path) -> None:
    script = (
        "head -c 300000 /dev/zero | tr '\\0' x; printf '\\r\\n\\0end'; "
        "cat /sys/fs/cgroup/cgroup.controllers >/output/here; grep -c ' cgroup ' /proc/mounts >>/output/here; exit 7"
    )
    command = [*COMMAND, "--output", str(tmp_path / "out"), "--", "sh", "-c", script]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 7, done.stderr
    assert done.stdout == b"x" * 300000 + b"\r\n\0end"
    controllers, v1_mounts = (tmp_path / "out" / "here").read_text().splitlines()
    assert {"cpu", "cpuset", "io", "memory", "pids", "hugetlb"} <= set(controllers.split())
    assert v1_mounts == "0"
    assert time.monotonic() - began < 60


def test_a_machine_that_takes_too_long_is_stopped() -> None:
    done = subprocess.run(
        [*COMMAND, "--timeout", "6", "--", "sleep", "1000"], cwd=ROOT, capture_output=True, timeout=60
    )
    assert done.returncode == machine.TIMED_OUT
    assert b"stopped after 6 seconds" in done.stderr


def test_a_machine_that_dies_says_its_last_words() -> None:
    script = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 1000"
    done = subprocess.run([*COMMAND, "--", "sh", "-c", script], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == machine.BROKEN
    assert b"Kernel panic" in done.stderr and b"ended without an answer" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_machine_ends_with_its_command(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--", "sh", "-c", "echo up; sleep 1000"], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    (qemu,) = _machines(tmp_path)
    pidfd = os.pidfd_open(qemu)
    process.send_signal(number)
    assert process.wait(20) == (-number if number is signal.SIGKILL else 128 + number)
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
    process.stdout.close()
    if number is signal.SIGKILL:
        shutil.rmtree(next((tmp_path / "tmp").iterdir()))


def test_wrong_arguments_boot_nothing() -> None:
    for arguments in (["--"], ["--timeout", "soon"], ["stray", "--", "true"]):
        done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20)
        assert done.returncode == 2 and re.search("error: ", done.stderr)
