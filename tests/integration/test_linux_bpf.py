"""Device programs: the kernel's verifier takes them, and on a cgroup2 directory they decide."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cgroups.detect import parse_mountinfo
from sandbox.linux import bpf
from sandbox.linux.bpf import DeviceMatch

pytestmark = pytest.mark.root

RULES: list[list[DeviceMatch]] = [
    [],
    [DeviceMatch(False, "a", None, None, "rwm")],
    [DeviceMatch(True, "a", None, None, "rwm"), DeviceMatch(False, "c", 1, 3, "rwm")],
    [DeviceMatch(False, "a", None, None, "rwm"), DeviceMatch(True, "c", 1, 3, "rw")],
    [DeviceMatch(True, "c", 136, None, "r"), DeviceMatch(False, "a", None, None, "rwm")],
    [
        DeviceMatch(allow, kind, major, minor, access)
        for allow, kind, major, minor, access in itertools.product(
            (True, False), "bc", (None, 8), (None, 255), ("r", "wm", "rwm")
        )
    ],
]


@pytest.mark.parametrize("rules", RULES)
def test_the_verifier_takes_every_program(rules: list[DeviceMatch]) -> None:
    fd = bpf.prog_load(bpf.device_program(rules))
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_program_it_does_not_take_is_refused_with_its_words() -> None:
    with pytest.raises(OSError, match="R0"):
        bpf.prog_load(bpf._instruction(0x95))  # exit without a verdict


def test_a_number_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="2147483648"):
        bpf.device_program([DeviceMatch(True, "c", 1 << 31, None, "r")])


@pytest.fixture
def cgroup() -> Iterator[Path]:
    mount = parse_mountinfo(Path("/proc/self/mountinfo").read_text(), Path("/sys/fs/cgroup")).v2
    if not mount:
        pytest.skip("no cgroup2 mount on this host")
    directory = Path(mount) / f"sandbox-test-bpf-{os.getpid()}"
    directory.mkdir()
    yield directory
    directory.rmdir()


PROBES = {
    "c 1:3 r": "</dev/null",
    "c 1:3 w": ">/dev/null",
    "c 1:5 r": "</dev/zero",
    "c 1:5 w": ">/dev/zero",
    "c 1:9 r": "</dev/urandom",
}


def allowed(cgroup: Path) -> set[str]:
    """Which opens succeed in the cgroup."""
    tries = "; ".join(f"(eval ': {how}') 2>&- && echo '{what}'" for what, how in PROBES.items())
    ran = subprocess.run(
        ["sh", "-c", f"echo 0 > {cgroup}/cgroup.procs; {tries}; true"],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return set(ran.stdout.splitlines())


def expected(rules: list[DeviceMatch]) -> set[str]:
    """The device list by its definition, the last rule that matches first."""
    found = set()
    for probe in PROBES:
        kind, numbers, access = probe.split()
        major, minor = map(int, numbers.split(":"))
        verdict = True
        for rule in rules:
            if rule.kind in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor):
                verdict = rule.allow if access in rule.access else verdict
        if verdict:
            found.add(probe)
    return found


@pytest.mark.parametrize(
    "rules",
    [
        *RULES,
        [DeviceMatch(False, "a", None, None, "rwm"), DeviceMatch(True, "c", 1, None, "r")],
        [DeviceMatch(False, "c", 1, 5, "w")],
        [DeviceMatch(False, "c", None, 9, "rwm"), DeviceMatch(False, "b", 1, 3, "rwm")],
    ],
)
def test_the_program_decides(cgroup: Path, rules: list[DeviceMatch]) -> None:
    assert allowed(cgroup) == set(PROBES)
    bpf.replace_device_program(str(cgroup), rules)
    assert allowed(cgroup) == expected(rules)


def test_a_new_program_takes_the_place_of_the_old(cgroup: Path) -> None:
    bpf.replace_device_program(str(cgroup), [DeviceMatch(False, "a", None, None, "rwm")])
    assert allowed(cgroup) == set()
    bpf.replace_device_program(str(cgroup), [DeviceMatch(False, "c", 1, 5, "rwm")])
    fd = os.open(cgroup, os.O_RDONLY)
    assert len(bpf.prog_query(fd)) == 1
    os.close(fd)
    assert allowed(cgroup) == {"c 1:3 r", "c 1:3 w", "c 1:9 r"}
