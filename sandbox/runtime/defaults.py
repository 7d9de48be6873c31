"""What every container gets unless it asks otherwise: the values that Kubernetes' runtimes agree on."""

from __future__ import annotations

import stat

from sandbox.cgroups.resources import DeviceRule

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""Files that tell of the host or let a container disturb it."""

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
"""Character devices in every /dev: name, major, minor."""
DEVICE_MODE = stat.S_IFCHR | 0o666

DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)

DEVICE_RULES = (
    DeviceRule(allow=False),
    DeviceRule(allow=True, kind="c", access="m"),
    DeviceRule(allow=True, kind="b", access="m"),
    *(DeviceRule(allow=True, kind="c", major=major, minor=minor) for _, major, minor in DEVICES),
    DeviceRule(allow=True, kind="c", major=5, minor=2),
    DeviceRule(allow=True, kind="c", major=136),
)
"""mknod is harmless without access; beyond the devices above, only terminals (5:2 is ptmx, 136 the pts)."""

ALL_DEVICES = (DeviceRule(allow=True),)

SAFE_SYSCTL_PREFIXES = ("net.", "fs.mqueue.", "kernel.shm", "kernel.msg")
SAFE_SYSCTLS = ("kernel.sem", "kernel.domainname")
"""sysctls that a namespace of the pod contains; every other belongs to the host."""

NET_SYSCTLS = (("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647"))
"""A pod's network namespace is its own: ports below 1024 and ping need no capability in it."""

PAUSE_UID = 65535
SHM_BYTES = 64 << 20
