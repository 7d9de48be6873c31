"""Ways out of a container that other runtimes shipped once, each tried for real by root inside one.

The attacker is `tests/probe/probe.c`; the names in brackets are the reports it comes from.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import io
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from images_builder import OciLayout, directory, entry, make_tar, symlink
from runtime_host import PAUSE, Host
from test_runtime_pods import ended, output, pod, say, shell, started

from sandbox.errors import InvalidInput, PlanError
from sandbox.runtime.config import (
    ContainerConfig,
    ContainerSecurity,
    Mount,
    NamespaceMode,
    NamespaceOptions,
    SeccompProfile,
)
from sandbox.runtime.runtime import Runtime

BUSYBOX = Path("/bin/busybox")
SHARED_PIDS = NamespaceOptions(pid=NamespaceMode.POD)
UNCONFINED = ContainerSecurity(seccomp=SeccompProfile("Unconfined"), no_new_privs=False)
DENIED = {errno.EPERM, errno.EACCES}


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attacker, built."""
    source = Path(__file__).parents[1] / "probe" / "probe.c"
    program = tmp_path_factory.mktemp("probe") / "probe"
    headers = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu"]
    subprocess.run(
        ["musl-gcc", "-std=c11", "-Os", "-static", "-s", *headers, str(source), "-o", str(program)], check=True
    )
    program.parent.chmod(0o755)
    return program


class Attacker:
    """Root in a container of a pod, with the probe at /probe."""

    def __init__(self, runtime: Runtime, sandbox: str, probe: Path) -> None:
        self.runtime = runtime
        self.sandbox = sandbox
        self.mount = Mount("/probe", str(probe), readonly=True)

    async def tries(self, *attacks: str, **changes: object) -> list[int]:
        """errno of each attack, 0 for one that succeeded."""
        script = "\n".join(f"/probe {attack}" for attack in attacks)
        mounts = (self.mount, *changes.pop("mounts", ()))  # type: ignore[misc]
        lines = await say(self.runtime, self.sandbox, script, mounts=mounts, **changes)
        words = [line.split() for line in lines]
        assert len(words) == len(attacks), lines
        return [int(word[1]) if word[0] == "errno" else 0 for word in words]


@pytest.fixture
async def attacker(host: Host, tmp_path: Path, probe: Path) -> Attacker:
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, namespaces=SHARED_PIDS))
    return Attacker(runtime, sandbox, probe)


def victim(tmp_path: Path) -> Path:
    """A directory of the host that no container was given, with a file that none may read, write or change."""
    outside = tmp_path / "host"
    outside.mkdir(mode=0o700)
    (outside / "canary").write_text("the host's own")
    (outside / "canary").chmod(0o600)
    return outside


def untouched(outside: Path) -> bool:
    canary = outside / "canary"
    modes = outside.stat().st_mode & 0o777, canary.stat().st_mode & 0o777
    return modes == (0o700, 0o600) and canary.read_text() == "the host's own" and list(outside.iterdir()) == [canary]


async def image(host: Host, *more: tuple[tarfile.TarInfo, bytes], config: dict[str, object] | None = None) -> str:
    """localhost/evil: busybox, and whatever an attacker puts into an image."""
    tools = [entry("bin/busybox", BUSYBOX.read_bytes(), mode=0o755)]
    tools += [
        symlink(f"bin/{name}", "busybox") for name in ("sh", "cat", "ls", "sleep", "mv", "ln", "rm", "wc", "mkdir")
    ]
    layout = OciLayout()
    layout.add(make_tar(directory("bin"), *tools, *more), name="localhost/evil:latest", config=config)
    await host.images.load(io.BytesIO(layout.tar()))
    return "localhost/evil"


def evil(script: str, name: str = "evil", **changes: object) -> ContainerConfig:
    return replace(shell(script, name), image="localhost/evil", **changes)  # type: ignore[arg-type]


# The runtime's own processes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [NamespaceMode.POD, NamespaceMode.NODE])
async def test_no_process_of_the_runtime_can_be_looked_into(
    host: Host, tmp_path: Path, probe: Path, mode: NamespaceMode
) -> None:
    """While containers start and commands are exec'd, root in the same PID namespace looks for one that is still the
    runtime: its program to rewrite (CVE-2019-5736), its descriptors to climb (CVE-2024-21626, CVE-2016-9962)."""
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, namespaces=NamespaceOptions(pid=mode)))
    config = shell("exec /probe hunt 3", "hunter", mounts=(Mount("/probe", str(probe)),))
    hunter = await started(runtime, sandbox, config)
    other = await started(runtime, sandbox, shell("exec sleep 1000", "other"))
    for number in range(25):
        session = await runtime.exec(other, ("/bin/true",))
        assert await session.wait() == 0
        session.close()
        if number % 5 == 0:
            await ended(runtime, await started(runtime, sandbox, shell("exit 0", f"short{number}")))
    lines = output(await ended(runtime, hunter))
    ours = {str(runtime.pod_sandbox_status(sandbox).monitor_pid), str(runtime.pod_sandbox_status(sandbox).pause_pid)}
    loot = [line.split() for line in lines[:-1]]
    if mode is NamespaceMode.POD:
        assert loot == [], "something of the runtime could be seen"
    else:  # the host's other processes are there to be seen, as was asked for; ours are not
        assert [words for words in loot if words[0] in ours or words[1] in ("exe", "opened")] == []
    assert int(lines[-1].removeprefix("rounds ")) > 20, "the hunter did not get to look"


async def test_the_program_of_the_runtime_cannot_be_rewritten(host: Host, tmp_path: Path, probe: Path) -> None:
    """An image whose command is /proc/self/exe makes the runtime execute itself inside the container, where root can
    open the running program (CVE-2019-5736)."""
    runtime = await host.runtime()
    await image(host, symlink("bin/pause", "/proc/self/exe"), symlink("bin/other", "/proc/self/exe"))
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, namespaces=SHARED_PIDS))
    program = Path(f"/proc/{runtime.pod_sandbox_status(sandbox).monitor_pid}/exe")
    before = program.read_bytes()
    config = shell("exec /probe rewrite 3", "writer", mounts=(Mount("/probe", str(probe)),))
    writer = await started(runtime, sandbox, config)
    number = 0
    while runtime.container_status(writer).state == "RUNNING":
        number += 1
        for name in ("pause", "other"):
            id = await started(runtime, sandbox, replace(evil("", f"{name}{number}"), command=(f"/bin/{name}",)))
            await runtime.remove_container(id)
    (line,) = output(await ended(runtime, writer))
    assert line.endswith(" written 0"), line
    assert program.read_bytes() == before == PAUSE.read_bytes()
    assert await say(runtime, sandbox, "echo still here") == ["still here"]


async def test_pause_has_nothing_to_steal_and_cannot_be_ended(attacker: Attacker) -> None:
    paths = ("exe", "root", "cwd", "ns/net", "ns/mnt")
    assert set(await attacker.tries(*(f"readlink /proc/1/{name}" for name in paths))) <= DENIED
    opened = ("/proc/1/mem w", "/proc/1/exe w", "/proc/1/exe r", "/proc/1/root/. r")
    assert set(await attacker.tries(*(f"open {path}" for path in opened))) <= DENIED
    assert await say(attacker.runtime, attacker.sandbox, "ls /proc/1/fd") == []
    assert set(await attacker.tries("ptrace 1", "read-memory 1 0x400000", "join-namespace /proc/1/ns/mnt")) <= DENIED
    assert set(await attacker.tries(*(f"kill 1 {number}" for number in (9, 15, 2, 19, 11)))) == {0}
    assert set(await attacker.tries("ptrace 1", "read-memory 1 0x400000", security=UNCONFINED)) <= DENIED
    status = attacker.runtime.pod_sandbox_status(attacker.sandbox)
    assert status.state == "READY" and Path(f"/proc/{status.pause_pid}/stat").read_text().split()[2] == "S"


async def test_no_abstract_socket_is_listened_on(attacker: Attacker, host: Host, tmp_path: Path) -> None:
    """A container on the host's network reaches every abstract socket there (CVE-2020-15257)."""
    ours = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert [path for path in ours if path.startswith("@")] == []
    namespaces = NamespaceOptions(network=NamespaceMode.NODE)
    sandbox = await attacker.runtime.run_pod_sandbox(pod(tmp_path, "hostnet", namespaces=namespaces))
    lines = await say(attacker.runtime, sandbox, "cat /proc/net/unix")
    assert len(lines) > 1, "the host's sockets are there to be seen"
    assert [line for line in lines if "@" in line] == []


# Descriptors and directories -------------------------------------------------------------------------------------


async def test_no_descriptor_leaks_into_a_working_directory(host: Host, tmp_path: Path) -> None:
    """/proc/self/fd/N as working directory, of the start and of an exec (CVE-2024-21626)."""
    runtime = await host.runtime()
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path, namespaces=SHARED_PIDS))
    for number in (*range(24), 63):
        config = shell("pwd", f"fd{number}", working_dir=f"/proc/self/fd/{number}")
        id = await runtime.create_container(sandbox, config)
        with pytest.raises(PlanError, match="chdir"):
            await runtime.start_container(id)
    await image(host, symlink("w", "/v/link"))
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "link").symlink_to("/v")
    config = evil("exec sleep 1000", working_dir="/w", mounts=(Mount("/v", str(volume)),))
    id = await started(runtime, sandbox, config)
    for number in (*range(24), 63):
        (volume / "link").unlink()
        (volume / "link").symlink_to(f"/proc/self/fd/{number}")
        with pytest.raises(PlanError, match="chdir"):
            await runtime.exec(id, ("/bin/ls",))


async def test_a_process_has_its_three_descriptors_and_nothing_of_the_daemon(attacker: Attacker) -> None:
    script = "cd /proc/self/fd; ls -l | cat; pwd -P; env | cut -d= -f1; exec sleep 1000"
    id = await started(attacker.runtime, attacker.sandbox, shell(script))
    session = await attacker.runtime.exec(id, ("/bin/sh", "-c", "for f in /proc/self/fd/*; do readlink $f; done; env"))
    assert await session.wait() == 0 and session.stdout_fd is not None
    text = os.read(session.stdout_fd, 65536).decode()
    session.close()
    await attacker.runtime.stop_container(id, 0)
    for shown in (text, "\n".join(output(attacker.runtime.container_status(id)))):
        assert "memfd" not in shown and "sandbox" not in shown.lower() and "socket:" not in shown
        assert "cgroup" not in shown and "PYTHON" not in shown and "VIRTUAL_ENV" not in shown


# Places where something is mounted -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["proc", "dev", "sys"])
async def test_a_link_where_the_kernels_own_files_go(host: Host, tmp_path: Path, place: str) -> None:
    """Mounting through it would leave the real /proc unmasked, or the mount elsewhere (CVE-2021-30465)."""
    runtime = await host.runtime()
    outside = victim(tmp_path)
    await image(host, directory("elsewhere"), symlink(place, "/elsewhere"))
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    id = await runtime.create_container(sandbox, evil("true"))
    with pytest.raises(PlanError, match="ELOOP"):
        await runtime.start_container(id)
    assert untouched(outside)


@pytest.mark.parametrize("up", ["", "../../../../../../../../.."])
async def test_links_in_the_image_lead_nowhere_but_into_the_image(host: Host, tmp_path: Path, up: str) -> None:
    """/etc/hosts, its directory, and the way to a volume, as links to the host's files."""
    runtime = await host.runtime()
    outside = victim(tmp_path)
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "mine").write_text("mine")
    await image(
        host,
        directory("etc"),
        symlink("etc/hosts", f"{up}{outside}/canary"),
        symlink("etc/resolv.conf", f"{up}{outside}/new-file"),
        symlink("data", f"{up}{outside}"),
        symlink("loop", "loop"),
    )
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    mounts = (Mount("/data/deep/volume", str(volume)), Mount("/data/file", str(volume / "mine")))
    script = (
        "cat /data/deep/volume/mine; echo; cat /data/file; echo; cat /etc/hosts; echo x >/etc/hosts; echo y >/data/z"
    )
    id = await started(runtime, sandbox, evil(script, mounts=mounts))
    lines = output(await ended(runtime, id))
    assert lines[:2] == ["mine", "mine"] and "the host's own" not in lines
    assert untouched(outside)
    config = evil("true", "looping", mounts=(Mount("/loop/x", str(volume)),))
    with pytest.raises(PlanError, match="ELOOP"):
        await started(runtime, sandbox, config)


async def test_what_is_mounted_over_dev_does_not_choose_what_masks(host: Host, tmp_path: Path) -> None:
    """A volume with a null and a console of its own making (CVE-2025-31133, CVE-2025-52565)."""
    runtime = await host.runtime()
    outside = victim(tmp_path)
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    for number, target in enumerate(("/proc/sysrq-trigger", "/proc/interrupts", str(outside / "canary"))):
        devices = tmp_path / f"dev{number}"
        devices.mkdir()
        (devices / "null").symlink_to(target)
        mounts = (Mount("/dev", str(devices)),)
        lines = await say(runtime, sandbox, "cat /proc/interrupts | wc -c; cat /proc/keys | wc -c", mounts=mounts)
        assert lines == ["0", "0"], "what the host keeps to itself is still masked"
        (devices / "console").symlink_to(target)
        (devices / "pts").mkdir()
        with pytest.raises(PlanError):
            await started(runtime, sandbox, shell("true", f"tty{number}", mounts=mounts, tty=True))
    assert untouched(outside)


async def test_a_sub_path_that_changes_while_it_is_mounted(attacker: Attacker, tmp_path: Path) -> None:
    """Another container of the pod swaps it for a link to the host, again and again (CVE-2017-1002101)."""
    runtime, outside, volume = attacker.runtime, victim(tmp_path), tmp_path / "volume"
    volume.mkdir()
    shared = Mount("/v", str(volume))
    config = shell(f"exec /probe swap /v/sub {outside} 3", "swapper", mounts=(attacker.mount, shared))
    swapper = await started(runtime, attacker.sandbox, config)
    while not (volume / "sub").exists():
        await asyncio.sleep(0.01)
    seen = {"mounted": 0, "refused": 0}
    while runtime.container_status(swapper).state == "RUNNING":
        name = f"reader{sum(seen.values())}"
        mounts = (Mount("/s", str(volume), sub_path="sub"),)
        try:
            id = await started(runtime, attacker.sandbox, shell("ls -a /s; cat /s/canary", name, mounts=mounts))
        except (PlanError, InvalidInput):
            seen["refused"] += 1
            continue
        assert "the host's own" not in "".join(output(await ended(runtime, id)))
        seen["mounted"] += 1
    assert seen["mounted"] and seen["refused"], f"the race was not run: {seen}"
    assert untouched(outside)


# The kernel's own doors ------------------------------------------------------------------------------------------


async def test_sysctls_stay_in_the_pod(host: Host, tmp_path: Path) -> None:
    """A value or a name that smuggles another (CVE-2022-0811)."""
    runtime = await host.runtime()
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    for name, value in (
        ("kernel.core_pattern", "|/evil"),
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/evil"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/evil"),
        ("kernel.shm/../core_pattern", "|/evil"),
        ("net/../kernel/core_pattern", "|/evil"),
        ("net...kernel.core_pattern", "|/evil"),
        ("kernel.shm\0", "1"),
    ):
        with pytest.raises(InvalidInput):
            await runtime.run_pod_sandbox(pod(tmp_path, sysctls=((name, value),)))
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
    assert runtime.list_pod_sandboxes() == []


async def test_devices_beyond_the_list(attacker: Attacker) -> None:
    """The capability to make nodes is not the right to use what they stand for."""
    disk = next(Path("/sys/class/block").iterdir(), None)
    major, minor = (disk / "dev").read_text().strip().split(":") if disk else ("8", "0")
    nodes = [
        "c 1 1",
        "c 1 2",
        "c 1 4",
        "c 1 11",
        "c 10 232",
        "c 10 200",
        "c 4 0",
        "c 5 1",
        f"b {major} {minor}",
        "b 7 0",
    ]
    assert await attacker.tries(*(f"device {node}" for node in nodes)) == [errno.EPERM] * len(nodes)
    assert await attacker.tries("device c 1 3", "device c 1 5", "device c 1 8") == [0, 0, 0]


async def test_cgroups_cannot_be_changed_from_inside(attacker: Attacker) -> None:
    """release_agent is the classic: what is written there runs on the host as root (CVE-2022-0492)."""
    script = """
        for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
            for file in release_agent notify_on_release cgroup.procs tasks devices.allow memory.limit_in_bytes; do
                [ -e $hierarchy/$file ] && (echo 1 >$hierarchy/$file) 2>/dev/null && echo $hierarchy/$file
            done
            mkdir $hierarchy/sub 2>/dev/null && echo $hierarchy/sub
        done
        mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted
        mkdir /mine && mount -t cgroup -o memory none /mine 2>/dev/null && echo mounted
        ls /sys/fs/cgroup/memory/release_agent /sys/fs/cgroup/*/burstable 2>/dev/null
        echo done
    """
    assert await say(attacker.runtime, attacker.sandbox, script) == ["done"]
    assert await say(attacker.runtime, attacker.sandbox, script, security=UNCONFINED) == ["done"]


async def test_namespaces_and_mounts_are_not_for_containers(attacker: Attacker) -> None:
    new = [f"new-namespace {flag:#x}" for flag in (0x10000000, 0x20000, 0x40000000, 0x2000000, 0x4000000)]
    mounts = ["mount none /proc proc 0", "mount none / x 32", "mount /dev/null /proc/sys x 4096"]
    assert await attacker.tries(*new, *mounts) == [errno.EPERM] * len(new + mounts)
    without_filter = await attacker.tries(*new[1:], *mounts, security=UNCONFINED)
    assert without_filter == [errno.EPERM] * len(without_filter), "the capability is missing too, not only the call"


async def test_procfs_and_sysfs_are_sealed(attacker: Attacker) -> None:
    files = (
        "sys/kernel/core_pattern",
        "sys/kernel/hostname",
        "sys/vm/panic_on_oom",
        "sysrq-trigger",
        "bus/pci/00/00.0",
    )
    present = [f"/proc/{name}" for name in files if Path(f"/proc/{name}").exists()]
    refused = await attacker.tries(*(f"open {path} w" for path in present), "open /sys/kernel/uevent_seqnum w")
    assert 0 not in refused
    masked = [path for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list") if Path(path).exists()]
    lines = await say(attacker.runtime, attacker.sandbox, f"cat {' '.join(masked)} | wc -c")
    assert lines == ["0"]


# Keys, users, terminals ------------------------------------------------------------------------------------------


async def test_keyrings_are_not_shared(attacker: Attacker) -> None:
    """Without user namespaces keys belong to a uid, and root of a container is the host's."""
    libc = ctypes.CDLL(None, use_errno=True)
    secret = f"secret-of-the-host-{os.getpid()}".encode()
    add_key = {"x86_64": 248, "aarch64": 217}[os.uname().machine]
    if libc.syscall(add_key, b"user", secret, b"x", 1, -3) < 0:
        pytest.skip("this kernel has no keys")
    assert await attacker.tries("session-keyring", f"request-key {secret.decode()}") == [errno.EPERM] * 2
    keyring, key = await attacker.tries("session-keyring", f"request-key {secret.decode()}", security=UNCONFINED)
    assert keyring == 0 and key in (errno.ENOKEY, errno.EACCES)


@pytest.mark.parametrize(("forbidden", "effective"), [(True, "1000"), (False, "0")])
async def test_set_user_id_programs(host: Host, tmp_path: Path, probe: Path, forbidden: bool, effective: str) -> None:
    runtime = await host.runtime()
    await image(host, entry("bin/su-probe", probe.read_bytes(), mode=0o4755))
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    security = ContainerSecurity(run_as_user=1000, no_new_privs=forbidden)
    id = await started(runtime, sandbox, evil("exec /bin/su-probe user", security=security))
    assert output(await ended(runtime, id)) == [f"uid 1000 {effective}"]


@pytest.mark.parametrize(
    "user", ["4294967296", "4294967295", "-1", "0x0", "1:4294967296", "18446744073709551616", "+0"]
)
async def test_a_user_of_the_image_that_is_no_user(host: Host, tmp_path: Path, user: str) -> None:
    """A number that overflows to 0 would be root (CVE-2024-40635)."""
    runtime = await host.runtime()
    await image(host, config={"User": user})
    sandbox = await runtime.run_pod_sandbox(pod(tmp_path))
    with pytest.raises(InvalidInput):
        await runtime.create_container(sandbox, evil("id -u"))


async def test_a_terminal_is_the_containers_own(attacker: Attacker) -> None:
    """What is typed into it reaches nobody outside: it lies in the container's devpts, not in the host's."""
    id = await started(attacker.runtime, attacker.sandbox, shell("exec sleep 1000", mounts=(attacker.mount,)))
    command = ("/bin/sh", "-c", "tty; stat -c %d $(tty); /probe type-into-terminal")
    session = await attacker.runtime.exec(id, command, tty=True)
    assert await session.wait() == 0 and session.terminal_fd is not None
    name, device, *_ = os.read(session.terminal_fd, 4096).decode().split()
    session.close()
    assert name.startswith("/dev/pts/") and int(device) != Path("/dev/pts").stat().st_dev
