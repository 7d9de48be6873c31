"""Capability names, masks, and the five sets of a container's process (capabilities(7))."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sandbox.errors import InvalidInput

# include/uapi/linux/capability.h, in the order of their numbers
NAMES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}

DEFAULT_CAPABILITIES: tuple[str, ...] = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What containerd and moby give a container that asks for nothing."""


def canonical(name: str) -> str:
    """ "net_admin" or "CAP_NET_ADMIN" → "CAP_NET_ADMIN". Raises InvalidInput for an unknown name."""
    text = name.upper()
    text = text if text.startswith("CAP_") else "CAP_" + text
    if text not in NUMBERS:
        raise InvalidInput(f"unknown capability {name!r}", operation="capabilities", subject=name)
    return text


def mask_of(names: Iterable[str]) -> int:
    """The bit mask of capability names (ALL is not one). Raises InvalidInput."""
    mask = 0
    for name in names:
        mask |= 1 << NUMBERS[canonical(name)]
    return mask


def names_of(mask: int) -> tuple[str, ...]:
    """The names in a mask, in the order of their numbers; one newer than our table is CAP_<number>."""
    return tuple(
        NAMES[number] if number < len(NAMES) else f"CAP_{number}"
        for number in range(mask.bit_length())
        if mask >> number & 1
    )


@lru_cache(maxsize=1)
def last_cap() -> int:
    """The highest capability number this kernel knows."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def read_sets(pid: int | str = "self") -> dict[str, int]:
    """CapInh, CapPrm, CapEff, CapBnd and CapAmb of /proc/PID/status as masks."""
    sets: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.startswith("Cap"):
            sets[key] = int(value, 16)
    return sets


@lru_cache(maxsize=1)
def available() -> int:
    """What this process can hand on: permitted and still in its bounding set."""
    sets = read_sets()
    return sets["CapPrm"] & sets["CapBnd"] & ((1 << (last_cap() + 1)) - 1)


@dataclass(frozen=True)
class CapabilitySets:
    """Masks for the Credentials operation, and sentences about what was asked for and cannot be given."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int
    warnings: tuple[str, ...] = ()


def capability_sets(
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    *,
    privileged: bool = False,
    uid: int = 0,
    limit: int | None = None,
) -> CapabilitySets:
    """The five sets of a container's first process, as containerd computes them.

    `ALL` in `add` starts from every capability, in `drop` from none (drop wins); then single names are added, then
    dropped. Privileged is every capability, whatever `add` and `drop` say. The inheritable and ambient sets stay
    empty (CVE-2022-24769), so a user other than root has none in effect, and its bounding set still says what a
    set-user-ID program could regain. `limit` (default: what this process has) bounds all; a default capability
    outside it is left out silently, one asked for by name with a warning. Raises InvalidInput for an unknown name.
    """
    have = available() if limit is None else limit
    added = [name.upper() for name in add]
    dropped = [name.upper() for name in drop]
    every = (1 << (last_cap() + 1)) - 1
    named = mask_of(name for name in added if name != "ALL")
    removed = mask_of(name for name in dropped if name != "ALL")
    if privileged:
        wanted, named = every, 0
    else:
        wanted = mask_of(DEFAULT_CAPABILITIES)
        if "ALL" in added:
            wanted = every
        if "ALL" in dropped:
            wanted = 0
        wanted = (wanted | named) & ~removed
    granted = wanted & have
    missing = names_of(wanted & named & ~have)
    warnings = tuple(f"capability {name} is not available to the daemon and was not granted" for name in missing)
    active = granted if uid == 0 else 0
    return CapabilitySets(granted, active, active, 0, 0, warnings)
