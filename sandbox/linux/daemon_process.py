"""What the daemon tells the kernel about itself, through python-prctl (prctl(2))."""

from __future__ import annotations

import prctl


def settle(name: str, *, child_subreaper: bool = False, dumpable: bool = False) -> None:
    """Names the process (15 bytes, as ps and /proc/PID/comm show it).

    child_subreaper: orphans among the descendants become our children. dumpable: whether core dumps are written and
    unprivileged processes of the same user may ptrace; a daemon that holds others' descriptors should not be.
    """
    prctl.set_name(name[:15])
    prctl.set_child_subreaper(1 if child_subreaper else 0)
    prctl.set_dumpable(1 if dumpable else 0)


def state() -> dict[str, object]:
    """What `settle` set, as the kernel has it now."""
    return {
        "name": prctl.get_name(),
        "child_subreaper": bool(prctl.get_child_subreaper()),
        "dumpable": bool(prctl.get_dumpable()),
    }
