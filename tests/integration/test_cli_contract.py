"""The command line against a daemon of its own: the contract that the fake is held to, and what no fake can show."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from cli_contract import CONTRACT, SLEEPER, Result, write  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="pods need root")

NUMBER = os.getpid() % 200


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="sandbox-cli-"))
    names = {
        "SANDBOX_ROOT": str(folder / "root"),
        "SANDBOX_RUN_DIR": str(folder / "run"),
        "SANDBOX_BRIDGE": f"sbcli{NUMBER}",
        "SANDBOX_SUBNET": f"10.{NUMBER + 20}.192.0/20",
        "SANDBOX_CGROUP_PARENT": f"sandbox-cli-{NUMBER}",
        "SANDBOX_BACK_OFF_INITIAL_S": "0.2",
        "PYTHONPATH": str(ROOT),
    }
    environment = {**os.environ, **names}
    yield environment
    pods = call(environment, "ps", "-a", "-A", "-o", "name").out.split()
    if pods:
        call(environment, "rm", "-f", *pods)
    cleaned = call(environment, "daemon", "stop", "--clean")
    shutil.rmtree(folder)
    assert cleaned.code == 0, cleaned
    assert not Path(f"/sys/class/net/sbcli{NUMBER}").exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/sandbox-cli-{NUMBER}"))


def call(environment: dict[str, str], *arguments: str, input: bytes = b"") -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.cli", *arguments], env=environment, input=input, capture_output=True, timeout=60
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def sandbox(environment: dict[str, str]) -> Callable[..., Result]:
    def invoke(*arguments: str, input: bytes = b"") -> Result:
        return call(environment, *arguments, input=input)

    assert invoke("daemon", "start").code == 0
    return invoke


@pytest.fixture
def shell(sandbox: Callable[..., Result], tmp_path: Path) -> Iterator[str]:
    """A pod that sleeps."""
    assert sandbox("run", write(tmp_path, SLEEPER, name="shell")).code == 0
    yield "shell"
    assert sandbox("rm", "-f", "shell").code == 0


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_contract_with_the_daemon(clause: Callable[..., None], sandbox: Callable[..., Result], tmp_path: Path) -> None:
    clause(sandbox, tmp_path)


def test_run_starts_a_daemon_and_stop_leaves_the_pods(sandbox: Callable[..., Result], tmp_path: Path) -> None:
    manifest = write(tmp_path, SLEEPER, name="outlives")
    assert sandbox("daemon", "stop").code == 0
    assert sandbox("ps").code == 6
    assert sandbox("daemon", "status").code == 6
    assert sandbox("run", manifest).code == 0
    pid = sandbox("inspect", "outlives").json["runtime"]["containers"][0]["pid"]
    sandbox("daemon", "stop")
    assert Path(f"/proc/{pid}").exists()
    assert sandbox("daemon", "start").out.startswith("daemon started (pid ")
    assert sandbox("daemon", "start").out.startswith("daemon runs already (pid ")
    assert sandbox("inspect", "outlives").json["runtime"]["containers"][0]["pid"] == pid
    assert sandbox("down", manifest).out == "pod/outlives removed\n"
    assert not Path(f"/proc/{pid}").exists()


def test_two_that_start_a_daemon_at_once_share_one(sandbox: Callable[..., Result], environment: dict[str, str]) -> None:
    sandbox("daemon", "stop")
    command = [sys.executable, "-m", "sandbox.cli", "daemon", "start"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len({answer.partition("(pid ")[2] for answer in answers}) == 1, answers


def test_exec_carries_streams_and_exit_codes(sandbox: Callable[..., Result], shell: str) -> None:
    done = sandbox("exec", shell, "--", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert done == Result(9, "out\n", "err\n")
    data = os.urandom(2 << 20)
    digest = sandbox("exec", "-i", f"{shell}/main", "--", "md5sum", input=data)
    assert (
        digest.out.split()[0] == subprocess.run(["md5sum"], input=data, capture_output=True).stdout.decode().split()[0]
    )
    both_ways = sandbox("exec", "-i", shell, "--", "cat", input=data.hex().encode())
    assert both_ways.out.encode() == data.hex().encode()
    missing = sandbox("exec", shell, "--", "no-such-program")
    assert missing.code != 0
    assert "no-such-program" in missing.err
    assert sandbox("exec", "-c", "other", shell, "--", "true").code == 3


class Terminal:
    """A command line on a terminal of its own, as a person has it."""

    def __init__(self, environment: dict[str, str], *arguments: str, rows: int = 33, columns: int = 111) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "sandbox.cli", *arguments], environment)
        self.resize(rows, columns)
        self.text = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def expect(self, text: str, timeout: float = 15.0) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.text:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come; there was {self.text!r}"
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            assert data, f"the end came before {text!r}; there was {self.text!r}"
            self.text += data.decode("utf-8", "replace")

    def end(self) -> int:
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass  # EIO: the other side is gone
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_exec_with_a_terminal(environment: dict[str, str], shell: str) -> None:
    """Size, echo, job control keys, resize, exit code."""
    terminal = Terminal(environment, "exec", "-it", shell, "--", "sh")
    terminal.expect("# ")
    terminal.type("stty size\n")
    terminal.expect("33 111")
    terminal.resize(44, 122)
    terminal.type("sleep 0.2; stty size\n")
    terminal.expect("44 122")
    terminal.type("sleep 1000\n")
    time.sleep(0.2)
    terminal.type("\x03")
    terminal.type("echo st$((1))ll here\n")
    terminal.expect("st1ll here")
    terminal.type("exit 6\n")
    assert terminal.end() == 6


def test_attach_leaves_and_comes_back(
    sandbox: Callable[..., Result], environment: dict[str, str], tmp_path: Path
) -> None:
    """A shell that is the container's own process: what one session set, the next one finds."""
    manifest = SLEEPER.replace('command: [sh, -c, "echo one; echo two; echo three; exec sleep 1000"]', "command: [sh]")
    path = write(tmp_path, manifest + "    stdin: true\n    tty: true\n", name="desk")
    assert sandbox("run", path).code == 0
    terminal = Terminal(environment, "attach", "-it", "desk")
    terminal.expect("Ctrl-P Ctrl-Q")
    terminal.type("kept=$((40+2))\n")
    terminal.expect("kept=")
    terminal.type("\x10\x11")
    terminal.expect("the process goes on")
    assert terminal.end() == 0
    again = Terminal(environment, "attach", "-it", "desk/main")
    again.expect("Ctrl-P Ctrl-Q")
    again.type("echo is:$kept\n")
    again.expect("is:42")
    again.type("\x10\x11")
    assert again.end() == 0
    assert sandbox("rm", "-f", "desk").code == 0


def test_attach_carries_a_pipe(sandbox: Callable[..., Result], tmp_path: Path) -> None:
    manifest = SLEEPER.replace(
        'command: [sh, -c, "echo one; echo two; echo three; exec sleep 1000"]', "command: [sort]"
    )
    path = write(tmp_path, manifest + "    stdin: true\n    stdinOnce: true\n", name="pipe")
    assert sandbox("run", path).code == 0
    assert sandbox("attach", "-i", "pipe", input=b"b\na\n").out == "a\nb\n"
    assert sandbox("rm", "-f", "pipe").code == 0


def test_a_session_that_is_killed_leaves_no_process(
    sandbox: Callable[..., Result], environment: dict[str, str], shell: str
) -> None:
    terminal = Terminal(environment, "exec", "-it", shell, "--", "sleep", "4242")
    deadline = time.monotonic() + 10
    while "sleep 4242" not in sandbox("exec", shell, "--", "ps").out:
        assert time.monotonic() < deadline
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.end()
    while "sleep 4242" in sandbox("exec", shell, "--", "ps").out:
        assert time.monotonic() < deadline


def test_logs_follow_and_previous(sandbox: Callable[..., Result], environment: dict[str, str], tmp_path: Path) -> None:
    """A container that ends and is started again: the log goes on, and the one before can be had."""
    script = "echo instance-$(date +%s); sleep 1.1"
    manifest = SLEEPER.replace("echo one; echo two; echo three; exec sleep 1000", script)
    assert sandbox("run", write(tmp_path, manifest, name="again")).code == 0
    command = [sys.executable, "-m", "sandbox.cli", "logs", "-f", "again"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        first, second = follower.stdout.readline(), follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
    assert first.startswith("instance-") and second.startswith("instance-") and first != second
    assert sandbox("logs", "--previous", "again").out.startswith("instance-")
    stamped = sandbox("logs", "-t", "--tail", "1", "again").out
    assert stamped[10] == "T" and " instance-" in stamped
    assert int(sandbox("ps", "-o", "json").json["items"][0]["status"]["containerStatuses"][0]["restartCount"]) >= 1
    assert sandbox("rm", "-f", "again").code == 0


def test_run_rm_interrupted_takes_its_pods_away(
    sandbox: Callable[..., Result], environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "sandbox.cli", "run", "--rm", write(tmp_path, SLEEPER, name="gone")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + 15
        while "Running" not in sandbox("ps").out:
            assert time.monotonic() < deadline
        run.send_signal(signal.SIGINT)
        assert run.wait(10) == 130
    while "gone" in sandbox("ps", "-a").out:
        assert time.monotonic() < deadline


def test_a_timeout_is_exit_code_5(sandbox: Callable[..., Result], tmp_path: Path) -> None:
    result = sandbox("run", "--wait", "done", "--timeout", "0.5", write(tmp_path, SLEEPER, name="slow"))
    assert result.code == 5, result
    assert sandbox("rm", "-f", "slow").code == 0


def test_another_manifest_under_the_same_name_is_a_conflict(
    sandbox: Callable[..., Result], shell: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(SLEEPER.format(name=shell).replace("1000", "1001"))
    result = sandbox("run", str(other))
    assert result.code == 4, result
    assert shell in result.err


def test_the_image_is_in_use_and_completion_is_real(
    sandbox: Callable[..., Result], environment: dict[str, str], shell: str
) -> None:
    assert sandbox("images").out.splitlines()[1].startswith("localhost/busybox:latest")
    assert sandbox("rmi", "localhost/busybox:latest").code == 4
    words = {"_SANDBOX_COMPLETE": "bash_complete", "COMP_WORDS": "sandbox exec sh", "COMP_CWORD": "2"}
    assert call({**environment, **words}).out.strip() == "plain,shell"


def test_events_of_a_pod(sandbox: Callable[..., Result], shell: str) -> None:
    reasons = [event["reason"] for event in sandbox("events", "--pod", shell, "-o", "json").json["items"]]
    assert "Created" in reasons and "Started" in reasons
    assert json.loads(sandbox("events", "-o", "json").out)["kind"] == "List"
