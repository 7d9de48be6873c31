"""Seccomp profiles compiled to BPF with libseccomp (through pyseccomp), once a profile and set of capabilities.

Two kinds of source, one intermediate form: the default profile of `seccomp_profile`, and the JSON of the OCI runtime
specification (config-linux.md, "Seccomp") for Localhost profiles. System calls newer than everything the profile
knows get ENOSYS instead of the default error, so that a C library falls back to the older call (as runc does): a
prologue of ours in front of libseccomp's program, which also handles calls that are too new for libseccomp's names.
"""

from __future__ import annotations

import errno
import functools
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyseccomp

from sandbox.errors import InvalidInput, UnsupportedByHost
from sandbox.linux import seccomp_profile as default
from sandbox.linux.capabilities import NUMBERS
from sandbox.linux.libc import libc

MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS of include/uapi/linux/bpf_common.h."""

# include/uapi/linux/seccomp.h
RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000

X86_64, X86, X32 = int(pyseccomp.Arch.X86_64), int(pyseccomp.Arch.X86), int(pyseccomp.Arch.X32)
AARCH64, ARM = int(pyseccomp.Arch.AARCH64), int(pyseccomp.Arch.ARM)

ARCHITECTURES: dict[str, tuple[int, ...]] = {"x86_64": (X86_64, X86, X32), "aarch64": (AARCH64, ARM)}
"""uname machine → the architectures whose system calls a process on it can make."""


@dataclass(frozen=True)
class Condition:
    """The argument number `index` compared (`op` of pyseccomp) with `value`; MASKED_EQ: value is the mask."""

    index: int
    op: int
    value: int
    value_two: int = 0


@dataclass(frozen=True)
class Rule:
    """`action` (a pyseccomp value) for these calls when every condition holds."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Profile:
    """What is compiled. `flags` are SECCOMP_FILTER_FLAG_* for seccomp(2)."""

    default_action: int
    architectures: tuple[int, ...]
    rules: tuple[Rule, ...]
    flags: int = 0


@dataclass(frozen=True)
class Filter:
    """An array of struct sock_filter, and the flags to load it with."""

    program: bytes = field(repr=False)
    flags: int = 0

    @property
    def instructions(self) -> int:
        return len(self.program) // 8


def _errno(number: int) -> int:
    return int(pyseccomp.ERRNO(number))


def machine_architectures() -> tuple[int, ...]:
    """Raises UnsupportedByHost on a machine without a table."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise UnsupportedByHost(f"no seccomp table for machine {machine!r}", operation="seccomp", subject=machine)
    return ARCHITECTURES[machine]


def default_profile(capabilities: int) -> Profile:
    """RuntimeDefault for a bounding set of `capabilities` (a mask)."""
    allow = int(pyseccomp.ALLOW)
    held = {name for name, number in NUMBERS.items() if capabilities >> number & 1}
    rules = [Rule(default.ALWAYS + default.TRACING, allow)]
    if platform.machine() == "aarch64":
        rules.append(Rule(tuple(default.PROCESSES_ARM.split()), allow))
    rules += [Rule(names, allow) for name, names in default.WITH_CAPABILITY.items() if name in held]
    equal, masked = int(pyseccomp.EQ), int(pyseccomp.MASKED_EQ)
    rules += [Rule(("personality",), allow, (Condition(0, equal, p),)) for p in default.PERSONALITIES]
    rules.append(Rule(("socket",), allow, (Condition(0, int(pyseccomp.NE), default.AF_VSOCK),)))
    if "CAP_SYS_ADMIN" not in held:
        rules.append(Rule(("clone",), allow, (Condition(0, masked, default.NEW_NAMESPACES, 0),)))
        # Its flags are behind a pointer that seccomp cannot follow: the C library must fall back to clone.
        rules.append(Rule(("clone3",), _errno(errno.ENOSYS)))
    return Profile(_errno(errno.EPERM), machine_architectures(), tuple(rules))


def _resolve(name: str) -> int | None:
    """The number libseccomp works with (negative for calls of other architectures); None when it has no such name."""
    number = int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))
    return None if number == -1 else number  # __NR_SCMP_ERROR


def _native_numbers(names: Iterator[str]) -> Iterator[int]:
    for name in names:
        if name in default.NEWER:
            yield default.NEWER[name]
            continue
        number = _resolve(name)
        if number is not None and number >= 0:
            yield number


def _prologue(profile: Profile, by_number: dict[int, int]) -> bytes:
    """Classic BPF in front of libseccomp's: actions by number, then ENOSYS above the highest number known.

    `by_number` are actions for calls libseccomp cannot name. Every jump is forward and relative; falling through
    the end reaches libseccomp's own program, which checks the architecture again.
    """
    load_arch, load_nr = (0x20, 0, 0, 4), (0x20, 0, 0, 0)  # BPF_LD|BPF_W|BPF_ABS into struct seccomp_data
    jeq, jgt, jset, ret = 0x15, 0x25, 0x45, 0x06
    known = max(
        [*_native_numbers(name for rule in profile.rules for name in rule.names), *by_number],
        default=0,
    )
    # Allowing profiles (deny lists) let unknown calls through, as they say.
    stub = profile.default_action >> 16 == RET_ERRNO >> 16 and known >= 424
    body: list[tuple[int, int, int, int]] = []
    for number, action in by_number.items():
        body += [(jeq, 0, 1, number), (ret, 0, 0, action)]
    if stub:
        body += [(jgt, 0, 1, known), (ret, 0, 0, _errno(errno.ENOSYS))]
    if not body:
        return b""
    # x32 numbers carry bit 30, ARM's private ones start at 0x0f0000: they are left to libseccomp.
    body = [load_nr, (jset, len(body), 0, 0x400F0000), *body]
    arches = [a for a in profile.architectures if a != X32]  # X32 has its own value, but AUDIT_ARCH_X86_64 at run time
    if X32 in profile.architectures and X86_64 not in arches:
        return b""
    assert len(body) + len(arches) < 256  # a jump has eight bits
    head = [load_arch]
    for position, arch in enumerate(arches):
        last = position == len(arches) - 1
        # Matched: over the remaining comparisons into the body. Not matched by the last: over the body.
        head.append((jeq, len(arches) - 1 - position, len(body) if last else 0, arch))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in head + body)


def compile_rules(profile: Profile) -> bytes:
    """The program. Raises InvalidInput for what libseccomp refuses, and for a program longer than the kernel takes."""
    filter_ = pyseccomp.SyscallFilter(profile.default_action)
    filter_.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree instead of a chain of comparisons
    for arch in profile.architectures:
        if not filter_.exist_arch(arch):
            filter_.add_arch(arch)
    by_number: dict[int, int] = {}
    for rule in profile.rules:
        if rule.action == profile.default_action:
            continue  # libseccomp refuses what changes nothing
        for name in rule.names:
            number = _resolve(name)
            if number is not None:
                _add(filter_, rule, name, number)
            elif name in default.NEWER and not rule.conditions:
                by_number.setdefault(default.NEWER[name], rule.action)
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w+b") as file:
        filter_.export_bpf(file)
        file.seek(0)
        program = _prologue(profile, by_number) + file.read()
    if len(program) // 8 > MAX_INSTRUCTIONS:
        raise InvalidInput(
            f"seccomp profile has {len(program) // 8} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            operation="seccomp",
        )
    return program


def _add(filter_: Any, rule: Rule, name: str, number: int) -> None:
    conditions = [pyseccomp.Arg(c.index, c.op, c.value, c.value_two) for c in rule.conditions]
    indices = [c.index for c in rule.conditions]
    # libseccomp takes an argument once a rule; runc turns repeated ones into alternatives, and so do we.
    groups = [conditions] if len(set(indices)) == len(indices) else [[c] for c in conditions]
    for group in groups:
        try:
            filter_.add_rule(rule.action, number, *group)
        except OSError as e:
            if e.errno == errno.EEXIST:
                continue
            raise InvalidInput(
                f"seccomp rule for {name!r} refused", operation="seccomp", subject=name, errno=e.errno or 0
            ) from e


@functools.lru_cache(maxsize=64)
def _compiled_default(relevant: int) -> Filter:
    return Filter(compile_rules(default_profile(relevant)))


_RELEVANT = functools.reduce(lambda mask, name: mask | 1 << NUMBERS[name], default.WITH_CAPABILITY, 0)


@functools.lru_cache(maxsize=64)
def _compiled_localhost(content: bytes, path: str) -> Filter:
    from sandbox.linux.seccomp_oci import parse_profile

    profile = parse_profile(content, path)
    return Filter(compile_rules(profile), profile.flags)


def compile_filter(kind: str, localhost_path: str, capabilities: int) -> Filter | None:
    """RuntimeDefault, Unconfined (None) or Localhost with an absolute path. Cached. Raises InvalidInput."""
    if kind == "Unconfined":
        return None
    if kind == "RuntimeDefault":
        return _compiled_default(capabilities & _RELEVANT)
    if kind == "Localhost":
        from sandbox.linux.seccomp_oci import read_profile

        return _compiled_localhost(read_profile(localhost_path), localhost_path)
    raise InvalidInput(f"unknown seccomp profile type {kind!r}", operation="seccomp", subject=kind)


def compile_profile(kind: str, localhost_path: str, capabilities: int) -> bytes | None:
    """The program of `compile_filter`: an array of struct sock_filter, or None for Unconfined."""
    compiled = compile_filter(kind, localhost_path, capabilities)
    return None if compiled is None else compiled.program


def supported() -> bool:
    """True when the kernel has seccomp filters: prctl(PR_GET_SECCOMP) knows the word."""
    return int(libc.prctl(21, 0, 0, 0, 0)) >= 0  # PR_GET_SECCOMP of include/uapi/linux/prctl.h
