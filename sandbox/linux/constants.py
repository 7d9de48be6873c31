"""Kernel constants that Python 3.11 has no name for, each group with the header it comes from."""

from __future__ import annotations

import resource
import signal

# include/uapi/linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

CLONE_NAMES = {
    "mnt": CLONE_NEWNS,
    "cgroup": CLONE_NEWCGROUP,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "time": CLONE_NEWTIME,
}
"""Names as /proc/PID/ns has them."""

# include/uapi/linux/mount.h
MS_RDONLY = 1 << 0
MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_NOEXEC = 1 << 3
MS_SYNCHRONOUS = 1 << 4
MS_REMOUNT = 1 << 5
MS_MANDLOCK = 1 << 6
MS_DIRSYNC = 1 << 7
MS_NOSYMFOLLOW = 1 << 8
MS_NOATIME = 1 << 10
MS_NODIRATIME = 1 << 11
MS_BIND = 1 << 12
MS_MOVE = 1 << 13
MS_REC = 1 << 14
MS_SILENT = 1 << 15
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

# include/uapi/linux/mount.h: fsmount(2), mount_setattr(2), open_tree(2), move_mount(2)
MOUNT_ATTR_RDONLY = 0x00000001
MOUNT_ATTR_NOSUID = 0x00000002
MOUNT_ATTR_NODEV = 0x00000004
MOUNT_ATTR_NOEXEC = 0x00000008
MOUNT_ATTR__ATIME = 0x00000070
MOUNT_ATTR_RELATIME = 0x00000000
MOUNT_ATTR_NOATIME = 0x00000010
MOUNT_ATTR_STRICTATIME = 0x00000020
MOUNT_ATTR_NODIRATIME = 0x00000080
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 0x00000004
MOVE_MOUNT_T_EMPTY_PATH = 0x00000040

# include/linux/fs.h (umount2(2))
MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

# include/uapi/linux/fcntl.h
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
O_PATH = 0o10000000

# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20

# include/uapi/linux/seccomp.h
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4

# include/uapi/linux/magic.h
NSFS_MAGIC = 0x6E736673
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270

RLIM_INFINITY = 0xFFFFFFFFFFFFFFFF

RLIMITS: dict[str, int] = {
    # RLIMIT_LOCKS is 10 in include/uapi/asm-generic/resource.h; Python leaves it out.
    "RLIMIT_LOCKS": 10,
    **{
        name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
    },
}
"""Resource names as the OCI specification has them → numbers of prlimit(2)."""

SIGNALS: dict[str, int] = {name: int(number) for name, number in signal.Signals.__members__.items()}
"""SIGTERM → 15 and so on; real-time signals by `signal_number`."""


def signal_number(name: str) -> int:
    """The number of "SIGTERM", "TERM", "15" or "SIGRTMIN+3". Raises ValueError with the name."""
    text = name.strip().upper()
    if text.isdigit():
        number = int(text)
        if 1 <= number <= signal.SIGRTMAX:
            return number
        raise ValueError(f"no signal {name!r}")
    text = text if text.startswith("SIG") else "SIG" + text
    if text in SIGNALS:
        return SIGNALS[text]
    for base in ("SIGRTMIN", "SIGRTMAX"):
        offset = text.removeprefix(base)
        if offset != text and offset[:1] in "+-" and offset[1:].isdigit():
            number = SIGNALS[base] + int(offset)
            if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
                return number
    raise ValueError(f"no signal {name!r}")
