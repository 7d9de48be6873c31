"""Localhost seccomp profiles: the JSON of the OCI runtime specification (config-linux.md, "Seccomp"), validated."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any

import pyseccomp

from sandbox.errors import InvalidInput
from sandbox.linux import constants
from sandbox.linux.seccomp import Condition, Profile, Rule, machine_architectures

MAX_PROFILE_BYTES = 1 << 20
MAX_NAMES = 8192

ACTIONS: dict[str, int] = {
    "SCMP_ACT_KILL": int(pyseccomp.KILL_THREAD),
    "SCMP_ACT_KILL_THREAD": int(pyseccomp.KILL_THREAD),
    "SCMP_ACT_KILL_PROCESS": int(pyseccomp.KILL_PROCESS),
    "SCMP_ACT_TRAP": int(pyseccomp.TRAP),
    "SCMP_ACT_LOG": int(pyseccomp.LOG),
    "SCMP_ACT_ALLOW": int(pyseccomp.ALLOW),
}
"""Without SCMP_ACT_ERRNO and SCMP_ACT_TRACE, which carry a number."""

OPERATORS: dict[str, int] = {
    "SCMP_CMP_NE": int(pyseccomp.NE),
    "SCMP_CMP_LT": int(pyseccomp.LT),
    "SCMP_CMP_LE": int(pyseccomp.LE),
    "SCMP_CMP_EQ": int(pyseccomp.EQ),
    "SCMP_CMP_GE": int(pyseccomp.GE),
    "SCMP_CMP_GT": int(pyseccomp.GT),
    "SCMP_CMP_MASKED_EQ": int(pyseccomp.MASKED_EQ),
}

ARCHITECTURES: dict[str, int] = {
    f"SCMP_ARCH_{name}": int(value)
    for name, value in vars(pyseccomp.Arch).items()
    if name.isupper() and isinstance(value, int) and name != "NATIVE"
}

FLAGS: dict[str, int] = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # a plan's process has one thread
    "SECCOMP_FILTER_FLAG_LOG": constants.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": constants.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
}


class _Reader:
    """Takes typed fields out of one JSON object and names the place in every complaint."""

    def __init__(self, path: str, place: str, value: object) -> None:
        self.path = path
        self.place = place
        if not isinstance(value, dict):
            raise self.wrong("an object", value)
        self.fields: dict[str, Any] = value

    def wrong(self, wanted: str, value: object, name: str = "") -> InvalidInput:
        where = f"{self.place}.{name}".strip(".") or "the profile"
        return InvalidInput(
            f"seccomp profile {self.path}: {where} must be {wanted}, not {str(value)[:80]!r}",
            operation="seccomp",
            subject=self.path,
        )

    def only(self, *names: str) -> None:
        unknown = sorted(set(self.fields) - set(names))
        if unknown:
            raise self.wrong("absent (no such field)", self.fields[unknown[0]], unknown[0])

    def number(self, name: str, fallback: int | None, maximum: int) -> int:
        value = self.fields.get(name)
        if value is None and fallback is not None:
            return fallback
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
            raise self.wrong(f"a number from 0 to {maximum}", value, name)
        return value

    def choice(self, name: str, table: dict[str, int]) -> int:
        value = self.fields.get(name)
        if not isinstance(value, str) or value not in table:
            raise self.wrong("one of " + ", ".join(table), value, name)
        return table[value]

    def strings(self, name: str) -> list[str]:
        value = self.fields.get(name) or []
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.wrong("a list of strings", value, name)
        return value

    def objects(self, name: str) -> list[_Reader]:
        value = self.fields.get(name) or []
        if not isinstance(value, list):
            raise self.wrong("a list", value, name)
        prefix = f"{self.place}.{name}".strip(".")
        return [_Reader(self.path, f"{prefix}[{i}]", v) for i, v in enumerate(value)]

    def action(self, name: str, errno_name: str) -> int:
        value = self.fields.get(name)
        if value == "SCMP_ACT_ERRNO":
            return int(pyseccomp.ERRNO(self.number(errno_name, errno.EPERM, 4095)))
        if value == "SCMP_ACT_TRACE":
            return int(pyseccomp.TRACE(self.number(errno_name, errno.EPERM, 0xFFFF)))
        if self.fields.get(errno_name) is not None:
            raise self.wrong("absent for an action that returns no error", self.fields[errno_name], errno_name)
        return self.choice(name, {**ACTIONS, "SCMP_ACT_ERRNO": 0, "SCMP_ACT_TRACE": 0})


def read_profile(path: str) -> bytes:
    """The bytes of a profile: an absolute path of a regular file of at most 1 MiB. Raises InvalidInput."""
    if not path.startswith("/"):
        raise InvalidInput(f"seccomp profile path {path!r} is not absolute", operation="seccomp", subject=path)
    try:
        # O_NONBLOCK: a FIFO in its place must not hang us.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InvalidInput(f"seccomp profile {path} is not a file", operation="seccomp", subject=path)
            content = file.read(MAX_PROFILE_BYTES + 1)
    except OSError as e:
        raise InvalidInput(
            f"seccomp profile {path} cannot be read", operation="seccomp", subject=path, errno=e.errno or 0
        ) from e
    if len(content) > MAX_PROFILE_BYTES:
        raise InvalidInput(
            f"seccomp profile {path} is larger than {MAX_PROFILE_BYTES} bytes", operation="seccomp", subject=path
        )
    return content


def _architectures(reader: _Reader) -> tuple[int, ...]:
    """The native one, which libseccomp always has, and those named that this machine can run."""
    names = reader.strings("architectures")
    for name in names:
        if name not in ARCHITECTURES:
            raise reader.wrong("a list of " + ", ".join(ARCHITECTURES), name, "architectures")
    mine = machine_architectures()
    named = {ARCHITECTURES[name] for name in names}
    return mine[:1] + tuple(arch for arch in mine[1:] if arch in named)


def _rule(reader: _Reader) -> Rule:
    reader.only("names", "action", "errnoRet", "args", "comment", "includes", "excludes")
    for conditional in ("includes", "excludes"):
        if reader.fields.get(conditional):
            raise reader.wrong("absent: conditions are not part of the OCI format", reader.fields, conditional)
    names = reader.strings("names")
    if not names:
        raise reader.wrong("a list of at least one system call", names, "names")
    conditions = []
    for arg in reader.objects("args"):
        arg.only("index", "value", "valueTwo", "op")
        conditions.append(
            Condition(
                arg.number("index", None, 5),
                arg.choice("op", OPERATORS),
                arg.number("value", None, 2**64 - 1),
                arg.number("valueTwo", 0, 2**64 - 1),
            )
        )
    return Rule(tuple(names), reader.action("action", "errnoRet"), tuple(conditions))


def parse_profile(content: bytes, path: str) -> Profile:
    """A profile from its JSON. Raises InvalidInput that names the file and the field."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as e:
        raise InvalidInput(f"seccomp profile {path} is not JSON: {e}", operation="seccomp", subject=path) from e
    reader = _Reader(path, "", document)
    reader.only(
        "defaultAction", "defaultErrnoRet", "architectures", "flags", "syscalls", "listenerPath", "listenerMetadata"
    )
    if reader.fields.get("listenerPath"):
        raise reader.wrong("absent: user space notification is not supported", reader.fields, "listenerPath")
    flags = 0
    for flag in reader.strings("flags"):
        if flag not in FLAGS:
            raise reader.wrong("a list of " + ", ".join(FLAGS), flag, "flags")
        flags |= FLAGS[flag]
    rules = tuple(_rule(entry) for entry in reader.objects("syscalls"))
    if sum(len(rule.names) for rule in rules) > MAX_NAMES:
        raise reader.wrong(f"at most {MAX_NAMES} names", "more", "syscalls")
    return Profile(reader.action("defaultAction", "defaultErrnoRet"), _architectures(reader), rules, flags)
