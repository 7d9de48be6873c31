"""Pod sandboxes and containers on the real kernel: the whole path from a configuration to a running process."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from runtime_host import Host

from sandbox.cgroups.resources import CgroupResources
from sandbox.errors import Conflict, ImageNotFound, InvalidInput, NotFound, PlanError
from sandbox.linux.process import namespaces_of
from sandbox.runtime.config import (
    ContainerConfig,
    ContainerSecurity,
    Mount,
    NamespaceMode,
    NamespaceOptions,
    PodSandboxConfig,
    PodSandboxMetadata,
)
from sandbox.runtime.runtime import Runtime
from sandbox.runtime.status import ContainerStatus
from sandbox.timeline import Timeline

BUSYBOX = "localhost/busybox"


def pod(tmp_path: Path, name: str = "web", **changes: object) -> PodSandboxConfig:
    config = PodSandboxConfig(PodSandboxMetadata(name, f"uid-{name}"), log_directory=str(tmp_path / "logs" / name))
    return replace(config, **changes)  # type: ignore[arg-type]


def shell(script: str, name: str = "c", **changes: object) -> ContainerConfig:
    config = ContainerConfig(name=name, image=BUSYBOX, command=("/bin/sh", "-c", script), log_path=f"{name}/0.log")
    return replace(config, **changes)  # type: ignore[arg-type]


async def ended(runtime: Runtime, id: str, timeout: float = 10.0) -> ContainerStatus:
    async with asyncio.timeout(timeout):
        while runtime.container_status(id).state != "EXITED":
            await asyncio.sleep(0.01)
    return runtime.container_status(id)


async def started(runtime: Runtime, sandbox: str, config: ContainerConfig) -> str:
    id = await runtime.create_container(sandbox, config)
    await runtime.start_container(id)
    return id


def output(status: ContainerStatus) -> list[str]:
    """The lines of the log without time, stream and tag."""
    return [line.split(" ", 3)[3] for line in Path(status.log_path).read_text().splitlines()]


async def say(runtime: Runtime, sandbox: str, script: str, **changes: object) -> list[str]:
    """Runs a script to its end; its lines."""
    id = await started(runtime, sandbox, shell(script, name=f"s{os.urandom(3).hex()}", **changes))
    return output(await ended(runtime, id))


async def test_a_pod_lives_and_leaves_nothing(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    timeline = Timeline()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path), timeline)
    status = runtime.pod_sandbox_status(sandbox)
    assert status.state == "READY" and status.addresses[0].startswith("10.199.0.")
    assert Path(status.netns_path).exists()
    id = await runtime.create_container(sandbox, shell("echo out; echo err >&2; sleep 100"), timeline)
    assert runtime.container_status(id).state == "CREATED"
    await runtime.start_container(id, timeline)
    assert {span.name for span in timeline.spans} == {
        "record", "image", "cgroups", "namespaces", "network", "mounts", "exec",
    }  # fmt: skip
    container = runtime.container_status(id)
    assert container.state == "RUNNING" and Path(f"/proc/{container.pid}").exists()
    of_pause, of_app, ours = namespaces_of(status.pause_pid), namespaces_of(container.pid), namespaces_of()
    for name in ("net", "ipc", "uts"):
        assert of_app[name] == of_pause[name] != ours[name]
    for name in ("mnt", "pid", "cgroup"):
        assert of_app[name] not in (of_pause[name], ours[name])
    await runtime.stop_container(id, 0.2)
    stopped = runtime.container_status(id)
    assert (stopped.state, stopped.exit_code, stopped.signal) == ("EXITED", 137, signal.SIGKILL)
    assert output(stopped) == ["out", "err"]
    await runtime.remove_pod_sandbox(sandbox)
    await runtime.remove_pod_sandbox(sandbox)
    assert runtime.list_pod_sandboxes() == [] and runtime.list_containers() == []
    for pid in (status.pause_pid, status.monitor_pid, container.pid):
        assert not Path(f"/proc/{pid}").exists()
    assert not Path(status.netns_path).exists()
    assert list((host.root / "pods").iterdir()) == [] and list((host.run_dir / "pods").iterdir()) == []
    assert not host.cgroups.exists(status.cgroup_path)
    assert host.run_dir.name not in Path("/proc/self/mountinfo").read_text()


async def test_exit_codes_and_signals(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    # In a PID namespace of its own the shell would be PID 1, which no signal of its own kills.
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, namespaces=NamespaceOptions(pid=NamespaceMode.POD)))
    for script, code, number, reason in (
        ("exit 0", 0, 0, "Completed"),
        ("exit 7", 7, 0, "Error"),
        ("kill -TERM $$", 143, signal.SIGTERM, "Error"),
        ("kill -KILL $$", 137, signal.SIGKILL, "Error"),
    ):
        status = await ended(runtime, await started(runtime, sandbox, shell(script, name=f"c{code}")))
        assert (status.exit_code, status.signal, status.reason) == (code, number, reason)
        assert status.started_ns <= status.finished_ns


async def test_what_a_container_sees(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, hostname="box"))
    address = runtime.pod_sandbox_status(sandbox).addresses[0]
    lines = await say(
        runtime, sandbox,
        "hostname; echo $$; grep -c . /proc/mounts >/dev/null && echo mounts; cat /etc/hostname; grep box /etc/hosts;"
        "ls /dev | tr '\\n' ' '; echo; ls /proc/self/fd | wc -l; pwd; id -u; "
        "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status;"
        "cat /proc/interrupts | wc -c; touch /proc/sys/kernel/x 2>/dev/null || echo sealed;"
        "ls -d /run/netns 2>/dev/null; echo $HOME",
    )  # fmt: skip
    assert lines[0] == "box" and lines[1] == "1" and lines[2] == "mounts" and lines[3] == "box"
    assert lines[4].split() == [address, "box"]
    assert {"null", "zero", "full", "random", "urandom", "tty", "shm", "mqueue", "pts", "ptmx", "fd"} <= set(
        lines[5].split()
    )
    assert int(lines[6]) == 4  # 0, 1, 2 and the directory ls reads
    assert lines[7:] == ["/", "0", "NoNewPrivs:\t1", "Seccomp:\t2", "0", "sealed", "/root"]


async def test_containers_share_network_ipc_and_shm(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    await started(
        runtime,
        sandbox,
        shell("echo shared >/dev/shm/x; mkdir /w; echo page >/w/index.html; httpd -f -p 8080 -h /w", "srv"),
    )
    wait = "for i in $(seq 50); do wget -q -O - http://127.0.0.1:8080/ && break; sleep 0.1; done; cat /dev/shm/x"
    assert await say(runtime, sandbox, wait) == ["page", "shared"]


@pytest.mark.parametrize("mode", [NamespaceMode.POD, NamespaceMode.CONTAINER, NamespaceMode.NODE])
async def test_pid_namespaces(host: Host, tmp_path: Path, mode: NamespaceMode) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, namespaces=NamespaceOptions(pid=mode)))
    lines = await say(runtime, sandbox, "echo $$; cat /proc/1/comm; ls /proc/1/root/ /proc/1/fd 2>&1 | head -3")
    if mode is NamespaceMode.CONTAINER:
        assert lines[0] == "1" and lines[1] == "sh"
    elif mode is NamespaceMode.POD:
        assert int(lines[0]) > 1 and lines[1] == "pause"
        assert any("denied" in line or "not permitted" in line for line in lines[2:])  # nothing in it to look at
    else:
        assert int(lines[0]) > 100


async def test_a_leftover_of_a_shared_pid_namespace_ends_with_its_container(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, namespaces=NamespaceOptions(pid=NamespaceMode.POD)))
    id = await started(runtime, sandbox, shell("setsid sleep 12345 & exit 3"))
    status = await ended(runtime, id)
    assert status.exit_code == 3
    async with asyncio.timeout(5):
        while host.cgroups.exists(status.cgroup_path):
            await asyncio.sleep(0.02)
    assert "12345" not in os.popen("ps -eo args").read()


@pytest.mark.parametrize(
    ("changes", "operation", "errno_name"),
    [
        ({"command": ("/no/such/command",)}, "exec /no/such/command", "ENOENT"),
        ({"command": ("nonsense",)}, "exec nonsense", "ENOENT"),
        ({"command": ("/etc/passwd",)}, "exec /etc/passwd", "EACCES"),
        ({"working_dir": "/no/such/dir"}, "chdir /no/such/dir", "ENOENT"),
        ({"mounts": (Mount("/bin/busybox/x", "/etc"),)}, "mount", "ENOTDIR"),
    ],
)
async def test_a_failed_start_names_the_operation(
    host: Host, tmp_path: Path, changes: dict[str, object], operation: str, errno_name: str
) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    id = await runtime.create_container(sandbox, shell("true", **changes))
    with pytest.raises(PlanError, match=errno_name) as caught:
        await runtime.start_container(id)
    assert operation in caught.value.operation
    status = runtime.container_status(id)
    assert (status.state, status.exit_code, status.reason) == ("EXITED", 128, "StartError")
    assert not host.cgroups.exists(status.cgroup_path)


async def test_refusals_before_anything_is_made(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    for config, error in (
        (replace(shell("true"), image="localhost/absent"), ImageNotFound),
        (shell("true", security=ContainerSecurity(add_capabilities=("FLY",))), InvalidInput),
        (shell("true", security=ContainerSecurity(run_as_username="nobody-here")), InvalidInput),
        (shell("true", security=ContainerSecurity(run_as_non_root=True)), InvalidInput),
        (shell("true", stop_signal="SIGNOPE"), InvalidInput),
        (shell("true", mounts=(Mount("/x", "/no/such/source"),)), InvalidInput),
        (shell("true", working_dir="relative"), InvalidInput),
    ):
        with pytest.raises(error):
            await runtime.create_container(sandbox, config)
    assert runtime.list_containers() == []
    with pytest.raises(NotFound):
        await runtime.create_container("absent", shell("true"))
    id = await started(runtime, sandbox, shell("sleep 100"))
    with pytest.raises(Conflict):
        await runtime.start_container(id)
    await runtime.stop_pod_sandbox(sandbox)
    with pytest.raises(Conflict):
        await runtime.create_container(sandbox, shell("true"))


async def test_user_capabilities_and_read_only_root(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    script = "id -u; id -g; grep CapEff /proc/self/status; touch /x 2>/dev/null || echo sealed"
    user = ContainerSecurity(run_as_user=1000, run_as_group=2000, supplemental_groups=(3000,), readonly_rootfs=True)
    lines = await say(runtime, sandbox, script + "; id -G", security=user)
    assert lines[:4] == ["1000", "2000", "CapEff:\t0000000000000000", "sealed"] and lines[-1].split() == [
        "2000",
        "3000",
    ]
    drop = ContainerSecurity(drop_capabilities=("ALL",), add_capabilities=("NET_ADMIN",))
    assert await say(runtime, sandbox, "grep CapEff /proc/self/status", security=drop) == ["CapEff:\t0000000000001000"]


async def test_volumes_and_sub_paths(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    source = tmp_path / "volume"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "file").write_text("inside\n")
    (source / "out").symlink_to("/etc")
    mounts = (Mount("/a", str(source)), Mount("/b/c", str(source), readonly=True, sub_path="inner"))
    lines = await say(
        runtime, sandbox, "cat /b/c/file; touch /b/c/x 2>/dev/null || echo sealed; echo w >/a/new", mounts=mounts
    )
    assert lines == ["inside", "sealed"] and (source / "new").read_text() == "w\n"
    id = await runtime.create_container(sandbox, shell("true", mounts=(Mount("/a", str(source), sub_path="out"),)))
    with pytest.raises(PlanError):
        await runtime.start_container(id)


async def test_limits_reach_the_cgroup_and_an_oom_is_told(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    events: list[str] = []
    runtime.subscribe(lambda event: events.append(event.kind))
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    limits = CgroupResources(memory_limit_bytes=16 << 20, memory_swap_limit_bytes=16 << 20, pids_limit=32)
    id = await started(runtime, sandbox, shell("x=$(yes | head -c 200000000); echo never", resources=limits))
    status = await ended(runtime, id)
    assert status.exit_code != 0 and "oom" in events
    id = await started(runtime, sandbox, shell("exec tail /dev/zero", resources=limits))
    status = await ended(runtime, id)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


async def test_exec_streams_codes_and_terminals(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    id = await started(runtime, sandbox, shell("sleep 1000"))
    session = await runtime.exec(id, ("/bin/sh", "-c", "cat; echo err >&2; exit 5"), stdin=True)
    assert session.stdin_fd is not None and session.stdout_fd is not None and session.stderr_fd is not None
    os.write(session.stdin_fd, b"hello")
    session.close_stdin()
    assert await session.wait() == 5
    assert os.read(session.stdout_fd, 100) == b"hello" and os.read(session.stderr_fd, 100) == b"err\n"
    assert os.read(session.stdout_fd, 100) == b""
    session.close()
    terminal = await runtime.exec(
        id, ("/bin/sh", "-c", "tty; stty size; ps | grep -c 'sleep 1000'"), tty=True, rows=33, columns=99
    )
    assert await terminal.wait() == 0 and terminal.terminal_fd is not None
    text = os.read(terminal.terminal_fd, 1000).decode()
    assert "/dev/pts/" in text and "33 99" in text
    terminal.close()
    with pytest.raises(PlanError, match="ENOENT"):
        await runtime.exec(id, ("/no/such",))
    with pytest.raises(InvalidInput):
        await runtime.exec(id, ())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        session = await runtime.exec(id, ("/bin/true",))
        assert await session.wait() == 0
        session.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_attach_and_input(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    id = await started(runtime, sandbox, shell("cat; echo end", stdin=True, stdin_once=True))
    session = await runtime.attach(id, stdin=True)
    assert session.stdin_fd is not None and session.stdout_fd is not None
    os.write(session.stdin_fd, b"typed\n")
    await asyncio.sleep(0.2)
    await runtime.end_of_input(id, session)
    status = await ended(runtime, id)
    assert status.exit_code == 0 and output(status) == ["typed", "end"]
    assert os.read(session.stdout_fd, 100).startswith(b"typed\n")
    session.close()


async def test_the_daemon_restarts_and_everything_is_as_before(host: Host, tmp_path: Path) -> None:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    stays = await started(runtime, sandbox, shell("while :; do echo tick; sleep 0.1; done", "stays"))
    ends = await started(runtime, sandbox, shell("sleep 0.3; exit 9", "ends"))
    before, pid = runtime.pod_sandbox_status(sandbox), runtime.container_status(stays).pid
    await host.forget(runtime)
    await asyncio.sleep(0.8)
    runtime = await host.runtime()
    assert runtime.pod_sandbox_status(sandbox) == before
    assert runtime.container_status(stays).state == "RUNNING" and runtime.container_status(stays).pid == pid
    exited = runtime.container_status(ends)
    assert (exited.state, exited.exit_code) == ("EXITED", 9)
    session = await runtime.exec(stays, ("/bin/true",))
    assert await session.wait() == 0
    session.close()
    await runtime.stop_container(stays, 0)
    assert runtime.container_status(stays).exit_code == 137


@pytest.mark.parametrize("victim", ["monitor", "pause"])
async def test_a_pod_that_lost_its_monitor_or_pause_ends_whole(host: Host, tmp_path: Path, victim: str) -> None:
    runtime = await host.runtime()
    events: list[str] = []
    runtime.subscribe(lambda event: events.append(event.kind))
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    id = await started(runtime, sandbox, shell("sleep 1000"))
    status = runtime.pod_sandbox_status(sandbox)
    pid = runtime.container_status(id).pid
    os.kill(status.monitor_pid if victim == "monitor" else status.pause_pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while "pod-lost" not in events:
            await asyncio.sleep(0.02)
    assert runtime.pod_sandbox_status(sandbox).state == "NOTREADY"
    assert runtime.container_status(id).state == "EXITED"
    async with asyncio.timeout(5):
        while Path(f"/proc/{pid}").exists() or Path(f"/proc/{status.pause_pid}").exists():
            await asyncio.sleep(0.02)
    await runtime.remove_pod_sandbox(sandbox)
