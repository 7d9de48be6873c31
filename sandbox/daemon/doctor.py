"""Does this host have what the daemon needs? Each check says what it found, what is missing and how to get it.

Runs without a daemon and changes nothing. No third-party import, so that it also tells which packages are missing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sandbox.daemon.config import Config, find_pause
from sandbox.daemon.process import read_pid
from sandbox.errors import InvalidInput

OK, WARN, FAIL = "ok", "warn", "fail"

MINIMUM_KERNEL = (5, 12)
"""mount_setattr(2); clone3, openat2, fsmount, pidfd and close_range are older."""
COMFORTABLE_KERNEL = (6, 5)
"""overlay's lowerdir+ by fsconfig(2); before, paths of many layers are bound to a page."""
MINIMUM_FILES = 16_384
NFNETLINK = 12
"""NETLINK_NETFILTER (linux/netlink.h)."""
CONTROLLERS = ("cpu", "memory", "pids", "cpuset", "io", "hugetlb", "devices", "freezer")
REQUIRED_CONTROLLERS = ("cpu", "memory", "pids")
PACKAGES = {
    "aiohttp": "aiohttp",
    "cgroupspy": "cgroupspy",
    "click": "click",
    "lightkube": "lightkube-models",
    "prctl": "python-prctl",
    "pyroute2": "pyroute2",
    "pyseccomp": "pyseccomp",
    "rich": "rich",
    "wsproto": "wsproto",
    "yaml": "PyYAML",
}


@dataclass(frozen=True)
class Check:
    """One answer. `status` is ok, warn (something will not work) or fail (nothing will); `hint`: how to get it."""

    name: str
    status: str
    detail: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "status": self.status, "detail": self.detail, "hint": self.hint}


def run_checks(config: Config) -> list[Check]:
    """Every check, in the order in which a person would repair them."""
    results = []
    for check in CHECKS:
        results += check(config)
    return results


def exit_code(checks: Iterable[Check]) -> int:
    """0 unless something fails."""
    return 1 if any(check.status == FAIL for check in checks) else 0


def check_root(_config: Config) -> list[Check]:
    if os.geteuid() != 0:
        return [Check("root", FAIL, f"user {os.geteuid()} is not root", "run as root or with sudo")]
    return [Check("root", OK, "running as root")]


def check_kernel(_config: Config) -> list[Check]:
    release = os.uname().release
    match = re.match(r"(\d+)\.(\d+)", release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < MINIMUM_KERNEL:
        return [Check("kernel", FAIL, f"Linux {release} is older than 5.12", "upgrade the distribution or its kernel")]
    if version < COMFORTABLE_KERNEL:
        detail = f"Linux {release}: images with very many layers need 6.5"
        return [Check("kernel", WARN, detail, "install a newer kernel if such an image fails")]
    return [Check("kernel", OK, f"Linux {release}")]


def check_file_systems(_config: Config) -> list[Check]:
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines() if line.split()}
    results = []
    for name, status in (("overlay", FAIL), ("tmpfs", FAIL), ("mqueue", WARN)):
        if name in known or _module_file(name):
            results.append(Check(f"file system {name}", OK, "known to the kernel"))
        else:
            results.append(Check(f"file system {name}", status, "not known to the kernel", f"modprobe {name}"))
    return results


def _module_file(name: str) -> bool:
    """True when the kernel could load the module on demand."""
    listing = Path("/lib/modules") / os.uname().release / "modules.dep"
    try:
        return f"/{name}.ko" in listing.read_text()
    except OSError:
        return False


def check_namespaces(_config: Config) -> list[Check]:
    missing = [
        n for n in ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user") if not Path(f"/proc/self/ns/{n}").exists()
    ]
    needed = [name for name in missing if name != "user"]
    if needed:
        hint = f"use a kernel with {', '.join('CONFIG_' + n.upper() + '_NS' for n in needed)}"
        return [Check("namespaces", FAIL, f"the kernel lacks {', '.join(needed)} namespaces", hint)]
    exhausted = [p.name for p in Path("/proc/sys/user").glob("max_*_namespaces") if p.read_text().strip() == "0"]
    if exhausted:
        hint = f"sysctl -w user.{exhausted[0]}=10000"
        return [Check("namespaces", FAIL, f"{', '.join(sorted(exhausted))} is 0", hint)]
    return [Check("namespaces", OK, "cgroup, ipc, mnt, net, pid, uts" + ("" if missing else ", user"))]


def cgroup_controllers(mount_root: Path = Path("/sys/fs/cgroup")) -> tuple[str, set[str]]:
    """(mode, controllers) as the mounts show them. `blkio` is reported under its v2 name."""
    v1: set[str] = set()
    v2: set[str] = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        point, (kind, _source, options) = Path(fields.split()[4]), rest.split(" ", 2)
        if point != mount_root and mount_root not in point.parents:
            continue
        if kind == "cgroup2":
            v2 |= set(_read(point / "cgroup.controllers").split())
        elif kind == "cgroup":
            v1 |= {o for o in options.split(",") if o in (*CONTROLLERS, "blkio")}
    names = {"io" if name == "blkio" else name for name in v1 | v2}
    return ("v1" if v1 and not v2 else "v2" if v2 and not v1 else "hybrid" if v1 else "none"), names


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def check_cgroups(_config: Config) -> list[Check]:
    mode, found = cgroup_controllers()
    if mode == "none" and not found:
        if Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return [Check("cgroups", FAIL, "cgroup v2 without controllers", "enable them in the parent cgroup")]
        hint = "mount -t cgroup2 none /sys/fs/cgroup"
        return [Check("cgroups", FAIL, "no cgroup file system is mounted at /sys/fs/cgroup", hint)]
    if "devices" not in found and mode == "v2":
        found.add("devices")  # by BPF
        found.add("freezer")  # part of the core
    missing = [name for name in CONTROLLERS if name not in found]
    status = FAIL if set(missing) & set(REQUIRED_CONTROLLERS) else WARN if missing else OK
    detail = f"{mode}: {', '.join(n for n in CONTROLLERS if n in found)}"
    if missing:
        detail += f"; without {', '.join(missing)}: limits of theirs are refused"
    return [Check("cgroups", status, detail, "enable them on the kernel's command line" if status == FAIL else "")]


def check_network(config: Config) -> list[Check]:
    results = []
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NFNETLINK).close()
        results.append(Check("nftables", OK, "netfilter answers"))
    except OSError as error:
        detail = f"the kernel has no netfilter netlink: {error.strerror}"
        results.append(Check("nftables", FAIL, detail, "modprobe nf_tables nft_masq nft_nat"))
    for kind in ("bridge", "veth"):
        if Path(f"/sys/module/{kind}").exists() or _module_file(kind) or _builtin(kind):
            results.append(Check(kind, OK, "known to the kernel"))
        elif not (Path("/lib/modules") / os.uname().release).is_dir():
            results.append(Check(kind, OK, "not to be seen from here: this kernel comes without a list of its modules"))
        else:
            results.append(Check(kind, WARN, "neither built in nor a module of this kernel", f"modprobe {kind}"))
    forwarding = _read(Path("/proc/sys/net/ipv4/ip_forward")).strip()
    if forwarding == "1":
        results.append(Check("ip_forward", OK, "packets are forwarded"))
    elif os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK):
        results.append(Check("ip_forward", OK, "off; the embedded network turns it on"))
    else:
        results.append(
            Check("ip_forward", WARN, "off and cannot be turned on from here", "sysctl -w net.ipv4.ip_forward=1")
        )
    return [*results, _check_cni(config)]


def _builtin(name: str) -> bool:
    """True when the kernel's list of what is built in has it."""
    return f"/{name}.ko" in _read(Path("/lib/modules") / os.uname().release / "modules.builtin")


def _check_cni(config: Config) -> Check:
    if config.network == "sandbox":
        return Check("CNI", OK, "the embedded network is used")
    names = ("*.conflist", "*.conf", "*.json")
    files = sorted(path for pattern in names for path in config.cni_conf_dir.glob(pattern))
    if not files:
        return Check("CNI", OK, f"nothing configured in {config.cni_conf_dir}: the embedded network is used")
    found = [str(directory) for directory in config.cni_bin_dirs if directory.is_dir()]
    if not found:
        detail = f"{files[0]} is configured, but there is none of {', '.join(map(str, config.cni_bin_dirs))}"
        return Check("CNI", FAIL, detail, "apt install containernetworking-plugins")
    return Check("CNI", OK, f"{files[0].name} with plugins of {', '.join(found)}")


def check_programs(config: Config) -> list[Check]:
    try:
        results = [Check("pause program", OK, str(find_pause(config)))]
    except InvalidInput as error:
        hint = "apt install musl-tools make && make -C pause, or set SANDBOX_PAUSE"
        results = [Check("pause program", FAIL, str(error), hint)]
    busybox = Path("/bin/busybox")
    if busybox.exists():
        results.append(Check("busybox", OK, f"{busybox}, for the default image localhost/busybox"))
    else:
        detail = "/bin/busybox is missing: no default image"
        results.append(Check("busybox", WARN, detail, "apt install busybox-static"))
    return results


def check_limits(_config: Config) -> list[Check]:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    results = []
    if hard != resource.RLIM_INFINITY and hard < MINIMUM_FILES:
        detail = f"at most {hard} descriptors: enough for about {hard // 16} containers"
        results.append(Check("open files", WARN, detail, "raise LimitNOFILE or ulimit -n"))
    else:
        shown = "no limit" if hard == resource.RLIM_INFINITY else f"up to {hard}"
        results.append(Check("open files", OK, shown))
    capabilities = int(re.search(r"CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text())[1], 16)  # type: ignore[index]
    lacking = [name for name, bit in _CAPABILITIES.items() if not capabilities >> bit & 1]
    if "CAP_SYS_ADMIN" in lacking or "CAP_NET_ADMIN" in lacking:
        hint = "give this container or session full capabilities"
        results.append(Check("capabilities", FAIL, f"without {', '.join(lacking)}", hint))
    elif lacking:
        detail = f"without {', '.join(lacking)}: what needs them is tried and, where it may be, left out with a warning"
        results.append(Check("capabilities", WARN, detail))
    else:
        results.append(Check("capabilities", OK, "complete"))
    return results


_CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_MKNOD": 27,
    "CAP_SYS_RESOURCE": 24,
}


def check_directories(config: Config) -> list[Check]:
    results = []
    for name, path in (("state directory", config.root), ("run directory", config.run_dir)):
        place = next(p for p in (path, *path.parents) if p.exists())
        if not os.access(place, os.W_OK):
            results.append(Check(name, FAIL, f"{place} is not writable", f"choose another {name}"))
            continue
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        if free < 256 << 20:
            results.append(Check(name, WARN, f"{path} has only {free >> 20} MiB free", "make room"))
        else:
            results.append(Check(name, OK, f"{path}, {free >> 30} GiB free"))
    pid = read_pid(config.pid_path)
    running = f"running with pid {pid}" if pid else "not running; `sandbox run` starts one"
    return [*results, Check("daemon", OK, running)]


def check_packages(_config: Config) -> list[Check]:
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        hint = f"pip install {' '.join(missing)}"
        return [Check("Python packages", FAIL, f"missing: {', '.join(missing)}", hint)]
    return [Check("Python packages", OK, ", ".join(PACKAGES.values()))]


CHECKS: tuple[Callable[[Config], list[Check]], ...] = (
    check_root,
    check_kernel,
    check_file_systems,
    check_namespaces,
    check_cgroups,
    check_network,
    check_programs,
    check_packages,
    check_limits,
    check_directories,
)
