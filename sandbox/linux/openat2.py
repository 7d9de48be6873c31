"""openat2(2): paths resolved beneath a directory, with the kernel as the judge."""

from __future__ import annotations

import ctypes
import os

from sandbox.linux.libc import syscall


class OpenHow(ctypes.Structure):
    """struct open_how of include/uapi/linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """A new descriptor (O_CLOEXEC always), owned by the caller. Raises OSError with the path."""
    how = OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    return syscall(
        "openat2",
        ctypes.c_int(dirfd),
        ctypes.c_char_p(name),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
        subject=os.fsdecode(name),
    )
