"""Mounts and pinned network namespaces on the real kernel."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.linux import constants
from sandbox.linux.mount import NETNS_DIRECTORY, bind_netns, mount, umount2, unpin
from sandbox.linux.process import namespaces_of

pytestmark = pytest.mark.root


@pytest.fixture
def name() -> Iterator[Path]:
    path = NETNS_DIRECTORY / f"sandbox-test-{os.getpid()}"
    yield path
    unpin(path)


def test_a_pinned_namespace_outlives_its_process_and_ip_finds_it(name: Path) -> None:
    holder = subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin and holder.stdout
    holder.stdin.write(b"x\n")
    holder.stdin.flush()
    holder.stdout.readline()  # cat runs: unshare is done
    inode = namespaces_of(holder.pid)["net"]
    assert inode != namespaces_of()["net"]
    fd = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    bind_netns(fd, name)
    with pytest.raises(FileExistsError):
        bind_netns(fd, name)
    os.close(fd)
    holder.kill()
    holder.wait()
    assert name.stat().st_ino == inode
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert name.name in listed
    seen = subprocess.run(
        ["ip", "netns", "exec", name.name, "readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True
    )
    assert seen.stdout.strip() == f"net:[{inode}]"
    unpin(name)
    assert not name.exists()
    unpin(name)


def test_a_pin_that_fails_leaves_nothing(name: Path) -> None:
    with pytest.raises(OSError):
        bind_netns(9999, name)
    assert not name.exists()


def test_mount_and_umount2(tmp_path: Path) -> None:
    mount("tmpfs", tmp_path, "tmpfs", constants.MS_NOSUID | constants.MS_NODEV, "size=1m,mode=700")
    try:
        assert (tmp_path.stat().st_mode & 0o777) == 0o700
        with pytest.raises(OSError, match=str(tmp_path)):
            mount("none", tmp_path / "absent", "tmpfs")
    finally:
        umount2(tmp_path, constants.MNT_DETACH)
    with pytest.raises(OSError, match=str(tmp_path)):
        umount2(tmp_path)
