"""The interpreter: every operation does what it says and fails with its own index; a hostile root file system changes
nothing outside of itself."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from pause_pod import ENV, PAUSE, SANITIZED, Pod

from sandbox.errors import PlanError
from sandbox.linux import capabilities
from sandbox.linux import constants as k
from sandbox.runtime import ops
from sandbox.runtime.monitor import RunRequest


@pytest_asyncio.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    one = Pod(tmp_path)
    await one.start()
    yield one
    await one.close()


async def failure(pod: Pod, *middle: ops.Op, last: tuple[ops.Op, ...] = ()) -> PlanError:
    """The error of a plan that must fail; nothing of it may be left."""
    with pytest.raises(PlanError) as caught:
        await pod.run("true", *middle, last=last)
    assert "c" not in {process.process_id for process in await pod.monitor.processes()}
    return caught.value


# ---- what a container starts with ----


async def test_it_gets_three_descriptors_and_nothing_else(pod: Pod) -> None:
    """CVE-2024-21626: neither the plan's slots nor the monitor's own descriptors reach the container."""
    command = "ls -l /proc/self/fd; readlink /proc/self/cwd"
    lines = (await pod.output(command, ops.OpenPath(pod.FREE, ops.HOST, "/", os.O_RDONLY))).splitlines()
    shown = [line for line in lines if "->" in line]
    assert "/dev/null" in shown[0] and "pipe:" in shown[1] and "pipe:" in shown[2]
    assert [line.split()[8] for line in shown] == ["0", "1", "2"]
    others = [line for line in lines[:-1] if line not in shown and not line.startswith("total")]
    assert [line.split()[-1] for line in others] in ([], ["3"])  # the directory that ls itself reads
    assert lines[-1] == "/"


async def test_it_starts_with_a_clean_state(pod: Pod) -> None:
    (pod.layer / "bin" / "grep").symlink_to("busybox")
    text = await pod.output("grep -E 'Sig(Blk|Ign|Cgt)' /proc/1/status; umask; cat /proc/1/oom_score_adj")
    blocked, ignored, _, umask, adj = (line.split()[-1] for line in text.splitlines())
    assert int(blocked, 16) == 0 and int(ignored, 16) & ~(1 << 2) == 0  # ash ignores SIGQUIT itself
    assert umask == "0022"
    assert adj == Path("/proc/self/oom_score_adj").read_text().strip()


async def test_arguments_and_environment(pod: Pod) -> None:
    (pod.layer / "bin" / "env").symlink_to("busybox")
    (pod.layer / "bin" / "printf").symlink_to("busybox")
    assert await pod.output(("env",)) == "PATH=/bin\nHOME=/root\n"
    assert await pod.output(("printf", "<%s>", "", "a b", "")) == "<><a b><>"


# ---- failures ----


async def test_a_failure_names_its_operation(pod: Pod) -> None:
    steps = (ops.Setsid(), ops.Hostname("x"), ops.Chdir("/nowhere"), ops.Setsid(), ops.Exec(("/bin/busybox",)))
    with pytest.raises(PlanError) as caught:
        await pod.run_plan(ops.Plan(steps, given=("log",)), clone_flags=k.CLONE_NEWUTS)
    assert (caught.value.operation, caught.value.errno) == ("chdir /nowhere", errno.ENOENT)
    assert "chdir /nowhere failed: ENOENT" in str(caught.value)


async def test_an_empty_slot(pod: Pod) -> None:
    for op in (
        ops.SendFd(9),
        ops.Close(9),
        ops.Dup(9, 1),
        ops.Setns(9, 0),
        ops.Mkdir(9, "/x"),
        ops.MountSetattr(9),
        ops.MoveMount(9, ops.HOST, "/mnt"),
        ops.PivotRoot(9),
        ops.Mask(9, ops.HOST, "/proc/kcore"),
    ):
        error = await failure(pod, op)
        assert (error.operation, error.errno) == (op.describe(), errno.EBADF)


async def test_an_optional_failure_is_a_warning(pod: Pod) -> None:
    missing = ops.WriteFile(ops.HOST, "/proc/sys/no/such", b"1", optional=True)
    result = await pod.run("true", missing)
    assert result.warnings == ((len(pod.overlay()), errno.ENOENT),)


async def test_a_relative_path_of_the_host_is_refused(pod: Pod) -> None:
    assert (await failure(pod, ops.OpenPath(pod.FREE, ops.HOST, "etc", os.O_RDONLY))).errno == errno.EINVAL


async def test_marks(pod: Pod) -> None:
    result = await pod.run("true", ops.Mark(1), ops.Mark(4))
    assert list(result.marks) == [1, 4] and 0 < result.marks[1] <= result.marks[4]


# ---- exec ----


async def test_exec_searches_the_path(pod: Pod) -> None:
    (pod.layer / "denied").mkdir()
    (pod.layer / "denied" / "tool").write_text("")
    (pod.layer / "denied" / "only").write_text("")
    (pod.layer / "bin" / "tool").symlink_to("busybox")

    async def run(name: str, path: str) -> PlanError | None:
        steps = (*pod.overlay(), ops.PivotRoot(pod.ROOT), ops.Exec((name, "true"), (f"PATH={path}",)))
        try:
            await pod.run_plan(ops.Plan(steps, given=("log",)), id=f"e{len(pod.exits)}-{name}")
        except PlanError as error:
            return error
        return None

    assert await run("busybox", "/missing:/denied:/bin/busybox:/bin") is None
    (pod.layer / "bin" / "tool").unlink()
    for name, expected in (("only", errno.EACCES), ("absent", errno.ENOENT)):
        error = await run(name, "/denied:/bin")
        assert error is not None and error.errno == expected and error.operation.startswith("exec")


async def test_exec_of_a_directory_or_of_no_program(pod: Pod) -> None:
    (pod.layer / "etc" / "text").write_text("neither a program nor a script")
    (pod.layer / "etc" / "text").chmod(0o755)
    for name, number in (("/etc", errno.EACCES), ("/etc/text", errno.ENOEXEC), ("/etc/text/x", errno.ENOTDIR)):
        with pytest.raises(PlanError) as caught:
            await pod.run((name,))
        assert caught.value.errno == number


# ---- files in a hostile root ----


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that no container may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("host")
    return folder


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../..{outside}", "/proc/1/root{outside}"])
async def test_links_lead_to_the_same_root(pod: Pod, outside: Path, target: str) -> None:
    link = target.format(outside=outside)
    (pod.layer / "escape").symlink_to(link)
    (pod.layer / "escape-file").symlink_to(link + "/file")
    steps = [
        ops.Mkdir(pod.ROOT, "/escape/a/b", 0o700),
        ops.WriteFile(pod.ROOT, "/escape/new", b"x", create=True, optional=True),
        ops.WriteFile(pod.ROOT, "/escape-file", b"x", create=True, optional=True),
        ops.Symlink(pod.ROOT, "/escape/link", "x"),
        ops.Mknod(pod.ROOT, "/escape/node", 0o20600, os.makedev(1, 3)),
        ops.Filesystem(pod.FREE, "tmpfs", source="x"),
        ops.MoveMount(pod.FREE, pod.ROOT, "/escape/mount", create="dir"),
    ]
    try:
        await pod.run("true", *steps)
    except PlanError as error:
        assert "/proc/1/root" in target, error  # a magic link is refused: nothing is made at all
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    assert (outside / "file").read_text() == "host"


async def test_a_mount_point_behind_a_dangling_link(pod: Pod, outside: Path) -> None:
    """An image's /etc/resolv.conf is often a link to a file that is not in the image."""
    (pod.layer / "etc" / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (pod.layer / "var").symlink_to("/elsewhere/var")
    command = "cat /etc/resolv.conf /run/systemd/resolve/stub-resolv.conf /var/deep/x /elsewhere/var/deep/x"
    text = await pod.output(
        command,
        ops.OpenTree(pod.FREE, str(outside / "file"), k.OPEN_TREE_CLONE),
        ops.OpenTree(pod.FREE + 1, str(outside / "file"), k.OPEN_TREE_CLONE),
        ops.MoveMount(pod.FREE, pod.ROOT, "/etc/resolv.conf", create="file"),
        ops.MoveMount(pod.FREE + 1, pod.ROOT, "/var/deep/x", create="file"),
    )
    assert text == "host" * 4


async def test_a_loop_of_links_ends(pod: Pod) -> None:
    (pod.layer / "a").symlink_to("b")
    (pod.layer / "b").symlink_to("a")
    assert (await failure(pod, ops.Mkdir(pod.ROOT, "/a/x"))).errno == errno.ELOOP


async def test_a_plain_path_refuses_links(pod: Pod) -> None:
    """CVE-2021-30465, CVE-2025-52881: /proc must be the container's /proc and not where a link leads."""
    (pod.layer / "sys").symlink_to("tmp")
    tmpfs = ops.Filesystem(pod.FREE, "tmpfs", source="x")
    error = await failure(pod, tmpfs, ops.MoveMount(pod.FREE, pod.ROOT, "/sys", create="dir", no_symlinks=True))
    assert error.errno == errno.ELOOP
    error = await failure(pod, tmpfs, ops.MoveMount(pod.FREE, pod.ROOT, "/sys/new/x", create="dir", no_symlinks=True))
    assert error.errno == errno.ELOOP


async def test_a_fifo_in_the_way_does_not_block(pod: Pod) -> None:
    os.mkfifo(pod.layer / "etc" / "hosts")
    error = await failure(pod, ops.WriteFile(pod.ROOT, "/etc/hosts", b"x"))
    assert error.errno == errno.ENXIO


async def test_a_working_directory_outside_is_refused(pod: Pod) -> None:
    """CVE-2024-21626: a descriptor of the host that is open in the child is no way out."""
    (pod.layer / "etc" / "fd").symlink_to("/proc/self/fd/10")
    host = ops.OpenPath(pod.FREE, ops.HOST, "/", os.O_RDONLY | os.O_DIRECTORY)
    for place in (*(f"/proc/self/fd/{number}" for number in range(3, 20)), "/etc/fd", "/proc/self/fd/10/etc"):
        error = await failure(pod, host, last=(ops.Chdir(place),))
        assert error.operation.startswith("chdir") and error.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR)


async def test_files_get_what_was_asked(pod: Pod) -> None:
    text = await pod.output(
        "ls -ldn /a /a/b /dev/x /link /note; cat /note",
        ops.Mkdir(pod.ROOT, "/a/b", 0o3770, 7, 8),
        ops.Mkdir(pod.ROOT, "/a/b", 0o700),
        ops.Mknod(pod.DEV, "x", 0o20640, os.makedev(1, 5), 3, 4),
        ops.Symlink(pod.ROOT, "/link", "target"),
        ops.Symlink(pod.ROOT, "/link", "other"),
        ops.WriteFile(pod.ROOT, "/note", b"text", create=True, mode=0o604),
    )
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][0] == "drwxr-xr-x" and lines[0][2:4] == ["0", "0"]
    assert lines[1][0] == "drwxrws--T" and lines[1][2:4] == ["7", "8"]
    assert lines[2][0] == "crw-r-----" and lines[2][2:6] == ["3", "4", "1,", "5"]
    assert lines[3][-1] == "target"
    assert lines[4][0] == "-rw----r--" and lines[5] == ["text"]


# ---- mounts ----


async def test_a_volume_and_its_sub_path(pod: Pod, tmp_path: Path, outside: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "a").mkdir(parents=True)
    (volume / "a" / "data").write_text("volume")
    (volume / "inside").symlink_to("a")
    (volume / "out").symlink_to(outside)
    (volume / "up").symlink_to("../outside")

    def mount(sub_path: str) -> tuple[ops.Op, ...]:
        tree = ops.OpenTree(pod.FREE, str(volume), k.OPEN_TREE_CLONE, sub_path=sub_path)
        readonly = ops.MountSetattr(pod.FREE, attr_set=k.MOUNT_ATTR_RDONLY)
        return tree, readonly, ops.MoveMount(pod.FREE, pod.ROOT, "/mnt/v", create="dir")

    assert await pod.output("cat /mnt/v/data; touch /mnt/v/x 2>&1", *mount("inside")) == (
        "volumetouch: /mnt/v/x: Read-only file system\n"
    )
    for sub_path in ("out", "up", "../outside", "/etc"):
        assert (await failure(pod, *mount(sub_path))).errno == errno.EXDEV


async def test_masked_and_read_only_paths(pod: Pod) -> None:
    text = await pod.output(
        "cat /etc/secret; ls /etc/dir; touch /etc/dir/x 2>&1; touch /tmp/x 2>&1; echo still",
        ops.WriteFile(pod.ROOT, "/etc/secret", b"secret", create=True),
        ops.Mkdir(pod.ROOT, "/etc/dir/below"),
        ops.OpenPath(pod.FREE, pod.DEV, "null", k.O_PATH),
        ops.Mask(pod.FREE, pod.ROOT, "/etc/secret"),
        ops.Mask(pod.FREE, pod.ROOT, "/etc/dir"),
        ops.Mask(pod.FREE, pod.ROOT, "/etc/missing"),
        ops.Mask(pod.FREE, pod.ROOT, "/etc/secret/below-a-file"),
        ops.ReadOnly(pod.ROOT, "/tmp"),
        ops.ReadOnly(pod.ROOT, "/missing"),
    )
    assert text.splitlines() == [
        "touch: /etc/dir/x: Read-only file system",
        "touch: /tmp/x: Read-only file system",
        "still",
    ]


async def test_only_the_null_device_masks(pod: Pod) -> None:
    """CVE-2025-31133."""
    device = ops.OpenPath(pod.FREE, pod.ROOT, "/bin/busybox", k.O_PATH)
    assert (await failure(pod, device, ops.Mask(pod.FREE, pod.ROOT, "/etc"))).errno == errno.EXDEV
    device = ops.OpenPath(pod.FREE, pod.DEV, "null", k.O_PATH)
    (pod.layer / "hidden").symlink_to("etc")
    assert (await failure(pod, device, ops.Mask(pod.FREE, pod.ROOT, "/hidden"))).errno == errno.ELOOP


async def test_the_old_root_is_gone(pod: Pod, outside: Path) -> None:
    text = await pod.output(f"ls {outside} 2>&1; ls -a /..; cat /proc/mounts")
    assert "No such file" in text and str(pod.folder / "mnt") not in text
    assert {line.split()[1] for line in text.splitlines() if " rw," in line or " ro," in line} == {
        "/",
        "/dev",
        "/dev/pts",
        "/proc",
    }


async def test_an_overlay_writes_to_its_upper_only(pod: Pod, tmp_path: Path) -> None:
    assert await pod.output("echo new > /etc/new; cat /etc/new") == "new\n"
    assert not (pod.layer / "etc" / "new").exists()
    assert (tmp_path / "upper" / "etc" / "new").read_text() == "new\n"


@pytest.mark.parametrize("depth", [1, 3])
async def test_layers_lie_in_order_also_with_long_paths(pod: Pod, tmp_path: Path, depth: int) -> None:
    folder = tmp_path.joinpath(*(["x" * 120] * depth))
    layers = []
    for number in range(20):
        layer = folder / f"l{number}"
        (layer / "etc").mkdir(parents=True)
        (layer / "etc" / "top").write_text(str(number))
        layers.append(str(layer))
    steps = (
        ops.Unshare(k.CLONE_NEWNS),
        ops.RootPropagation(k.MS_REC | k.MS_PRIVATE),
        ops.Overlay(pod.ROOT, (*reversed(layers), str(pod.layer))),
        ops.MoveMount(pod.ROOT, ops.HOST, str(tmp_path / "mnt")),
        ops.PivotRoot(pod.ROOT),
        ops.Exec(("sh", "-c", "cat /etc/top; touch /x 2>&1"), ENV),
    )
    await pod.run_plan(ops.Plan(steps, given=("log",)))
    await pod.exit_of("c")
    assert pod.logged("stdout") == b"19touch: /x: Read-only file system\n"


OLD_KERNEL = """
import asyncio, pathlib, sys
import pyseccomp
sys.path[:0] = {path!r}
from pause_pod import ENV, Pod
from sandbox.linux import constants as k
from sandbox.runtime import ops

async def main(folder):
    pod = Pod(folder)
    refuse = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refuse.add_rule(pyseccomp.ERRNO(38), "fsopen")
    refuse.load()
    await pod.start()
    upper, work, second = folder / "up,per:1", folder / "wo,rk", folder / "sec,ond:layer"
    for path in (upper, work, second / "etc"):
        path.mkdir(parents=True)
    (second / "etc" / "second").write_text("second")
    root = pod.ROOT
    steps = (
        ops.Unshare(k.CLONE_NEWNS),
        ops.RootPropagation(k.MS_REC | k.MS_PRIVATE),
        ops.Overlay(root, (str(second), str(pod.layer)), str(upper), str(work), k.MOUNT_ATTR_NOSUID),
        ops.Mkdir(root, "/proc"),
        ops.MoveMount(root, ops.HOST, str(folder / "mnt")),
        ops.OpenTree(pod.PROC, "/proc", k.OPEN_TREE_CLONE),
        ops.MoveMount(pod.PROC, root, "/proc"),
        ops.PivotRoot(root),
        ops.Exec(("sh", "-c", "cat /etc/second; echo x > /etc/new; head -n 1 /proc/self/mounts"), ENV),
    )
    await pod.run_plan(ops.Plan(steps, given=("log",)), clone_flags=0)
    await pod.exit_of("c")
    print(pod.logged("stdout").decode(), pod.logged("stderr").decode(), (upper / "etc" / "new").read_text())
    await pod.close()

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


def test_overlay_of_an_old_kernel(tmp_path: Path) -> None:
    """Where fsopen does not exist, the overlay is made by mount(2), in a namespace that nobody sees."""
    here = Path(__file__).parent
    script = OLD_KERNEL.format(path=[str(here.parents[1]), str(here)])
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("second") and " / overlay rw,nosuid," in done.stdout and done.stdout.endswith("x\n\n")
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


# ---- namespaces and devices ----


async def test_host_name_and_loopback(pod: Pod) -> None:
    (pod.layer / "bin" / "hostname").symlink_to("busybox")
    flags = k.CLONE_NEWPID | k.CLONE_NEWUTS | k.CLONE_NEWNET
    before = socket.gethostname()
    text = await pod.output("hostname; cat /proc/net/dev", ops.Hostname("box"), ops.LoopbackUp(), clone_flags=flags)
    assert text.startswith("box\n") and "lo:" in text
    assert socket.gethostname() == before


async def test_a_socket_of_another_network_namespace(pod: Pod) -> None:
    steps = (
        ops.LoopbackUp(),
        ops.Socket(1, socket.AF_NETLINK, socket.SOCK_RAW, 0),
        ops.SendFd(1, "netlink"),
        ops.OpenPath(2, ops.HOST, "/proc/self/ns/net", os.O_RDONLY),
        ops.SendFd(2, "netns"),
        ops.Exec(("/bin/busybox", "sleep", "100")),
    )
    result = await pod.run_plan(ops.Plan(steps, given=("log",)), clone_flags=k.CLONE_NEWNET)
    netlink, netns = result.fds
    assert os.fstat(netns).st_ino == Path(f"/proc/{result.pid}/ns/net").stat().st_ino
    assert os.fstat(netns).st_ino != Path("/proc/self/ns/net").stat().st_ino
    # RTM_GETLINK, dump: only lo, and it is up.
    with socket.socket(fileno=os.dup(netlink)) as sock:
        sock.send(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))
        answer = sock.recv(65536)
    assert answer.count(b"lo\0") == 1 and struct.unpack_from("=I", answer, 24)[0] & 1


async def test_a_shared_pid_namespace(pod: Pod) -> None:
    first = await pod.run("sleep 100", id="first")
    steps = (ops.Setns(1, k.CLONE_NEWNS), ops.Exec(("ps", "-o", "pid,args"), ENV))
    await pod.run_plan(ops.Plan(steps, given=("log", "ns")), fds=(pod.log_fd, first.pidfd), pidns_slot=1, clone_flags=0)
    await pod.exit_of("c")
    text = pod.logged("stdout").decode()
    assert text.splitlines()[1].startswith("    1 ") and text.splitlines()[1].endswith("sleep 100") and " ps -o" in text
    # The monitor came home: the next child is born in its own PID namespace again.
    await pod.run_plan(ops.Plan((ops.Exec(("/bin/busybox", "sleep", "1")),), given=("log",)), id="home", clone_flags=0)
    pid = next(p.pid for p in await pod.monitor.processes() if p.process_id == "home")
    assert Path(f"/proc/{pid}/ns/pid").stat().st_ino == Path(f"/proc/{pod.monitor.pid}/ns/pid").stat().st_ino


async def test_a_pid_namespace_whose_init_is_dead(pod: Pod) -> None:
    first = await pod.run("sleep 100", id="first")
    namespace = os.open(f"/proc/{first.pid}/ns/pid", os.O_RDONLY)
    await pod.monitor.signal("first", 9)
    await pod.exit_of("first")
    plan = ops.Plan((ops.Exec(("/bin/busybox", "true")),), given=("log", "ns"))
    with pytest.raises(PlanError) as caught:
        await pod.run_plan(plan, fds=(pod.log_fd, namespace), pidns_slot=1)
    os.close(namespace)
    assert caught.value.errno in (errno.ENOMEM, errno.EINVAL) and "gone" in caught.value.hint
    await pod.run("exit 9", id="next")
    assert (await pod.exit_of("next")).code == 9


async def test_a_terminal_from_a_false_devpts(pod: Pod) -> None:
    """What lies at /dev/pts is looked at before it is believed."""
    (pod.layer / "false").mkdir()
    os.mkfifo(pod.layer / "false" / "ptmx")
    error = await failure(
        pod,
        ops.OpenTree(pod.FREE, str(pod.layer / "false"), k.OPEN_TREE_CLONE),
        ops.MoveMount(pod.FREE, pod.ROOT, "/dev/pts"),
        ops.Pty(pod.TTY, pod.ROOT),
    )
    assert error.errno == errno.ENODEV


async def test_join_a_cgroup(pod: Pod, tmp_path: Path) -> None:
    procs = tmp_path / "cgroup.procs"
    procs.write_text("")
    await pod.output("true", ops.JoinCgroup(str(procs)))
    assert procs.read_text() == "0"
    assert (await failure(pod, ops.JoinCgroup(str(tmp_path / "no" / "cgroup.procs")))).errno == errno.ENOENT


async def test_a_session_keyring_of_its_own(pod: Pod) -> None:
    (pod.layer / "bin" / "grep").symlink_to("busybox")
    await pod.run("true", ops.SessionKeyring())


# ---- privileges ----


async def status_of(pod: Pod, *steps: ops.Op) -> dict[str, str]:
    text = await pod.output("cat /proc/self/status", last=steps)
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


async def test_credentials(pod: Pod) -> None:
    kill, chown = 1 << 5, 1 << 0
    both = kill | chown
    status = await status_of(pod, ops.Credentials(1000, 2000, (5, 3000), both, both, both, both, kill))
    assert status["Uid"].split() == ["1000"] * 4 and status["Gid"].split() == ["2000"] * 4
    assert status["Groups"].split() == ["5", "3000"]
    # execve(2): a user that is not root keeps only what is ambient.
    assert {name: int(status["Cap" + name], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {
        "Inh": both,
        "Prm": kill,
        "Eff": kill,
        "Bnd": both,
        "Amb": kill,
    }


async def test_no_capability_at_all(pod: Pod) -> None:
    status = await status_of(pod, ops.Credentials(0, 0), ops.NoNewPrivs())
    assert all(int(status["Cap" + name], 16) == 0 for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"))
    assert status["Groups"] == "" and status["NoNewPrivs"] == "1"


async def test_a_capability_the_host_does_not_have_is_a_warning(pod: Pod) -> None:
    everything = (1 << 64) - 1
    result = await pod.run("true", last=(ops.Credentials(0, 0, (), everything, everything, everything),))
    assert [number for _, number in result.warnings] == [errno.EPERM]
    assert capabilities.available() != everything


async def test_its_user_can_open_its_standard_output(pod: Pod) -> None:
    steps = (ops.Credentials(1000, 1000),)
    assert await pod.output("echo opened > /proc/self/fd/1", last=steps) == "opened\n"


async def test_limits(pod: Pod) -> None:
    text = await pod.output(
        "ulimit -Sn; ulimit -Hn", last=(ops.SetRlimit(resource.RLIMIT_NOFILE, 100, 200, optional=False),)
    )
    assert text == "100\n200\n"


async def test_a_limit_that_cannot_be_raised_becomes_what_is_possible(pod: Pod) -> None:
    if capabilities.available() & 1 << 24:
        pytest.skip("this host has CAP_SYS_RESOURCE: every limit can be raised")
    lower, higher = ops.SetRlimit(7, 50, 100), ops.SetRlimit(7, 80, 1000)
    result = await pod.run("ulimit -Sn; ulimit -Hn", last=(lower, higher))
    await pod.exit_of("c")
    assert pod.logged("stdout") == b"80\n100\n"
    assert [number for _, number in result.warnings] == [errno.EPERM]
    strict = ops.SetRlimit(7, 80, 1000, optional=False)
    with pytest.raises(PlanError) as caught:
        await pod.run("true", id="d", last=(lower, strict))
    assert caught.value.errno == errno.EPERM


async def test_umask(pod: Pod) -> None:
    assert await pod.output("umask", last=(ops.Umask(0o077),)) == "0077\n"


def deny(number: int, error: int) -> bytes:
    """A filter: one system call of x86-64 fails."""
    instructions = [
        (0x20, 0, 0, 0),  # load the number
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x00050000 | error),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


MKDIR, CLOSE_RANGE, GETCWD = 83, 436, 79


async def test_seccomp(pod: Pod) -> None:
    filters = (ops.NoNewPrivs(), ops.Seccomp(deny(MKDIR, errno.EXDEV)), ops.Seccomp(deny(GETCWD, errno.EIO)))
    text = await pod.output("mkdir /x 2>&1; cat /proc/self/status", last=filters)
    assert "Invalid cross-device link" in text and "Seccomp:\t2" in text and "Seccomp_filters:\t2" in text


async def test_a_profile_need_not_allow_what_the_runtime_does(pod: Pod) -> None:
    filters = (ops.NoNewPrivs(), ops.Seccomp(deny(CLOSE_RANGE, errno.EPERM)), ops.Chdir("/tmp"))
    assert await pod.output("echo ran; readlink /proc/self/cwd", last=filters) == "ran\n/tmp\n"


async def test_a_filter_without_no_new_privs_is_loaded_with_privilege(pod: Pod) -> None:
    steps = (ops.Seccomp(deny(MKDIR, errno.EXDEV)), ops.Credentials(0, 0))
    text = await pod.output("mkdir /x 2>&1; cat /proc/self/status", last=steps)
    assert "Invalid cross-device link" in text and "NoNewPrivs:\t0" in text


async def test_a_filter_the_kernel_refuses_is_named(pod: Pod) -> None:
    wrong = ops.Seccomp(bytes(8), name="wrong")
    error = await failure(pod, last=(ops.NoNewPrivs(), wrong, ops.Chdir("/")))
    assert (error.operation, error.errno) == (wrong.describe(), errno.EINVAL)


@pytest.mark.skipif(SANITIZED, reason="a sanitized build is dynamic")
def test_the_program_is_static() -> None:
    described = subprocess.run(["readelf", "-lW", PAUSE], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in described and "GNU_STACK" in described and "RWE" not in described


async def test_two_requests_at_once(pod: Pod) -> None:
    plan = ops.Plan((ops.Exec(("/bin/busybox", "sleep", "100")),))
    first = await pod.monitor.run(RunRequest("a", plan))
    second = await pod.monitor.run(RunRequest("b", plan))
    assert first.pid != second.pid
    os.close(first.pidfd)
    os.close(second.pidfd)


async def test_a_volatile_overlay(pod: Pod, tmp_path: Path) -> None:
    """It says so in the table of mounts, and its upper is not to be used a second time."""
    steps = tuple(
        replace(op, volatile=True) if isinstance(op, ops.Overlay) else op for op in pod.plan("cat /proc/mounts").ops
    )
    await pod.run_plan(ops.Plan(steps, given=("log",)))
    await pod.exit_of("c")
    assert b"volatile" in pod.logged("stdout").splitlines()[0]
    with pytest.raises(PlanError) as caught:
        await pod.run_plan(ops.Plan(steps, given=("log",)), id="again")
    assert caught.value.operation.startswith("overlay")
