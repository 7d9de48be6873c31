"""Which cgroup hierarchies this host has, read from /proc/self/mountinfo (proc(5)) rather than guessed from names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.cgroups.driver import CgroupDriver
from sandbox.cgroups.hybrid import HybridDriver
from sandbox.cgroups.v1.driver import CONTROLLERS, V1Driver
from sandbox.cgroups.v2.driver import V2Driver
from sandbox.errors import UnsupportedByHost

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass
class Hierarchies:
    """`v1`: controller → mount point; `v2`: the cgroup2 mount point, or empty."""

    v1: dict[str, str] = field(default_factory=dict)
    v2: str = ""


def parse_mountinfo(text: str, mount_root: Path) -> Hierarchies:
    """The hierarchies mounted at or below `mount_root`. Of several mounts of one, the last: it covers the others."""
    known = {kind.name for kind in CONTROLLERS}
    found = Hierarchies()
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if not Path(point).is_relative_to(mount_root):
            continue
        if kind[0] == "cgroup2":
            found.v2 = point
        else:
            for name in kind[2].split(","):
                if name in known:
                    found.v1[name] = point
    return found


def detect(mount_root: Path = Path("/sys/fs/cgroup")) -> CgroupDriver:
    """The driver for this host. Raises UnsupportedByHost when no hierarchy is mounted below `mount_root`."""
    text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    found = parse_mountinfo(text, Path(os.path.realpath(mount_root)))
    if found.v1 and found.v2:
        return HybridDriver(V1Driver(found.v1), V2Driver(found.v2, always=False))
    if found.v1:
        return V1Driver(found.v1)
    if found.v2:
        return V2Driver(found.v2)
    raise UnsupportedByHost(
        f"no cgroup hierarchy is mounted below {mount_root}",
        operation="detect cgroups",
        subject=str(mount_root),
        hint="mount one: mount -t cgroup2 none /sys/fs/cgroup",
    )
