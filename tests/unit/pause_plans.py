"""One of every operation, for tests of the wire format. Slots 0 and 1 are given."""

from __future__ import annotations

from sandbox.runtime import ops

EVERY_OPERATION: tuple[ops.Op, ...] = (
    ops.JoinCgroup("/sys/fs/cgroup/memory/a/cgroup.procs"),
    ops.Setns(0, 0x40000000, "net"),
    ops.Unshare(0x00020000, "mnt"),
    ops.RootPropagation(0x44000, "private"),
    ops.OpenTree(2, "/srv/data", 1),
    ops.OpenTree(2, "data", 1, at=1, sub_path="a/b"),
    ops.Overlay(3, ("/layers/2", "/layers/1"), "/upper", "/work", volatile=True),
    ops.Overlay(3, ("/layers/1",), attr_flags=1),
    ops.Filesystem(4, "tmpfs", ("size=64k", "noswap"), 2, "tmpfs"),
    ops.Filesystem(4, "proc"),
    ops.MountSetattr(4, attr_set=1, attr_clear=2, propagation=0x40000, recursive=True, userns=1),
    ops.MoveMount(4, 3, "/proc", create="dir", no_symlinks=True),
    ops.MoveMount(4, ops.HOST, "/mnt", create="file"),
    ops.Mkdir(3, "/run/x", 0o1777, 5, 6),
    ops.Symlink(3, "dev/fd", "/proc/self/fd"),
    ops.Mknod(3, "dev/null", 0o20666, 0x103, 1, 2),
    ops.WriteFile(ops.HOST, "/proc/sys/net/x", b"1"),
    ops.WriteFile(3, "/empty", b"", create=True, optional=True),
    ops.Mask(0, 3, "/proc/kcore"),
    ops.ReadOnly(3, "/proc/sys"),
    ops.OpenPath(5, ops.HOST, "/", 0o10000000),
    ops.PivotRoot(3),
    ops.Hostname("box"),
    ops.SetRlimit(7, 1024, ops.RLIM_INFINITY),
    ops.Credentials(1000, 1000, (5, 6, 7), 0xFF, 0x0F, 0x1F, 0x03, 0x01),
    ops.Credentials(0, 0),
    ops.NoNewPrivs(),
    ops.Seccomp(bytes(16), 2),
    ops.Chdir("/tmp"),
    ops.Setsid(),
    ops.Umask(0o022),
    ops.Dup(0, 2),
    ops.Pty(6, 3, 24, 80, 1000, console=True),
    ops.SendFd(6),
    ops.Socket(7, 16, 3, 0),
    ops.LoopbackUp(),
    ops.SessionKeyring(),
    ops.Close(7),
    ops.Mark(3),
)


def plan(*steps: ops.Op, exec: ops.Exec | None = None) -> ops.Plan:
    """The steps, then an exec."""
    return ops.Plan((*steps, exec or ops.Exec(("true", ""), ("PATH=/bin",))), given=("a", "b"))
