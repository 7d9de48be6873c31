"""The monitor: exits, logs, streams, reconnection, its protocol under abuse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from pause_pod import SANITIZED, Pod, until

from sandbox.errors import Conflict, DeadlineExceeded, MonitorError, NotFound, PlanError
from sandbox.linux import constants as k
from sandbox.linux import spawn
from sandbox.linux.process import read_stat
from sandbox.runtime import ops, protocol
from sandbox.runtime.monitor import Monitor, RunRequest, read_exit_records


@pytest_asyncio.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    one = Pod(tmp_path)
    await one.start()
    yield one
    await one.close()


# ---- the process itself ----


async def test_how_it_looks_from_outside(pod: Pod) -> None:
    proc = Path(f"/proc/{pod.monitor.pid}")
    await until(lambda: (proc / "comm").read_text() == "sandbox-monitor\n")
    assert (proc / "cmdline").read_bytes() == b"sandbox-monitor\0test-pod\0"
    assert (proc / "exe").readlink().name.startswith("memfd:pause")
    assert os.getsid(pod.monitor.pid) == pod.monitor.pid
    assert pod.monitor.start_time == read_stat(pod.monitor.pid).start_time
    assert (proc / "cwd").readlink() == Path("/")
    for number in "012":
        assert (proc / "fd" / number).readlink() == Path("/dev/null")
    assert (pod.socket.stat().st_mode & 0o777) == 0o600


async def test_its_program_cannot_be_rewritten(pod: Pod) -> None:
    with pytest.raises(PermissionError):
        os.write(pod.binary.fd, b"x")
    with pytest.raises(OSError, match="busy"):
        os.open(f"/proc/{pod.monitor.pid}/exe", os.O_WRONLY)


async def test_stray_signals_do_nothing(pod: Pod) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
        os.kill(pod.monitor.pid, number)
    assert await pod.monitor.processes() == []


@pytest.mark.skipif(SANITIZED, reason="a sanitized build is large")
async def test_memory(pod: Pod) -> None:
    """What the runtime adds to a pod: tens of kilobytes."""
    await pod.run("sleep 100")
    rollup = Path(f"/proc/{pod.monitor.pid}/smaps_rollup").read_text()
    pss = int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")))
    assert pss < 128


async def test_descriptors_do_not_pile_up(pod: Pod) -> None:
    table = Path(f"/proc/{pod.monitor.pid}/fd")
    before = len(list(table.iterdir()))
    for number in range(10):
        await pod.run("true", id=f"c{number}", stdin=True)
        await pod.exit_of(f"c{number}")
        await pod.monitor.forget(f"c{number}")
    with pytest.raises(PlanError):
        await pod.run(("missing",))
    await until(lambda: len(list(table.iterdir())) == before)
    assert await pod.monitor.processes() == []


# ---- exits ----


async def test_exit_code(pod: Pod) -> None:
    begin = time.time_ns()
    result = await pod.run("exit 7")
    record = await pod.exit_of("c")
    assert (record.process_id, record.pid, record.code, record.signal) == ("c", result.pid, 7, 0)
    assert begin <= record.started_ns <= record.time_ns <= time.time_ns()


async def test_killed_by_a_signal(pod: Pod) -> None:
    await pod.run("sleep 100")
    await pod.monitor.signal("c", signal.SIGKILL)
    record = await pod.exit_of("c")
    assert (record.code, record.signal) == (137, 9)
    with pytest.raises(NotFound):
        await pod.monitor.signal("c", signal.SIGTERM)


async def test_the_record_is_on_disk_before_anybody_is_told(pod: Pod) -> None:
    await pod.run("exit 3")
    record = await pod.exit_of("c")
    assert read_exit_records(pod.state_dir) == [record]
    text = json.loads((pod.state_dir / "exits" / "c").read_text())
    assert text["code"] == 3
    await pod.monitor.forget("c")
    assert read_exit_records(pod.state_dir) == []
    await pod.monitor.forget("c")


async def test_no_record_where_none_is_wanted(pod: Pod) -> None:
    await pod.run("exit 3", record_exit=False)
    await pod.exit_of("c")
    assert read_exit_records(pod.state_dir) == []


async def test_a_torn_record_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    (tmp_path / "exits" / ".c.new").write_text("{")
    (tmp_path / "exits" / "d").write_text("{")
    (tmp_path / "exits" / "e").write_text("{}")
    assert read_exit_records(tmp_path) == []
    assert read_exit_records(tmp_path / "missing") == []


async def test_an_entry_stays_until_it_is_forgotten(pod: Pod) -> None:
    await pod.run("sleep 100")
    (running,) = await pod.monitor.processes()
    assert running.running and running.exit is None and running.process_id == "c"
    with pytest.raises(Conflict):
        await pod.run("true")
    with pytest.raises(Conflict):
        await pod.monitor.forget("c")
    await pod.monitor.signal("c", 9)
    record = await pod.exit_of("c")
    assert [p.exit for p in await pod.monitor.processes()] == [record]


async def test_many_processes_are_listed_in_several_packets(pod: Pod) -> None:
    names = {f"p{number}" for number in range(60)}
    plan = ops.Plan((ops.Exec(("/bin/busybox", "true")),))
    results = await asyncio.gather(*(pod.monitor.run(RunRequest(name, plan)) for name in names))
    for result in results:
        os.close(result.pidfd)
    await until(lambda: set(pod.exits) == names)
    assert {p.process_id for p in await pod.monitor.processes()} == names


async def test_a_grandchild_that_keeps_the_pipe_does_not_hold_the_exit(pod: Pod) -> None:
    await pod.run("(sleep 0.3; echo late) & echo early; exit 4", clone_flags=0)
    assert (await pod.exit_of("c")).code == 4
    assert pod.logged("stdout") == b"early\n"
    await until(lambda: pod.logged("stdout") == b"early\nlate\n")


async def test_the_table_is_bounded(pod: Pod) -> None:
    """Process 513 is refused, and nothing breaks."""
    plan = ops.Plan((ops.Exec(("/bin/busybox", "true")),))
    for number in range(512):
        os.close((await pod.monitor.run(RunRequest(f"p{number}", plan, record_exit=False, capture=False))).pidfd)
    with pytest.raises(MonitorError) as refused:
        await pod.monitor.run(RunRequest("one-more", plan))
    assert refused.value.errno != 0
    await until(lambda: len(pod.exits) == 512)
    await pod.monitor.forget("p0")
    os.close((await pod.monitor.run(RunRequest("one-more", plan))).pidfd)


# ---- logs ----


async def test_log_lines(pod: Pod) -> None:
    await pod.run("echo one; echo two >&2; printf 'three'; printf ' four\\n'; printf tail")
    await pod.exit_of("c")
    await until(lambda: len(pod.lines()) == 4)
    assert sorted(pod.lines()) == [
        ("stderr", "F", b"two"),
        ("stdout", "F", b"one"),
        ("stdout", "F", b"three four"),
        ("stdout", "P", b"tail"),
    ]


async def test_long_lines_are_cut_and_nothing_is_lost(pod: Pod) -> None:
    text = b"a" * 40000 + b"\n" + b"b" * 16384 + b"\n\0\xff\r\n"
    (pod.layer / "tmp" / "text").write_bytes(text)
    await pod.run("cat /tmp/text")
    await pod.exit_of("c")
    assert pod.logged("stdout") == text
    assert [tag for _, tag, _ in pod.lines()] == ["P", "P", "F", "F", "F"]
    assert max(len(content) for _, _, content in pod.lines()) == 16384


async def test_much_output_arrives_whole(pod: Pod) -> None:
    await pod.run("yes 0123456789abcdef | head -n 200000")
    await pod.exit_of("c")
    assert pod.logged("stdout") == b"0123456789abcdef\n" * 200000


async def test_reopened_log(pod: Pod, tmp_path: Path) -> None:
    await pod.run("echo old; read x; echo new", stdin=True)
    await until(lambda: len(pod.lines()) == 1)
    other = tmp_path / "log.2"
    fd = os.open(other, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    await pod.monitor.reopen_log("c", fd)
    os.close(fd)
    stdin = await pod.monitor.stdin("c")
    os.write(stdin, b"\n")
    os.close(stdin)
    await pod.exit_of("c")
    assert pod.logged("stdout") == b"old\n"
    assert other.read_bytes().endswith(b" stdout F new\n")


async def test_a_full_disk_costs_lines_not_the_container(pod: Pod) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        await pod.run("echo lost; exit 5", fds=(full,))
    finally:
        os.close(full)
    assert (await pod.exit_of("c")).code == 5


# ---- standard input, attach, terminal ----


async def test_standard_input(pod: Pod) -> None:
    await pod.run("cat; echo end", stdin=True)
    stdin = await pod.monitor.stdin("c")
    os.write(stdin, b"hello\n")
    os.close(stdin)
    await until(lambda: pod.logged("stdout") == b"hello\n")
    again = await pod.monitor.stdin("c")
    os.write(again, b"again\n")
    os.close(again)
    await pod.monitor.close_stdin("c")
    await pod.monitor.close_stdin("c")
    await pod.exit_of("c")
    assert pod.logged("stdout") == b"hello\nagain\nend\n"
    with pytest.raises(Conflict):
        await pod.monitor.stdin("c")


async def test_without_standard_input_it_is_dev_null(pod: Pod) -> None:
    assert await pod.output("cat; echo end") == "end\n"


async def read_all(fd: int) -> bytes:
    loop = asyncio.get_running_loop()
    parts = []
    while data := await asyncio.wait_for(loop.run_in_executor(None, os.read, fd, 65536), 10):
        parts.append(data)
    os.close(fd)
    return b"".join(parts)


async def test_attached_readers_get_what_the_log_gets(pod: Pod) -> None:
    await pod.run("read x; echo out; echo err >&2", stdin=True)
    out, out_write = os.pipe()
    err, err_write = os.pipe()
    await pod.monitor.attach("c", out_write, err_write)
    os.close(out_write)
    os.close(err_write)
    stdin = await pod.monitor.stdin("c")
    os.write(stdin, b"\n")
    os.close(stdin)
    assert await read_all(out) == b"out\n"
    assert await read_all(err) == b"err\n"
    await pod.exit_of("c")
    assert (pod.logged("stdout"), pod.logged("stderr")) == (b"out\n", b"err\n")


async def test_a_reader_that_keeps_up_loses_nothing(pod: Pod) -> None:
    await pod.run("read x; yes 0123456789abcdef | head -n 100000", stdin=True)
    out, write = os.pipe()
    await pod.monitor.attach("c", write, None)
    os.close(write)
    await asyncio.to_thread(os.write, stdin := await pod.monitor.stdin("c"), b"\n")
    os.close(stdin)
    assert await read_all(out) == b"0123456789abcdef\n" * 100000
    await pod.exit_of("c")


async def test_a_reader_that_takes_nothing_is_dropped(pod: Pod) -> None:
    await pod.run("read x; yes 0123456789abcdef | head -n 100000; echo end", stdin=True)
    out, write = os.pipe()
    await pod.monitor.attach("c", write, None)
    os.close(write)
    stdin = await pod.monitor.stdin("c")
    os.write(stdin, b"\n")
    os.close(stdin)
    await pod.exit_of("c")
    assert pod.logged("stdout") == b"0123456789abcdef\n" * 100000 + b"end\n"
    assert len(await read_all(out)) <= 1 << 16


async def test_a_reader_that_hangs_up_is_forgotten(pod: Pod) -> None:
    await pod.run("read x; echo a; read x; echo b", stdin=True)
    out, write = os.pipe()
    await pod.monitor.attach("c", write, None)
    os.close(write)
    os.close(out)
    stdin = await pod.monitor.stdin("c")
    os.write(stdin, b"\n\n")
    os.close(stdin)
    await pod.exit_of("c")
    assert pod.logged("stdout") == b"a\nb\n"


async def test_attach_to_what_ended(pod: Pod) -> None:
    await pod.run("true")
    await pod.exit_of("c")
    await until(lambda: True)
    out, write = os.pipe()
    await pod.monitor.attach("c", write, None)
    os.close(write)
    assert await read_all(out) == b""
    with pytest.raises(NotFound):
        await pod.monitor.attach("unknown", None, None)


async def test_terminal(pod: Pod) -> None:
    command = (
        "test -t 0 && test -t 1 && test -t 2 && echo yes; stty size; read line; echo got $line; ls -l /dev/console"
    )
    await pod.run(command, ops.Pty(pod.TTY, pod.ROOT, 30, 90, console=True), tty=True)
    out, write = os.pipe()
    await pod.monitor.attach("c", write, None)
    os.close(write)
    await until(lambda: b"30 90" in pod.logged("stdout"))
    terminal = await pod.monitor.stdin("c")
    os.write(terminal, b"hello\n")
    os.close(terminal)
    await pod.exit_of("c")
    text = pod.logged("stdout")
    assert text.startswith(b"yes\r\n30 90\r\n") and b"got hello\r\n" in text
    assert b"crw" in text and b"136," in text  # the console is the pseudo terminal
    assert text.endswith(await read_all(out))


async def test_a_terminal_handed_to_the_requester(pod: Pod) -> None:
    pty = (ops.Pty(pod.TTY, pod.ROOT), ops.SendFd(pod.TTY, "terminal"))
    result = await pod.run("stty size; echo done", *pty, capture=False)
    (terminal,) = result.fds
    await pod.exit_of("c")
    parts = []
    with contextlib.suppress(OSError):  # EIO: the last slave was closed
        while True:
            parts.append(os.read(terminal, 4096))
    assert b"".join(parts).endswith(b"done\r\n")


# ---- the daemon comes and goes ----


async def test_pods_outlive_the_daemon(pod: Pod) -> None:
    pid = pod.monitor.pid
    first = await pod.run("sleep 0.2; echo after; exit 6", id="a")
    await pod.run("sleep 100", id="b")
    pod.monitor.close()
    assert not pod.lost.is_set()
    await until(lambda: len(read_exit_records(pod.state_dir)) == 1)
    await pod.reconnect()
    assert pod.monitor.pid == pid
    processes = {p.process_id: p for p in await pod.monitor.processes()}
    assert processes["b"].running
    record = processes["a"].exit
    assert record is not None and (record.code, record.pid) == (6, first.pid)
    assert pod.logged("stdout") == b"after\n"
    await pod.monitor.signal("b", 9)
    assert (await pod.exit_of("b")).signal == 9


async def test_two_daemons_are_both_told(pod: Pod) -> None:
    told: list[str] = []
    second = await Monitor.connect(pod.socket, lambda record: told.append(record.process_id), lambda: None)
    await pod.run("true")
    await pod.exit_of("c")
    await until(lambda: told == ["c"])
    second.close()


async def test_connections_are_bounded(pod: Pod) -> None:
    more = [await Monitor.connect(pod.socket, lambda _: None, lambda: None) for _ in range(7)]
    with pytest.raises(MonitorError):
        await Monitor.connect(pod.socket, lambda _: None, lambda: None)
    for monitor in more:
        monitor.close()
    await pod.monitor.processes()


async def test_a_dead_monitor_is_noticed_and_leaves_no_zombie(pod: Pod) -> None:
    pid = pod.monitor.pid
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(pod.lost.wait(), 5)
    await until(lambda: not Path(f"/proc/{pid}").exists())
    with pytest.raises(MonitorError):
        await pod.monitor.processes()
    with pytest.raises(MonitorError):
        await pod.reconnect()
    await pod.monitor.shutdown()


async def test_shutdown_leaves_nothing(pod: Pod) -> None:
    result = await pod.run("sleep 101 & sleep 102; true", id="a", clone_flags=0)
    await pod.run("trap '' TERM; sleep 103", id="b")
    children = Path(f"/proc/{result.pid}/task/{result.pid}/children")
    await until(lambda: len(children.read_text().split()) == 2)
    orphans = children.read_text().split()
    pid = pod.monitor.pid
    await pod.monitor.shutdown()
    assert not pod.lost.is_set()
    for gone in (pid, result.pid, *orphans):
        assert not Path(f"/proc/{gone}").exists()
    assert not pod.socket.exists()
    assert {record.process_id: record.signal for record in read_exit_records(pod.state_dir)} == {"a": 9, "b": 9}
    await pod.monitor.shutdown()


# ---- requests that are wrong, slow, or abandoned ----


def raw_connection(pod: Pod) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(5)
    connection.connect(str(pod.socket))
    return connection


@pytest.mark.parametrize("change", ["short", "long", "magic", "version", "zero", "name"])
async def test_a_malformed_message_closes_only_that_connection(pod: Pod, change: str) -> None:
    good = protocol.pack_request(protocol.RequestKind.LIST, 1)
    packet = {
        "short": good[:-1],
        "long": good + b"x",
        "magic": b"\0" + good[1:],
        "version": good[:4] + b"\xff" + good[5:],
        "zero": good[:36] + b"\1" + good[37:],
        "name": good[:-1] + b"x",
    }[change]
    with raw_connection(pod) as connection:
        await asyncio.to_thread(connection.send, packet)
        assert await asyncio.to_thread(connection.recv, 100) == b""
    assert await pod.monitor.processes() == []


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "x" * 101, "ä"])
async def test_a_name_that_is_no_file_name_is_refused(pod: Pod, name: str) -> None:
    with pytest.raises(MonitorError):
        await pod.monitor.run(RunRequest(name, ops.Plan((ops.Exec(("/bin/busybox", "true")),))))


@pytest.mark.parametrize(
    "changes", [{"pidns_slot": 1}, {"cgroup_slot": 5}, {"log_slot": -2}, {"clone_flags": 0x100}], ids=str
)
async def test_slots_and_flags_out_of_bounds(pod: Pod, changes: dict[str, int]) -> None:
    plan = ops.Plan((ops.Exec(("/bin/busybox", "true")),), given=("log",))
    with pytest.raises((MonitorError, PlanError)) as refused:
        await pod.run_plan(plan, **changes)
    assert refused.value.errno == 22


async def send_plan(pod: Pod, plan_fd: int) -> protocol.Reply:
    with raw_connection(pod) as connection:
        packet = protocol.pack_request(protocol.RequestKind.RUN, 1, "raw")
        protocol.send(connection, packet, (plan_fd,))
        reply = await asyncio.to_thread(protocol.receive, connection)
    assert reply is not None
    reply.close()
    return reply


async def test_a_plan_that_could_still_change_is_refused(pod: Pod) -> None:
    fd = os.memfd_create("plan", os.MFD_ALLOW_SEALING)
    os.write(fd, ops.encode_plan(ops.Plan((ops.Exec(("/bin/busybox", "true")),))))
    reply = await send_plan(pod, fd)
    os.close(fd)
    assert (reply.stage, reply.error) == (protocol.Stage.DECODE, 1)


async def test_a_plan_of_rubbish_is_refused_with_the_operation(pod: Pod) -> None:
    good = ops.encode_plan(ops.Plan((ops.Setsid(), ops.Exec(("/bin/busybox", "true")))))
    for position, bad_op in ((0, -1), (16, 0), (16 + 64 + 4, 1), (len(good) - 1, 1)):
        data = bytearray(good)
        data[position] ^= 0xFF
        fd = spawn.memfd("plan", bytes(data))
        reply = await send_plan(pod, fd)
        os.close(fd)
        assert (reply.stage, reply.op_index) == (protocol.Stage.DECODE, bad_op)
    assert await pod.monitor.processes() == []


async def test_a_slow_plan_holds_nobody_up_and_can_be_given_up(pod: Pod, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    blocked = ops.Plan((ops.OpenPath(0, ops.HOST, str(fifo), os.O_RDONLY), ops.Exec(("/bin/busybox", "true"))))
    with pytest.raises(DeadlineExceeded):
        await pod.monitor.run(RunRequest("slow", blocked), timeout=0.2)
    await pod.run("exit 2")
    assert (await pod.exit_of("c")).code == 2
    for _ in range(200):
        if [p.process_id for p in await pod.monitor.processes()] == ["c"]:
            break
        await asyncio.sleep(0.01)
    assert [p.process_id for p in await pod.monitor.processes()] == ["c"]


async def test_a_child_killed_in_its_plan(pod: Pod, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    blocked = ops.Plan((ops.OpenPath(0, ops.HOST, str(fifo), os.O_RDONLY), ops.Exec(("/bin/busybox", "true"))))
    running = asyncio.create_task(pod.monitor.run(RunRequest("slow", blocked)))
    while not await pod.monitor.processes():
        await asyncio.sleep(0.001)
    (process,) = await pod.monitor.processes()
    assert process.running
    await pod.monitor.signal("slow", 9)
    with pytest.raises(PlanError, match="killed before"):
        await running
    assert pod.exits == {} and await pod.monitor.processes() == []


async def test_a_container_cannot_look_into_the_child_that_joins_it(pod: Pod, tmp_path: Path) -> None:
    """While a plan runs in a shared PID namespace, its process has descriptors of the host: nobody there sees them."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    weak = ops.Credentials(0, 0)  # the same user without a capability on both sides: only "dumpable" is between them
    first = await pod.run("sleep 100", last=(weak,), id="first")
    blocked = ops.OpenPath(1, ops.HOST, str(fifo), os.O_RDONLY)
    joining = ops.Plan((weak, blocked, ops.Exec(("/bin/busybox", "true"))), given=("ns",))
    waiting = asyncio.create_task(pod.monitor.run(RunRequest("joining", joining, (first.pidfd,), pidns_slot=0)))
    while len(await pod.monitor.processes()) < 2:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.1)
    spy = "ls -l /proc/2/fd/; ls /proc/2/cwd/; ls /proc/2/root/; readlink -v /proc/2/exe; echo looked"
    steps = (ops.Setns(1, k.CLONE_NEWNS), weak, ops.Exec(("sh", "-c", spy), ("PATH=/bin",)))
    plan = ops.Plan(steps, given=("log", "ns"))
    await pod.run_plan(plan, id="spy", fds=(pod.log_fd, first.pidfd), pidns_slot=1, clone_flags=0)
    await pod.exit_of("spy")
    seen, denied = pod.logged("stdout"), pod.logged("stderr")
    await pod.monitor.signal("joining", 9)
    with pytest.raises(PlanError):
        await waiting
    assert b"looked" in seen and b"memfd" not in seen and b"/fifo" not in seen and b"etc" not in seen
    assert denied.count(b"ermission denied") >= 3


async def test_any_request_leaves_the_monitor_alive(pod: Pod) -> None:
    """Well-formed requests with random contents and random descriptors."""
    rng = random.Random(7)
    await pod.run("sleep 100")
    good = spawn.memfd("plan", ops.encode_plan(ops.Plan((ops.Exec(("/bin/busybox", "true")),))))
    null = os.open("/dev/null", os.O_RDWR)
    kinds = [kind for kind in protocol.RequestKind if kind is not protocol.RequestKind.SHUTDOWN]

    def attack() -> None:
        for number in range(3000):
            with raw_connection(pod) as connection:
                packet = protocol.pack_request(
                    rng.choice(kinds),
                    number,
                    rng.choice(["c", "c", "d", "", "x" * 103]),
                    flags=rng.choice([0, 1, 2, 3, 4, 8, 15, 0xFFFF]),
                    value=rng.choice([0, 18, 999, -1]),
                    clone_flags=rng.choice([0, 0, k.CLONE_NEWPID, 1 << 63]),
                    slots=(rng.randint(-2, 2), rng.randint(-2, 2), rng.randint(-2, 2)),
                )
                fds = tuple(rng.choice([good, null]) for _ in range(rng.choice([0, 1, 2, 3, 253])))
                with contextlib.suppress(OSError):
                    protocol.send(connection, packet, fds)
                    if number % 3:
                        protocol.receive(connection)

    await asyncio.to_thread(attack)
    os.close(good)
    os.close(null)
    assert "c" in {process.process_id for process in await pod.monitor.processes()}
    await pod.monitor.signal("c", 9)
    assert (await pod.exit_of("c")).signal == 9


async def test_a_daemon_that_does_not_read_holds_nobody_up(pod: Pod) -> None:
    """Its answers wait for it; its further requests wait, too; everybody else is served."""
    plan = ops.Plan((ops.Exec(("/bin/busybox", "true")),))
    for number in range(40):
        os.close((await pod.monitor.run(RunRequest(f"p{number}", plan, record_exit=False, capture=False))).pidfd)
    await until(lambda: len(pod.exits) == 40)
    with raw_connection(pod) as deaf:
        deaf.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            for sent in range(10000):
                deaf.send(protocol.pack_request(protocol.RequestKind.LIST, sent))
        await pod.run("exit 3")
        assert (await pod.exit_of("c")).code == 3
        deaf.settimeout(5)
        answers = []
        while len(answers) < sent or not any(reply.kind == protocol.REPLY_EXIT for reply in answers):
            reply = await asyncio.to_thread(protocol.receive, deaf)
            assert reply is not None
            if not reply.more:
                answers.append(reply)
        assert sum(reply.kind == protocol.REPLY_EXIT for reply in answers) == 1
