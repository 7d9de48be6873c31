"""The compiled programs are loaded into real processes: what counts is what the kernel then answers."""

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.errors import InvalidInput
from sandbox.linux import seccomp, seccomp_profile
from sandbox.linux.capabilities import DEFAULT_CAPABILITIES, mask_of

DEFAULT = mask_of(DEFAULT_CAPABILITIES)
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are those of x86_64")

LOADER = """
import ctypes, os, sys
program = open(sys.argv[1], 'rb').read()
calls = [tuple(int(n, 0) for n in a.split(',')) for a in sys.argv[2:]]
libc = ctypes.CDLL(None, use_errno=True)
class Fprog(ctypes.Structure):
    _fields_ = (('len', ctypes.c_ushort), ('filter', ctypes.c_char_p))
libc.prctl(38, 1, 0, 0, 0)
if libc.syscall(317, 1, 0, ctypes.byref(Fprog(len(program) // 8, program))):
    sys.exit(f'seccomp: {ctypes.get_errno()}')
for call in calls:
    ctypes.set_errno(0)
    r = libc.syscall(*[ctypes.c_long(n) for n in call])
    print(0 if r >= 0 else ctypes.get_errno())
"""


def answers(tmp_path: Path, program: bytes | None, *calls: tuple[int, ...]) -> list[int]:
    """errno (0: allowed and fine) of each raw system call in a process under `program`."""
    assert program
    file = tmp_path / "program"
    file.write_bytes(program)
    arguments = [",".join(map(str, call)) for call in calls]
    ran = subprocess.run(
        [sys.executable, "-c", LOADER, str(file), *arguments], capture_output=True, text=True, timeout=30
    )
    assert ran.returncode == 0, (ran.returncode, ran.stderr)
    return [int(line) for line in ran.stdout.split()]


@x86_64
def test_default_profile_denies_and_allows(tmp_path: Path) -> None:
    program = seccomp.compile_profile("RuntimeDefault", "", DEFAULT)
    new_namespace = 0x10000000 | 17
    got = answers(
        tmp_path,
        program,
        (39,),  # getpid
        (272, 0),  # unshare nothing: needs no privilege, so only the filter can refuse
        (248, 0, 0, 0, 0, 0),  # add_key
        (435, 0, 0),  # clone3
        (56, new_namespace, 0, 0, 0, 0),  # clone with CLONE_NEWUSER
        (135, 0xFFFFFFFF),  # personality: ask
        (135, 0x0040000),  # personality: ADDR_NO_RANDOMIZE
        (41, 1, 1, 0),  # socket AF_UNIX
        (41, 40, 1, 0),  # socket AF_VSOCK
        (425, 1, 0),  # io_uring_setup
        (161, 0),  # chroot: allowed, then EFAULT
        (999,),  # a call that nobody knows
        (452, -1, 0, 0, 0),  # fchmodat2: allowed
        (466, -1, 0, 0, 0),  # removexattrat: newer than libseccomp
        (323, 0),  # userfaultfd
    )
    assert got[:4] == [0, errno.EPERM, errno.EPERM, errno.ENOSYS]
    assert got[4:7] == [errno.EPERM, 0, errno.EPERM]
    assert got[7:9] == [0, errno.EPERM]
    assert got[9] == errno.EPERM
    assert got[10] == errno.EFAULT
    assert got[11] == errno.ENOSYS
    assert got[12] != errno.EPERM
    assert got[13] != errno.EPERM
    assert got[14] == errno.EPERM


@x86_64
def test_capabilities_open_their_calls(tmp_path: Path) -> None:
    admin = seccomp.compile_profile("RuntimeDefault", "", DEFAULT | mask_of(["SYS_ADMIN"]))
    assert answers(tmp_path, admin, (272, 0), (435, 0, 0)) == [0, errno.EINVAL]  # unshare; clone3 reaches the kernel
    no_chroot = seccomp.compile_profile("RuntimeDefault", "", DEFAULT & ~mask_of(["SYS_CHROOT"]))
    assert answers(tmp_path, no_chroot, (161, 0)) == [errno.EPERM]


@x86_64
def test_the_other_architectures_of_the_machine_are_filtered_too(tmp_path: Path) -> None:
    program = seccomp.compile_profile("RuntimeDefault", "", DEFAULT)
    x32 = 0x40000000
    # getpid and unshare by x32 numbers: EPERM by the filter for unshare; the kernel has no x32 (ENOSYS) or runs it.
    got = answers(tmp_path, program, (x32 | 39,), (x32 | 272, 0))
    assert got[0] in (0, errno.ENOSYS)
    assert got[1] == errno.EPERM


def test_compiled_once_for_each_relevant_set() -> None:
    first = seccomp.compile_filter("RuntimeDefault", "", DEFAULT)
    assert seccomp.compile_filter("RuntimeDefault", "", DEFAULT & ~mask_of(["CHOWN"])) is first
    assert seccomp.compile_filter("RuntimeDefault", "", DEFAULT | mask_of(["SYS_ADMIN"])) is not first
    assert seccomp.compile_profile("Unconfined", "", 0) is None
    assert seccomp.supported()
    assert first is not None and 500 < first.instructions < seccomp.MAX_INSTRUCTIONS


def test_no_name_twice_and_every_name_has_a_number() -> None:
    names = seccomp_profile.ALWAYS
    assert len(names) == len(set(names))
    missing = [n for n in names if n not in seccomp_profile.NEWER and seccomp._resolve(n) is None]
    assert missing == []


def write(tmp_path: Path, document: object) -> str:
    path = tmp_path / "profile.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


@x86_64
def test_localhost_profile_of_the_oci_format(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EDOM},
                {"names": ["getpid", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {
                    "names": ["dup2"],
                    "action": "SCMP_ACT_ERRNO",
                    "args": [
                        {"index": 1, "value": 77, "op": "SCMP_CMP_EQ"},
                        {"index": 1, "value": 78, "op": "SCMP_CMP_EQ"},
                    ],
                },
                {
                    "names": ["personality"],
                    "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 0, "value": 0x40000, "valueTwo": 0x40000, "op": "SCMP_CMP_MASKED_EQ"}],
                },
            ],
        },
    )
    compiled = seccomp.compile_filter("Localhost", path, 0)
    assert compiled is not None and compiled.flags == 2
    got = answers(
        tmp_path, compiled.program, (83, 0), (39,), (33, 1, 77), (33, 1, 78), (33, 1, 79), (135, 0x40000), (999,)
    )
    assert got == [errno.EDOM, 0, errno.EPERM, errno.EPERM, 0, errno.EPERM, errno.ENOSYS]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ({}, "defaultAction"),
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "SCMP_ACT_MAYBE"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}, "defaultErrnoRet"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": True}, "defaultErrnoRet"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "returns no error"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}, "SCMP_ARCH_VAX"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscall": []}, "no such field"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}, "flags"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}, "listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_KILL"}]}, r"syscalls\[0\].names"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_X"}]},
            r"syscalls\[0\].action",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {
                        "names": ["read"],
                        "action": "SCMP_ACT_KILL",
                        "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}],
                    }
                ],
            },
            r"args\[0\].index",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "includes": {"caps": ["CAP_BPF"]}}],
            },
            "includes",
        ),
    ],
)
def test_a_wrong_profile_is_refused_with_the_place(tmp_path: Path, document: object, complaint: str) -> None:
    path = write(tmp_path, document)
    with pytest.raises(InvalidInput, match=complaint) as caught:
        seccomp.compile_profile("Localhost", path, 0)
    assert path in str(caught.value)


def test_paths_that_are_no_profile(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "big").write_bytes(b" " * ((1 << 20) + 1))
    for path in (
        "relative.json",
        str(tmp_path),
        str(tmp_path / "absent"),
        str(tmp_path / "fifo"),
        str(tmp_path / "big"),
    ):
        with pytest.raises(InvalidInput):
            seccomp.compile_profile("Localhost", path, 0)
    with pytest.raises(InvalidInput, match="Sometimes"):
        seccomp.compile_profile("Sometimes", "", 0)
