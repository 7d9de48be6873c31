"""The commands against a server that speaks the API: what is asked, what is printed, how the process ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_contract import CONTRACT, SLEEPER, Result, write
from cli_fake import FakeDaemon, pod
from click.testing import CliRunner

from sandbox.cli.root import COMMANDS, cli, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path)
    yield daemon
    daemon.close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    names = {"SANDBOX_RUN_DIR": str(tmp_path), "SANDBOX_ROOT": str(tmp_path / "root"), "PYTHONPATH": str(ROOT)}
    return {**os.environ, **names}


@pytest.fixture
def sandbox(environment: dict[str, str]) -> Callable[..., Result]:
    def invoke(*arguments: str, input: bytes = b"") -> Result:
        if arguments[0] in ("exec", "attach"):  # these write to descriptors, not to Python's streams
            return in_process(environment, *arguments, input=input)
        runner = CliRunner()
        with runner.isolation(input=input, env=environment) as streams:
            code = run(list(arguments))
            return Result(code, streams[0].getvalue().decode(), streams[1].getvalue().decode())

    return invoke


def in_process(environment: dict[str, str], *arguments: str, input: bytes = b"") -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.cli", *arguments], env=environment, input=input, capture_output=True, timeout=60
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_contract_with_the_fake(
    clause: Callable[..., None], fake: FakeDaemon, sandbox: Callable[..., Result], tmp_path: Path
) -> None:
    clause(sandbox, tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_in_its_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"sandbox {name}" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_on_the_page(name: str) -> None:
    assert f"| `{name}" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_root_help_names_every_command_and_the_exit_codes() -> None:
    output = CliRunner().invoke(cli, ["--help"]).output
    for name in COMMANDS:
        assert f"\n  {name} " in output
    assert "no daemon" in output


def test_without_a_daemon_the_exit_code_is_6(sandbox: Callable[..., Result], tmp_path: Path) -> None:
    result = sandbox("ps")
    assert result.code == 6
    assert f"no daemon answers at {tmp_path}/api.sock" in result.err
    assert "hint: " in result.err
    assert sandbox("version").code == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["psx"], "did you mean 'ps'"),
        (["ps", "--nope"], "--nope"),
        (["run"], "missing argument"),
        (["run", "--wait", "maybe", "x"], "maybe"),
        (["run", "--rm", "--wait", "none", "x"], "--rm"),
        (["run", "/does/not/exist.yaml"], "ENOENT"),
        (["rm", "web/main"], "whole pod"),
        (["logs", "web/main", "-c", "other"], "two different containers"),
        (["logs", "a/b/c"], "'a/b/c'"),
        (["exec", "web", "--"], "missing"),
        (["-o", "wide", "inspect", "web"], "wide"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    arguments: list[str], words: str, sandbox: Callable[..., Result], fake: FakeDaemon
) -> None:
    result = sandbox(*arguments)
    assert result.code == 2, result
    assert result.err.startswith("error: ")
    assert words in result.err
    assert fake.requests == []


def test_a_huge_manifest_is_refused_before_anything_is_sent(
    sandbox: Callable[..., Result], fake: FakeDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    assert sandbox("run", str(path)).code == 2
    result = sandbox("run", "-", input=b"#" * ((4 << 20) + 1))
    assert result.code == 2
    assert "4 MiB" in result.err
    assert fake.requests == []


def test_bytes_that_are_no_text_are_refused(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    result = sandbox("run", "-", input=b"kind: \xff\n")
    assert result.code == 2
    assert "0xff at offset 6" in result.err


def test_run_asks_for_what_the_options_say(sandbox: Callable[..., Result], fake: FakeDaemon, tmp_path: Path) -> None:
    sandbox("run", "--timeout", "3", "--wait", "none", write(tmp_path, SLEEPER, name="a"))
    assert {key: fake.bodies[0][key] for key in ("wait", "timeoutSeconds", "dryRun", "rm")} == {
        "wait": "none",
        "timeoutSeconds": 3.0,
        "dryRun": False,
        "rm": False,
    }


def test_namespaces_reach_the_path(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    fake.add(pod("web", "tests"))
    assert sandbox("ps").err.startswith("no pods in namespace 'default'")
    assert "web" in sandbox("-n", "tests", "ps").out
    assert "web" in sandbox("ps", "-n", "tests").out
    assert sandbox("ps", "-A").out.splitlines()[1].split()[:2] == ["tests", "web"]
    assert sandbox("stop", "-n", "tests", "-t", "1.5", "web").out == "pod/web stopped\n"
    assert fake.requests[-1] == "POST /v1/namespaces/tests/pods/web/stop"
    assert fake.bodies[-1] == {"graceSeconds": 1.5}


def test_names_are_encoded(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    assert sandbox("describe", "a?b#c%d").code == 3
    assert fake.requests == ["GET /v1/namespaces/default/pods/a%3Fb%23c%25d/describe"]


def test_wide_and_yaml(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    fake.add(pod("web"))
    header, row = sandbox("ps", "-o", "wide").out.splitlines()
    assert header.split()[-3:] == ["QOS", "IMAGES", "UID"]
    assert row.split()[-3:] == ["BestEffort", "localhost/busybox", "uid-web"]
    assert sandbox("ps", "-o", "yaml").out.startswith("apiVersion: v1\nkind: List\nitems:\n")
    assert sandbox("-o", "json", "ps").json["items"][0]["metadata"]["name"] == "web"


def test_rm_goes_on_after_a_failure(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    fake.add(pod("web"))
    result = sandbox("rm", "nobody", "pod/web")
    assert (result.code, result.out) == (3, "pod/web removed\n")
    assert fake.pods == {}


def test_images(sandbox: Callable[..., Result], fake: FakeDaemon, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"), io.BytesIO())
    assert sandbox("load", str(archive)).out == "localhost/loaded:latest loaded (10.0KiB)\n"
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "index.json").write_text("{}")
    assert sandbox("load", str(layout), "--name", "localhost/dir:1").code == 0
    assert sandbox("load", "-", "-o", "name", input=archive.read_bytes()).out == "localhost/loaded:latest\n"
    assert sandbox("images").out.splitlines()[1].split()[:3] == ["localhost/loaded:latest", "abababababab", "10.0KiB"]
    assert sandbox("rmi", "localhost/dir:1").out == "localhost/dir:1 removed\n"
    wrong = sandbox("load", "-", input=b"not a tar")
    assert (wrong.code, "neither an OCI layout" in wrong.err) == (2, True)
    assert sandbox("load", str(tmp_path / "nothing")).code == 2


def test_events(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    about = {"kind": "Pod", "namespace": "default", "name": "web", "container": "main"}
    start = {"sequence": 1, "time": "2024-01-01T00:00:00Z", "type": "Normal", "reason": "Started", "message": "m"}
    kill = {**start, "sequence": 2, "type": "Warning", "reason": "OOMKilled", "message": "bad\x1b[2J"}
    fake.events = [{**start, "object": about}, {**kill, "object": {**about, "name": "db"}}]
    lines = sandbox("events").out.splitlines()
    assert lines[1].split()[1:4] == ["Normal", "Started", "pod/web/main"]
    assert "\x1b" not in lines[2], "text from a container must not steer the terminal"
    assert len(sandbox("events", "--pod", "web").out.splitlines()) == 2
    assert len(sandbox("events", "--after", "1", "-o", "json").json["items"]) == 1
    followed = sandbox("events", "-f", "-o", "json").out.splitlines()
    assert [json.loads(line)["reason"] for line in followed] == ["Started", "OOMKilled"]


def test_stats_measures_the_cpu(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    fake.add(pod("web"))
    fake.add(pod("other"))
    lines = sandbox("stats", "--interval", "0.1", "web").out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "web", "web/main"]
    row = lines[1].split()
    assert 450 <= int(row[1].removesuffix("m")) <= 550
    assert 20 <= int(row[2].removesuffix("%")) <= 30
    assert row[3:] == ["8.0MiB", "64.0MiB", "12%", "9.0MiB", "3", "2", "-", "-", "12/0/-"]
    assert sandbox("stats", "nobody").code == 3
    assert sandbox("stats", "-o", "json", "nobody").code == 3
    assert [each["name"] for each in sandbox("stats", "-o", "json").json["pods"]] == ["web", "other"]


def test_update_sends_what_is_named(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    fake.add(pod("web"))
    io = ("--io-read-bps", "/dev/sdb:1Mi", "--io-write-iops", "8:16:max", "--io-read-bps", "8:0:5")
    done = sandbox(
        "update", "web/main", "--cpu", "2", "--memory-request", "1Mi", "--pids", "max", *io, "--timeout", "9"
    )
    assert done.code == 0 and done.out == "pod/web resized\n  main: cpu limit 1 → 2\n"
    assert fake.bodies[-1] == {
        "container": "main",
        "limits": {"cpu": "2"},
        "requests": {"memory": "1Mi"},
        "settings": {"pids": "max", "io": "/dev/sdb rbps=1Mi; 8:0 rbps=5; 8:16 wiops=max"},
        "timeoutSeconds": 9.0,
    }
    assert fake.requests[-1] == "PATCH /v1/namespaces/default/pods/web/resources"
    assert sandbox("update", "web", "--cpu", "1").out == "pod/web unchanged\n"
    assert sandbox("update", "web", "--cpu", "2", "-o", "json").json["metadata"]["name"] == "web"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["web"], 2, "nothing to change"),
        (["web", "--io-read-bps", "/dev/sdb"], 2, "not DEVICE:RATE"),
        (["web", "--io-read-bps", "/dev/sdb x:1"], 2, "not DEVICE:RATE"),
        (["web", "--memory", "1Ki"], 2, "below its present use"),
        (["nobody", "--cpu", "1"], 3, "no pod"),
        (["web/a", "-c", "b", "--cpu", "1"], 2, "two different containers"),
    ],
)
def test_update_refuses(
    sandbox: Callable[..., Result], fake: FakeDaemon, words: list[str], code: int, says: str
) -> None:
    fake.add(pod("web"))
    done = sandbox("update", *words)
    assert done.code == code and says in done.err


def test_top_needs_a_terminal(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    done = sandbox("top")
    assert done.code == 2 and "this is none" in done.err and "sandbox stats -w" in done.err
    assert not fake.requests


def test_exec_carries_output_input_and_exit_code(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    fake.add(pod("web"))
    echoed = sandbox("exec", "web/main", "echo", "-n", "x")
    assert (echoed.code, echoed.out, echoed.err) == (0, "-n x\n", "to stderr\n")
    assert "container=main" in fake.requests[-1]
    assert sandbox("exec", "web", "--", "exit", "7").code == 7
    data = os.urandom(3 << 20).hex().encode()
    assert sandbox("exec", "-i", "web", "--", "cat", input=data).out.encode() == data


def test_exec_says_why_it_could_not(sandbox: Callable[..., Result], fake: FakeDaemon) -> None:
    fake.add(pod("web"))
    missing = sandbox("exec", "web", "--", "missing")
    assert (missing.code, missing.err) == (1, "error: no such program\n")
    gone = sandbox("exec", "web", "--", "vanish")
    assert gone.code == 6
    assert "without saying how the process ended" in gone.err
    assert "is not a terminal" in sandbox("exec", "-it", "web", "--", "cat").err


def test_a_reader_that_goes_away_ends_the_command_quietly(fake: FakeDaemon, environment: dict[str, str]) -> None:
    fake.add(pod("web"))
    command = [sys.executable, "-m", "sandbox.cli", "logs", "-f", "web"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"one\n"
        process.stdout.close()
        assert process.wait(10) == 141
        assert process.stderr.read() == b""


def test_interrupt_ends_with_130_and_without_a_traceback(fake: FakeDaemon, environment: dict[str, str]) -> None:
    fake.add(pod("web"))
    command = [sys.executable, "-m", "sandbox.cli", "logs", "-f", "web"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == b""


def test_completion_knows_commands_and_pods(fake: FakeDaemon, environment: dict[str, str]) -> None:
    fake.add(pod("web"))
    fake.add(pod("db", "tests"))
    for shell in ("bash", "zsh", "fish"):
        assert "_SANDBOX_COMPLETE" in in_process(environment, "completion", shell).out

    def complete(line: str) -> list[str]:
        names = {"_SANDBOX_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        return [entry.partition(",")[2] for entry in in_process({**environment, **names}).out.splitlines()]

    assert complete("sandbox ver") == ["version"]
    assert complete("sandbox describe ") == ["web"]
    assert complete("sandbox rm -n tests ") == ["db"]
    assert complete("sandbox -n tests rm ") == ["db"]
    assert complete("sandbox logs web/") == ["web/main"]
    fake.close()
    fake.__init__(fake.run_dir)  # type: ignore[misc]  # the fixture closes it again
    assert complete("sandbox run --wait ") == ["ready", "done", "none"]


def test_starting_is_quick_and_loads_nothing_heavy(fake: FakeDaemon, environment: dict[str, str]) -> None:
    heavy = ("aiohttp", "rich", "yaml", "asyncio", "email", "dataclasses", "pathlib", "wsproto", "subprocess", "ssl")
    code = (
        "import sys; from sandbox.cli.root import run; run(['ps']); "
        f"sys.exit(' '.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    times = []
    for _ in range(5):
        start = time.perf_counter()
        in_process(environment, "ps")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5, "an order of magnitude above what it takes: something heavy is loaded"
