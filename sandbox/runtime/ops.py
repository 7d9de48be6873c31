"""The operations of a plan: what the interpreter in `pause/` executes, one dataclass each.

A plan is data: it can be printed (`describe`), compared, and encoded (`encode_plan`). The interpreter knows no
Kubernetes; every decision was made here. The wire format is that of `pause/protocol.h`:

    header   : u32 magic "SBXP", u16 version, u16 op_count, u32 total_size, u32 slot_count
    op_count × op (64 bytes, native byte order):
               u16 code, u16 flags, i16 fd, i16 at, u64 a, u64 b, u64 c, 3 × {u32 offset, u32 length}, u64 zero
    data     : the bytes the (offset, length) pairs refer to; offsets count from the start of the plan;
               every string is followed by a NUL that its length does not count; length 0 and offset 0: absent

`fd` and `at` are slots: a small table of descriptors in the child. Slots 0..n-1 are filled with the descriptors that
came with the request; operations fill others. `at` is the directory in which a path is resolved, never leaving it
(openat2 RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS); HOST (-1) means a path of the host, as root sees it.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

MAGIC = 0x50584253  # "SBXP"
VERSION = 1
MAX_OPS = 1024
MAX_SLOTS = 256
MAX_PLAN_BYTES = 4 << 20
HOST = -1
NONE = -1

OPTIONAL = 0x8000
"""Flag of any operation: a failure is reported as a warning and the plan goes on."""

_HEADER = struct.Struct("=IHHII")
_OP = struct.Struct("=HHhhQQQIIIIIIQ")
OP_BYTES = _OP.size
assert OP_BYTES == 64


@dataclass(frozen=True)
class Record:
    """The fixed-width form of one operation before its strings are placed."""

    code: int
    flags: int = 0
    fd: int = NONE
    at: int = NONE
    a: int = 0
    b: int = 0
    c: int = 0
    strings: tuple[bytes | None, bytes | None, bytes | None] = (None, None, None)


def _s(*strings: str | bytes | None) -> tuple[bytes | None, bytes | None, bytes | None]:
    encoded = [s.encode("utf-8", "surrogateescape") if isinstance(s, str) else s for s in strings]
    encoded += [None] * (3 - len(encoded))
    return encoded[0], encoded[1], encoded[2]


def _blob(items: Sequence[str]) -> bytes:
    """Strings joined by NUL (the final NUL is the one every string of the wire has)."""
    for item in items:
        if "\0" in item:
            raise ValueError(f"NUL byte in {item!r}")
    return "\0".join(items).encode("utf-8", "surrogateescape")


def _place(at: int, path: str) -> str:
    return path if at == HOST else f"[{at}]/{path.lstrip('/')}"


@dataclass(frozen=True)
class Op:
    """Base of all operations. `code` is the number in `pause/protocol.h`."""

    code: ClassVar[int] = 0

    def record(self) -> Record:
        raise NotImplementedError

    def describe(self) -> str:
        """One line a human reads, in `--dry-run` and in errors."""
        raise NotImplementedError


@dataclass(frozen=True)
class JoinCgroup(Op):
    """write "0" to `path`, a v1 cgroup's tasks file (absolute, of the host): moves the one thread the child has."""

    code: ClassVar[int] = 1
    path: str

    def record(self) -> Record:
        return Record(self.code, strings=_s(self.path))

    def describe(self) -> str:
        return f"join cgroup {self.path.removesuffix('/tasks')}"


@dataclass(frozen=True)
class Setns(Op):
    """setns(2) with the namespace or pidfd in slot `fd` and the CLONE_NEW* mask `flags`."""

    code: ClassVar[int] = 2
    fd: int
    flags: int
    names: str = ""

    def record(self) -> Record:
        return Record(self.code, fd=self.fd, a=self.flags)

    def describe(self) -> str:
        return f"setns {self.names or hex(self.flags)}"


@dataclass(frozen=True)
class Unshare(Op):
    """unshare(2)."""

    code: ClassVar[int] = 3
    flags: int
    names: str = ""

    def record(self) -> Record:
        return Record(self.code, a=self.flags)

    def describe(self) -> str:
        return f"unshare {self.names or hex(self.flags)}"


@dataclass(frozen=True)
class RootPropagation(Op):
    """mount(NULL, "/", NULL, flags, NULL): the propagation of every mount of the new mount namespace."""

    code: ClassVar[int] = 4
    flags: int
    name: str = ""

    def record(self) -> Record:
        return Record(self.code, a=self.flags)

    def describe(self) -> str:
        return f"make / {self.name or hex(self.flags)}"


@dataclass(frozen=True)
class OpenTree(Op):
    """open_tree(2) of `path` into slot `fd`. `flags` as the system call takes them (OPEN_TREE_CLONE, AT_RECURSIVE).

    With `at` HOST the path is the host's and symbolic links are followed as the host's administrator would see them;
    with a slot it never leaves it. `sub_path` (below `path`) is resolved beneath it and never leaves it.
    """

    code: ClassVar[int] = 5
    fd: int
    path: str
    flags: int
    at: int = HOST
    sub_path: str = ""

    def record(self) -> Record:
        return Record(self.code, fd=self.fd, at=self.at, a=self.flags, strings=_s(self.path, self.sub_path or None))

    def describe(self) -> str:
        return f"open tree {_place(self.at, self.path)}{'/' + self.sub_path if self.sub_path else ''} as [{self.fd}]"


@dataclass(frozen=True)
class Overlay(Op):
    """A detached overlay mount in slot `fd`. `lowers` are absolute host paths, topmost first.

    `attr_flags` are MOUNT_ATTR_*. An empty `upper` makes it read-only. Where the kernel lacks `lowerdir+` (before
    6.5) the interpreter falls back to mount(2) with short relative paths. A `volatile` overlay never waits for the
    disk: neither fsync(2) inside nor the unmount when the container ends, which otherwise holds its exit up until the
    whole file system below `upper` is synced. The same `upper` and `work` can then not be mounted again.
    """

    code: ClassVar[int] = 6
    fd: int
    lowers: tuple[str, ...]
    upper: str = ""
    work: str = ""
    attr_flags: int = 0
    volatile: bool = False

    def record(self) -> Record:
        return Record(
            self.code,
            flags=1 if self.volatile else 0,
            fd=self.fd,
            a=len(self.lowers),
            b=self.attr_flags,
            strings=_s(_blob(self.lowers), self.upper or None, self.work or None),
        )

    def describe(self) -> str:
        upper = f" upper {self.upper}" if self.upper else " read-only"
        return f"overlay of {len(self.lowers)} layers{upper} as [{self.fd}]"


@dataclass(frozen=True)
class Filesystem(Op):
    """fsopen, fsconfig, fsmount of a new file system into slot `fd`. Options are "key=value" or "flag"."""

    code: ClassVar[int] = 7
    fd: int
    fstype: str
    options: tuple[str, ...] = ()
    attr_flags: int = 0
    source: str = ""

    def record(self) -> Record:
        return Record(
            self.code,
            fd=self.fd,
            a=len(self.options),
            b=self.attr_flags,
            strings=_s(self.fstype, _blob(self.options) if self.options else None, self.source or None),
        )

    def describe(self) -> str:
        return f"new {self.fstype}({','.join(self.options)}) as [{self.fd}]"


@dataclass(frozen=True)
class MountSetattr(Op):
    """mount_setattr(2) of the mount in slot `fd`; `userns` is the slot of a user namespace for MOUNT_ATTR_IDMAP."""

    code: ClassVar[int] = 8
    fd: int
    attr_set: int = 0
    attr_clear: int = 0
    propagation: int = 0
    recursive: bool = False
    userns: int = NONE
    names: str = ""

    def record(self) -> Record:
        return Record(
            self.code,
            flags=1 if self.recursive else 0,
            fd=self.fd,
            at=self.userns,
            a=self.attr_set,
            b=self.attr_clear,
            c=self.propagation,
        )

    def describe(self) -> str:
        return f"set mount attributes of [{self.fd}]: {self.names or hex(self.attr_set)}"


@dataclass(frozen=True)
class MoveMount(Op):
    """move_mount(2) of slot `fd` onto `path` in `at`; makes the mount point (directory or file) when `create` says so.

    `no_symlinks` refuses a path with a symbolic link in it (for /proc, /sys, /dev).
    """

    code: ClassVar[int] = 9
    fd: int
    at: int
    path: str
    create: str = ""
    """"", "dir" or "file"."""
    no_symlinks: bool = False

    def record(self) -> Record:
        flags = {"": 0, "dir": 1, "file": 2}[self.create] | (4 if self.no_symlinks else 0)
        return Record(self.code, flags=flags, fd=self.fd, at=self.at, strings=_s(self.path))

    def describe(self) -> str:
        return f"mount [{self.fd}] on {_place(self.at, self.path)}"


@dataclass(frozen=True)
class Mkdir(Op):
    """mkdir -p of `path` in `at`; only the last component gets `mode`, `uid`, `gid`. An existing directory is left."""

    code: ClassVar[int] = 11
    at: int
    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    def record(self) -> Record:
        return Record(self.code, at=self.at, a=self.mode, b=self.uid, c=self.gid, strings=_s(self.path))

    def describe(self) -> str:
        return f"mkdir {_place(self.at, self.path)} {self.mode:o}"


@dataclass(frozen=True)
class Symlink(Op):
    """symlinkat(2); an existing entry is left."""

    code: ClassVar[int] = 12
    at: int
    path: str
    target: str

    def record(self) -> Record:
        return Record(self.code, at=self.at, strings=_s(self.path, self.target))

    def describe(self) -> str:
        return f"symlink {_place(self.at, self.path)} -> {self.target}"


@dataclass(frozen=True)
class Mknod(Op):
    """mknodat(2) with `mode` including S_IFCHR or S_IFBLK, then chown. `dev` as makedev(3) makes it."""

    code: ClassVar[int] = 13
    at: int
    path: str
    mode: int
    dev: int
    uid: int = 0
    gid: int = 0

    def record(self) -> Record:
        return Record(
            self.code, at=self.at, a=self.mode, b=self.dev, c=(self.uid << 32) | self.gid, strings=_s(self.path)
        )

    def describe(self) -> str:
        return f"mknod {_place(self.at, self.path)} {self.mode:o} {self.dev >> 8}:{self.dev & 255}"


@dataclass(frozen=True)
class WriteFile(Op):
    """Opens `path` for writing (creating it with `mode` when `create`) and writes `content` in one write(2)."""

    code: ClassVar[int] = 14
    at: int
    path: str
    content: bytes
    create: bool = False
    mode: int = 0o644
    optional: bool = False

    def record(self) -> Record:
        flags = (1 if self.create else 0) | (OPTIONAL if self.optional else 0)
        return Record(self.code, flags=flags, at=self.at, a=self.mode, strings=_s(self.path, self.content))

    def describe(self) -> str:
        shown = self.content[:40].decode("utf-8", "replace")
        return f"write {shown!r} to {_place(self.at, self.path)}"


@dataclass(frozen=True)
class Mask(Op):
    """Hides `path` in `at`: a file by a bind of the device in slot `fd` (/dev/null), a directory by an empty read-only
    tmpfs. A missing path is no error. The slot is checked to be the character device 1:3."""

    code: ClassVar[int] = 15
    fd: int
    at: int
    path: str

    def record(self) -> Record:
        return Record(self.code, fd=self.fd, at=self.at, strings=_s(self.path))

    def describe(self) -> str:
        return f"mask {_place(self.at, self.path)}"


@dataclass(frozen=True)
class ReadOnly(Op):
    """Binds `path` in `at` onto itself, read-only, keeping its other mount flags. A missing path is no error."""

    code: ClassVar[int] = 16
    at: int
    path: str

    def record(self) -> Record:
        return Record(self.code, at=self.at, strings=_s(self.path))

    def describe(self) -> str:
        return f"make read-only {_place(self.at, self.path)}"


@dataclass(frozen=True)
class OpenPath(Op):
    """openat2(2) of `path` in `at` into slot `fd` with open(2) `flags` (O_CLOEXEC is added)."""

    code: ClassVar[int] = 17
    fd: int
    at: int
    path: str
    flags: int

    def record(self) -> Record:
        return Record(self.code, fd=self.fd, at=self.at, a=self.flags, strings=_s(self.path))

    def describe(self) -> str:
        return f"open {_place(self.at, self.path)} as [{self.fd}]"


@dataclass(frozen=True)
class PivotRoot(Op):
    """fchdir to slot `fd`, pivot_root(".", "."), detach the old root, chdir("/")."""

    code: ClassVar[int] = 18
    fd: int

    def record(self) -> Record:
        return Record(self.code, fd=self.fd)

    def describe(self) -> str:
        return f"pivot root to [{self.fd}]"


@dataclass(frozen=True)
class Hostname(Op):
    """sethostname(2)."""

    code: ClassVar[int] = 19
    name: str

    def record(self) -> Record:
        return Record(self.code, strings=_s(self.name))

    def describe(self) -> str:
        return f"set hostname {self.name}"


RLIM_INFINITY = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True)
class SetRlimit(Op):
    """prlimit(2). With `optional`, a refusal to raise the hard limit lowers the wish to the present one and warns."""

    code: ClassVar[int] = 20
    resource: int
    soft: int
    hard: int
    name: str = ""
    optional: bool = True

    def record(self) -> Record:
        return Record(
            self.code,
            flags=OPTIONAL if self.optional else 0,
            a=self.resource,
            b=self.soft & RLIM_INFINITY,
            c=self.hard & RLIM_INFINITY,
        )

    def describe(self) -> str:
        return f"set {self.name or self.resource} to {self.soft}:{self.hard}"


@dataclass(frozen=True)
class Credentials(Op):
    """User, groups and the five capability sets (bit masks), in the one order that works: bounding set, keepcaps,
    groups, gid, uid, capset, ambient."""

    code: ClassVar[int] = 22
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    bounding: int = 0
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    ambient: int = 0

    def record(self) -> Record:
        groups = struct.pack(f"={len(self.groups)}I", *self.groups)
        caps = struct.pack("=5Q", self.bounding, self.effective, self.permitted, self.inheritable, self.ambient)
        return Record(self.code, a=self.uid, b=self.gid, c=len(self.groups), strings=(groups or None, caps, None))

    def describe(self) -> str:
        groups = ",".join(map(str, self.groups)) or "none"
        return f"become {self.uid}:{self.gid} groups {groups} capabilities {self.effective:#x} of {self.bounding:#x}"


@dataclass(frozen=True)
class NoNewPrivs(Op):
    """prctl(PR_SET_NO_NEW_PRIVS)."""

    code: ClassVar[int] = 24

    def record(self) -> Record:
        return Record(self.code)

    def describe(self) -> str:
        return "no new privileges"


@dataclass(frozen=True)
class Seccomp(Op):
    """seccomp(SECCOMP_SET_MODE_FILTER) with an array of struct sock_filter."""

    code: ClassVar[int] = 25
    program: bytes
    flags: int = 0
    name: str = ""

    def record(self) -> Record:
        return Record(self.code, a=self.flags, strings=(self.program, None, None))

    def describe(self) -> str:
        return f"seccomp {self.name} ({len(self.program) // 8} instructions)"


@dataclass(frozen=True)
class Chdir(Op):
    code: ClassVar[int] = 26
    path: str

    def record(self) -> Record:
        return Record(self.code, strings=_s(self.path))

    def describe(self) -> str:
        return f"chdir {self.path}"


@dataclass(frozen=True)
class Setsid(Op):
    code: ClassVar[int] = 27

    def record(self) -> Record:
        return Record(self.code)

    def describe(self) -> str:
        return "new session"


@dataclass(frozen=True)
class Umask(Op):
    code: ClassVar[int] = 28
    mask: int

    def record(self) -> Record:
        return Record(self.code, a=self.mask)

    def describe(self) -> str:
        return f"umask {self.mask:o}"


@dataclass(frozen=True)
class Exec(Op):
    """The last operation. Without a slash argv[0] is looked up in the PATH of `env`, as execvp(3) does. With a slot
    `fd`, execveat(2) of that descriptor. Every descriptor from 3 on is closed by the exec."""

    code: ClassVar[int] = 29
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    fd: int = NONE

    def record(self) -> Record:
        return Record(
            self.code,
            fd=self.fd,
            a=len(self.argv),
            b=len(self.env),
            strings=_s(_blob(self.argv), _blob(self.env) if self.env else None),
        )

    def describe(self) -> str:
        return "exec " + shlex.join(self.argv)


@dataclass(frozen=True)
class Dup(Op):
    """dup2 of slot `fd` to descriptor `target` (0, 1 or 2)."""

    code: ClassVar[int] = 30
    fd: int
    target: int

    def record(self) -> Record:
        return Record(self.code, fd=self.fd, a=self.target)

    def describe(self) -> str:
        return f"descriptor {self.target} from [{self.fd}]"


@dataclass(frozen=True)
class Pty(Op):
    """A new terminal from the devpts at dev/pts of the root in slot `at`: its slave becomes the controlling terminal
    and descriptors 0, 1 and 2 (after setsid), its master goes to slot `fd`; owner `uid`. With `console` the slave is
    also mounted on dev/console (needs mount privileges: before Credentials and PivotRoot)."""

    code: ClassVar[int] = 31
    fd: int
    at: int
    rows: int = 0
    columns: int = 0
    uid: int = 0
    console: bool = False

    def record(self) -> Record:
        return Record(
            self.code,
            flags=1 if self.console else 0,
            fd=self.fd,
            at=self.at,
            a=self.rows,
            b=self.columns,
            c=self.uid,
        )

    def describe(self) -> str:
        return f"new terminal as [{self.fd}]"


@dataclass(frozen=True)
class SendFd(Op):
    """Hands the descriptor in slot `fd` to the requester, in the order of these operations. `name` is for humans."""

    code: ClassVar[int] = 32
    fd: int
    name: str = ""

    def record(self) -> Record:
        return Record(self.code, fd=self.fd)

    def describe(self) -> str:
        return f"hand over {self.name or f'[{self.fd}]'}"


@dataclass(frozen=True)
class Socket(Op):
    """socket(2) into slot `fd`, in the network namespace the child is in."""

    code: ClassVar[int] = 33
    fd: int
    family: int
    type: int
    protocol: int

    def record(self) -> Record:
        return Record(self.code, fd=self.fd, a=self.family, b=self.type, c=self.protocol)

    def describe(self) -> str:
        return f"socket family {self.family} as [{self.fd}]"


@dataclass(frozen=True)
class LoopbackUp(Op):
    """SIOCSIFFLAGS: lo is up."""

    code: ClassVar[int] = 34

    def record(self) -> Record:
        return Record(self.code)

    def describe(self) -> str:
        return "bring up lo"


@dataclass(frozen=True)
class SessionKeyring(Op):
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): a keyring of its own. A kernel without keys is no error."""

    code: ClassVar[int] = 35

    def record(self) -> Record:
        return Record(self.code)

    def describe(self) -> str:
        return "new session keyring"


@dataclass(frozen=True)
class Close(Op):
    """close(2) of slot `fd`."""

    code: ClassVar[int] = 36
    fd: int

    def record(self) -> Record:
        return Record(self.code, fd=self.fd)

    def describe(self) -> str:
        return f"close [{self.fd}]"


@dataclass(frozen=True)
class Mark(Op):
    """Reports the monotonic time at which the plan got here; `number` 1..15 has a meaning in `MARK_NAMES`."""

    code: ClassVar[int] = 37
    number: int

    def record(self) -> Record:
        return Record(self.code, a=self.number)

    def describe(self) -> str:
        return f"mark {MARK_NAMES.get(self.number, self.number)}"


MARK_NAMES = {1: "begin", 2: "cgroups", 3: "namespaces", 4: "mounts", 5: "exec"}
"""A mark closes the span of its name that began at the mark before it."""


@dataclass(frozen=True)
class Plan:
    """Operations in order. `slots` is the size of the table; the first `given` are filled by the requester."""

    ops: tuple[Op, ...]
    given: tuple[str, ...] = ()
    """What the requester's descriptors are, for the reader of a printed plan."""

    @property
    def slot_count(self) -> int:
        return _slot_count(self, [op.record() for op in self.ops])

    def describe(self) -> list[str]:
        lines = [f"[{number}] is {name}" for number, name in enumerate(self.given)]
        return lines + [op.describe() for op in self.ops]


def _slot_count(plan: Plan, records: Sequence[Record]) -> int:
    return max(len(plan.given) - 1, *(max(record.fd, record.at) for record in records)) + 1


def encode_plan(plan: Plan) -> bytes:
    """The plan on the wire. Raises ValueError when a bound of the format is exceeded."""
    records = [op.record() for op in plan.ops]
    if not 0 < len(records) <= MAX_OPS:
        raise ValueError(f"a plan has 1 to {MAX_OPS} operations, not {len(records)}")
    slot_count = _slot_count(plan, records)
    if slot_count > MAX_SLOTS:
        raise ValueError(f"a plan has at most {MAX_SLOTS} slots, not {slot_count}")
    data = bytearray()
    base = _HEADER.size + OP_BYTES * len(records)
    packed = bytearray()
    for record in records:
        places: list[int] = []
        for string in record.strings:
            if string is None:
                places += [0, 0]
                continue
            # Arrays of integers are read in place: keep them aligned.
            data.extend(b"\0" * (-(base + len(data)) % 8))
            places += [base + len(data), len(string)]
            data += string + b"\0"
        packed += _OP.pack(record.code, record.flags, record.fd, record.at, record.a, record.b, record.c, *places, 0)
    total = base + len(data)
    if total > MAX_PLAN_BYTES:
        raise ValueError(f"a plan has at most {MAX_PLAN_BYTES} bytes, not {total}")
    return _HEADER.pack(MAGIC, VERSION, len(records), total, slot_count) + bytes(packed) + bytes(data)
