import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.linux import constants
from sandbox.linux.libc import syscall
from sandbox.linux.openat2 import openat2
from sandbox.linux.process import ProcessIdentity, boot_id, namespaces_of, read_stat


def test_identity_of_a_live_a_zombie_and_a_gone_process() -> None:
    child = subprocess.Popen(["sleep", "60"])
    identity = ProcessIdentity.current(child.pid)
    assert identity.alive()
    assert not ProcessIdentity(child.pid, identity.start_time + 1, boot_id()).alive()
    assert not ProcessIdentity(child.pid, identity.start_time, "another-boot").alive()
    fd = identity.pidfd()
    assert not os.get_inheritable(fd)
    os.close(fd)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert read_stat(child.pid).state == "Z"
    assert not identity.alive()
    with pytest.raises(ProcessLookupError):
        identity.pidfd()
    child.wait()
    assert not identity.alive()
    with pytest.raises(ProcessLookupError):
        ProcessIdentity.current(child.pid)


def test_a_comm_with_spaces_and_parentheses_is_parsed() -> None:
    code = "import prctl, sys; prctl.set_name(') R 1 (x'); print('ready', flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    stat = read_stat(child.pid)
    assert (stat.comm, stat.ppid) == (") R 1 (x", os.getpid())
    child.communicate()


def test_namespaces_are_those_of_the_kernel() -> None:
    mine = namespaces_of()
    assert mine["net"] == Path("/proc/self/ns/net").stat().st_ino
    assert namespaces_of(os.getpid()) == mine
    with pytest.raises(ProcessLookupError):
        namespaces_of(2**22 + 1)


def test_openat2_does_not_leave_its_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("inside")
    (tmp_path / "link").symlink_to("/etc/hostname")
    root = os.open(tmp_path, os.O_PATH | os.O_CLOEXEC)
    try:
        fd = openat2(root, "link", os.O_RDONLY, resolve=constants.RESOLVE_IN_ROOT)
        assert not os.get_inheritable(fd)
        with os.fdopen(fd) as file:
            assert file.read() == "inside"
        with pytest.raises(OSError, match="link"):
            openat2(root, "link", os.O_RDONLY, resolve=constants.RESOLVE_NO_SYMLINKS)
        with pytest.raises(FileNotFoundError):
            openat2(root, "absent", os.O_RDONLY)
    finally:
        os.close(root)


def test_an_unknown_system_call_is_an_oserror() -> None:
    with pytest.raises(OSError, match="no number of system call nonsense"):
        syscall("nonsense")


def test_signal_and_rlimit_names() -> None:
    assert constants.signal_number("SIGTERM") == constants.signal_number("term") == constants.signal_number("15") == 15
    assert constants.signal_number("SIGRTMIN+3") == constants.SIGNALS["SIGRTMIN"] + 3
    for bad in ("SIGNOTHING", "0", "65", "SIGRTMAX+1", "", "-1"):
        with pytest.raises(ValueError, match="no signal"):
            constants.signal_number(bad)
    assert constants.RLIMITS["RLIMIT_NOFILE"] == resource.RLIMIT_NOFILE


def test_settle_is_seen_by_the_kernel() -> None:
    code = (
        "from sandbox.linux.daemon_process import settle, state; from pathlib import Path;"
        "settle('sandbox-daemon-long-name', child_subreaper=True); s = state();"
        "assert s == {'name': 'sandbox-daemon-', 'child_subreaper': True, 'dumpable': False}, s;"
        "print(Path('/proc/self/comm').read_text(), end='')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "sandbox-daemon-\n"
