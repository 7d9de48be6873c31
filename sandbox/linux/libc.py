"""The C library and syscall(2), with errno turned into OSError."""

from __future__ import annotations

import ctypes
import os
import platform

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

_NUMBERS: dict[str, dict[str, int]] = {
    # arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h; from 424 on they are the same.
    "x86_64": {"bpf": 321, "openat2": 437, "eventfd2": 290},
    "aarch64": {"bpf": 280, "openat2": 437, "eventfd2": 19},
}


def raise_errno(subject: str | bytes | None = None) -> None:
    """Raises OSError of the errno the last call through `libc` left."""
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), subject)


def syscall(name: str, *arguments: object, subject: str | None = None) -> int:
    """syscall(2) by name. Pass pointers as ctypes objects. Raises OSError; ENOSYS on an unknown architecture."""
    number = _NUMBERS.get(platform.machine(), {}).get(name)
    if number is None:
        raise OSError(38, f"no number of system call {name} for {platform.machine()}", subject)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise_errno(subject)
    return result
