"""bpf(2) for one purpose: device programs of cgroup v2 (cgroup-v2.rst, "Device controller")."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.linux.libc import syscall

# include/uapi/linux/bpf.h
BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

BPF_DEVCG_ACC_MKNOD = 1
BPF_DEVCG_ACC_READ = 2
BPF_DEVCG_ACC_WRITE = 4
BPF_DEVCG_DEV_BLOCK = 1
BPF_DEVCG_DEV_CHAR = 2

ACCESS_BITS = {"r": BPF_DEVCG_ACC_READ, "w": BPF_DEVCG_ACC_WRITE, "m": BPF_DEVCG_ACC_MKNOD}
EVERY_ACCESS = BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE | BPF_DEVCG_ACC_MKNOD

MAX_PROGRAMS = 64
"""BPF_CGROUP_MAX_PROGS of kernel/bpf/cgroup.c."""

_ATTR_BYTES = 128
_INSTRUCTION = struct.Struct("=BBhi")


@dataclass(frozen=True)
class DeviceMatch:
    """One rule. `kind` is a, b or c; None as a number is every number; `access` out of r, w and m."""

    allow: bool
    kind: str
    major: int | None
    minor: int | None
    access: str


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, dst | src << 4, offset, immediate)


def _load(dst: int, offset: int) -> bytes:
    return _instruction(0x61, dst, 1, offset)  # BPF_LDX | BPF_MEM | BPF_W from the context in r1


def _verdict(allow: bool) -> bytes:
    return _instruction(0xB7, 0, immediate=int(allow)) + _instruction(0x95)  # r0 = allow; exit


def device_program(rules: Sequence[DeviceMatch]) -> bytes:
    """Instructions that decide as the device list of cgroup v1 does: the last rule that matches counts.

    An allowing rule matches when it covers every access asked for, a denying one when it covers any. What no rule
    matches is allowed. Raises ValueError for a number the kernel's dev_t cannot hold.
    """
    # The context in r1: struct bpf_cgroup_dev_ctx {access << 16 | type, major, minor}.
    program = [
        _load(2, 0),
        _instruction(0xBF, 3, 2),  # r3 = r2
        _instruction(0x57, 2, immediate=0xFFFF),  # r2 &= 0xffff: type
        _instruction(0x77, 3, immediate=16),  # r3 >>= 16: access
        _load(4, 4),
        _load(5, 8),
    ]
    for rule in reversed(rules):
        conditions = _conditions(rule)
        # Each condition that fails jumps over the rest of this rule; `tests` are (mask or None, register, value).
        block: list[bytes] = []
        size = sum(3 if mask else 1 for mask, _, _, _ in conditions) + 2
        for mask, code, register, value in conditions:
            if mask:
                block.append(_instruction(0xBF, 1, 3))  # r1 = r3
                block.append(_instruction(0x57, 1, immediate=mask))  # r1 &= mask
            block.append(_instruction(code, register, offset=size - len(block) - 1, immediate=value))
        program += [*block, _verdict(rule.allow)]
        if not conditions:
            return b"".join(program)  # nothing behind it can be reached, and the verifier refuses that
    return b"".join([*program, _verdict(True)])


_JNE, _JEQ = 0x55, 0x15


def _conditions(rule: DeviceMatch) -> list[tuple[int, int, int, int]]:
    """(mask of r3 into r1 or 0, code of the jump when the rule does not match, register, value)."""
    found: list[tuple[int, int, int, int]] = []
    if rule.kind != "a":
        found.append((0, _JNE, 2, BPF_DEVCG_DEV_BLOCK if rule.kind == "b" else BPF_DEVCG_DEV_CHAR))
    access = 0
    for letter in rule.access:
        access |= ACCESS_BITS[letter]
    if access != EVERY_ACCESS:
        found.append((EVERY_ACCESS & ~access, _JNE, 1, 0) if rule.allow else (access, _JEQ, 1, 0))
    for register, number in ((4, rule.major), (5, rule.minor)):
        if number is not None:
            if not 0 <= number < 1 << 31:
                raise ValueError(f"device number {number}")
            found.append((0, _JNE, register, number))
    return found


def _bpf(command: int, attributes: bytes, subject: str = "") -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes, _ATTR_BYTES)
    result = syscall(
        "bpf", ctypes.c_int(command), ctypes.byref(buffer), ctypes.c_uint(_ATTR_BYTES), subject=subject or None
    )
    return result, buffer.raw


def prog_load(program: bytes, name: str = "sandbox_devices") -> int:
    """BPF_PROG_LOAD of a device program; the caller owns the descriptor (close-on-exec). OSError tells the verifier's
    last words."""
    instructions = ctypes.create_string_buffer(program, len(program))
    license_ = ctypes.create_string_buffer(b"Apache-2.0")
    count = len(program) // _INSTRUCTION.size

    def attributes(log: ctypes.Array[ctypes.c_char] | None) -> bytes:
        return struct.pack(
            "=IIQQIIQII16s",
            BPF_PROG_TYPE_CGROUP_DEVICE,
            count,
            ctypes.addressof(instructions),
            ctypes.addressof(license_),
            1 if log else 0,
            len(log) if log else 0,
            ctypes.addressof(log) if log else 0,
            0,
            0,
            name.encode()[:15],
        )

    try:
        return _bpf(BPF_PROG_LOAD, attributes(None))[0]
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EACCES):
            raise
        # Once more with a log: only now, because a log costs the verifier time.
        log = ctypes.create_string_buffer(65536)
        try:
            return _bpf(BPF_PROG_LOAD, attributes(log))[0]
        except OSError as e:
            words = log.value.decode("ascii", "replace").strip().splitlines()[-3:]
            raise OSError(e.errno, f"{os.strerror(e.errno or 0)}: {' / '.join(words)}") from e


def prog_attach(cgroup_fd: int, program_fd: int) -> None:
    """BPF_PROG_ATTACH beside programs that are there (BPF_F_ALLOW_MULTI): every one must allow."""
    _bpf(BPF_PROG_ATTACH, struct.pack("=IIII", cgroup_fd, program_fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI))


def prog_detach(cgroup_fd: int, program_fd: int) -> None:
    """BPF_PROG_DETACH."""
    _bpf(BPF_PROG_DETACH, struct.pack("=III", cgroup_fd, program_fd, BPF_CGROUP_DEVICE))


def prog_query(cgroup_fd: int) -> list[int]:
    """BPF_PROG_QUERY: ids of the device programs attached to this very cgroup."""
    ids = (ctypes.c_uint32 * MAX_PROGRAMS)()
    request = struct.pack("=IIIIQI", cgroup_fd, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), MAX_PROGRAMS)
    _, answer = _bpf(BPF_PROG_QUERY, request)
    count: int = struct.unpack_from("=I", answer, 24)[0]
    return list(ids)[:count]


def prog_get_fd_by_id(program_id: int) -> int:
    """BPF_PROG_GET_FD_BY_ID; the caller owns the descriptor."""
    return _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=I", program_id))[0]


def replace_device_program(directory: str, rules: Sequence[DeviceMatch]) -> None:
    """Puts a program for `rules` in place of those on the cgroup at `directory`. At no moment is there none.

    The program lives as long as the cgroup. Raises OSError.
    """
    cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        old = prog_query(cgroup)
        program = prog_load(device_program(rules))
        try:
            prog_attach(cgroup, program)
        finally:
            os.close(program)
        for program_id in old:
            try:
                former = prog_get_fd_by_id(program_id)
            except FileNotFoundError:
                continue
            try:
                prog_detach(cgroup, former)
            finally:
                os.close(former)
    finally:
        os.close(cgroup)
