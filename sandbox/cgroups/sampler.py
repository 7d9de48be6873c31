"""What many cgroups use, again and again: one read(2) a file and no walking.

A driver's `stats` opens, reads and closes some fourteen files, most of its time in opening them and in asking whether
they exist. A sampler that is watched keeps their descriptors, up to a part of what the process may have, and reads each
from its beginning (the kernel makes the text anew for a read at offset 0). What a kernel or a cgroup lacks is left out.
"""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sandbox.cgroups import tree
from sandbox.cgroups.driver import CgroupDriver, CgroupStats, IoStats, Pressure
from sandbox.cgroups.hybrid import HybridDriver
from sandbox.cgroups.v1.cpu import TICKS_PER_SECOND
from sandbox.cgroups.v1.driver import V1Driver
from sandbox.cgroups.v1.memory import UNLIMITED
from sandbox.cgroups.v2.driver import V2Driver
from sandbox.errors import NotFound

READ_BYTES = 16384
WHOLE_BYTES = 3072
"""A shorter answer is whole: the kernel fills at least a page before it makes a reader come again."""
MAX_BYTES = 1 << 20
GONE = (errno.ENOENT, errno.ENODEV)
UNMEASURED = (*GONE, errno.EOPNOTSUPP)
"""EOPNOTSUPP: pressure with psi=0."""

Fields = dict[str, Any]
Parser = Callable[[bytes, Fields], None]


@dataclass(frozen=True)
class Source:
    """One file of every cgroup: where its hierarchy is mounted, its name, what takes its content apart."""

    root: str
    file: str
    parse: Parser


class Sampler:
    """Used from one thread. Owns the descriptors it keeps while it is watched."""

    def __init__(self, driver: CgroupDriver) -> None:
        self._sources = sources_of(driver)
        self._kept: dict[str, list[int]] = {}
        self._watchers = 0
        self._budget = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Descriptors are kept between samples; the last who watches lets go of them."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self.retain(())

    @property
    def kept(self) -> int:
        """Descriptors that are open now."""
        return len(self._kept) * len(self._sources)

    def retain(self, paths: Collection[str]) -> None:
        """Lets go of all cgroups but these."""
        for path in [path for path in self._kept if path not in paths]:
            self._drop(path)

    def _drop(self, path: str) -> None:
        for fd in self._kept.pop(path, ()):
            if fd >= 0:
                os.close(fd)

    def sample(self, path: str) -> CgroupStats:
        """Raises NotFound."""
        fields: Fields = {}
        found = False
        fds = self._kept.get(path)
        if fds is None and self._watchers and self.kept + len(self._sources) <= self._budget:
            fds = self._kept[path] = [_open(source, tree.clean(path)) for source in self._sources]
        for index, source in enumerate(self._sources):
            fd = fds[index] if fds is not None else _open(source, path)
            if fd < 0:
                continue
            try:
                source.parse(_read(fd), fields)
                found = True
            except OSError as e:
                if e.errno not in UNMEASURED:
                    raise
            finally:
                if fds is None:
                    os.close(fd)
        if not found:
            self._drop(path)
            raise NotFound(f"no cgroup {path}", operation="read use", subject=path)
        return CgroupStats(time_ns=time.time_ns(), **fields)


def _open(source: Source, path: str) -> int:
    """-1 when there is no such file."""
    try:
        return os.open(f"{source.root}/{path}/{source.file}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in GONE:
            return -1
        raise


def _read(fd: int) -> bytes:
    data = os.pread(fd, READ_BYTES, 0)
    if len(data) < WHOLE_BYTES:
        return data
    while len(data) < MAX_BYTES:
        more = os.pread(fd, READ_BYTES, len(data))
        if not more:
            break
        data += more
    return data


def sources_of(driver: CgroupDriver) -> tuple[Source, ...]:
    """The files that tell everything `CgroupStats` holds on this host, each once."""
    if isinstance(driver, HybridDriver):
        v1 = _v1(driver.v1)
        taken = {"io" if name == "blkio" else name for name in driver.v1.controllers}
        return (*v1, *_v2(driver.v2, driver.v2.controllers - taken, cpu="cpuacct" not in taken))
    if isinstance(driver, V1Driver):
        return _v1(driver)
    assert isinstance(driver, V2Driver)
    return _v2(driver, driver.controllers, cpu=True)


def _v1(driver: V1Driver) -> tuple[Source, ...]:
    files: dict[str, tuple[tuple[str, Parser], ...]] = {
        "cpu": (("cpu.stat", _v1_cpu_stat),),
        "cpuacct": (("cpuacct.usage", _number("cpu_usage_ns")), ("cpuacct.stat", _v1_cpuacct_stat)),
        "memory": (
            ("memory.usage_in_bytes", _number("memory_usage_bytes")),
            ("memory.stat", _v1_memory_stat),
            ("memory.max_usage_in_bytes", _number("memory_peak_bytes")),
            ("memory.oom_control", _oom_kills),
        ),
        "pids": (("pids.current", _number("pids_current")), ("pids.max", _number("pids_limit"))),
        "blkio": (
            ("blkio.throttle.io_service_bytes_recursive", _v1_blkio("bytes")),
            ("blkio.throttle.io_serviced_recursive", _v1_blkio("operations")),
        ),
    }
    mounts = driver.mounts
    return tuple(Source(mounts[name], file, parse) for name in files if name in mounts for file, parse in files[name])


def _v2(driver: V2Driver, controllers: Collection[str], *, cpu: bool) -> tuple[Source, ...]:
    """cpu.stat and pressure need no controller."""
    files: dict[str, tuple[tuple[str, Parser], ...]] = {
        "memory": (
            ("memory.current", _number("memory_usage_bytes")),
            ("memory.stat", _v2_memory_stat),
            ("memory.peak", _number("memory_peak_bytes")),
            ("memory.max", _number("memory_limit_bytes")),
            ("memory.swap.current", _number("swap_usage_bytes")),
            ("memory.events", _oom_kills),
        ),
        "pids": (("pids.current", _number("pids_current")), ("pids.max", _number("pids_limit"))),
        "io": (("io.stat", _v2_io_stat),),
    }
    found: list[tuple[str, Parser]] = [("cpu.stat", _v2_cpu_stat)] if cpu else []
    found += [pair for name in files if name in controllers for pair in files[name]]
    found += [(f"{name}.pressure", _pressure(name)) for name in ("cpu", "memory", "io")]
    return tuple(Source(driver.root, file, parse) for file, parse in found)


def _keyed(data: bytes) -> dict[bytes, bytes]:
    words = data.split()
    return dict(zip(words[::2], words[1::2], strict=False))


def _number(field: str) -> Parser:
    """A single number; max is none."""

    def parse(data: bytes, fields: Fields) -> None:
        fields[field] = None if data.startswith(b"max") else int(data)

    return parse


def _v1_cpu_stat(data: bytes, fields: Fields) -> None:
    values = _keyed(data)
    fields["cpu_periods"] = int(values.get(b"nr_periods", 0))
    fields["cpu_throttled_periods"] = int(values.get(b"nr_throttled", 0))
    fields["cpu_throttled_ns"] = int(values.get(b"throttled_time", 0))


def _v1_cpuacct_stat(data: bytes, fields: Fields) -> None:
    values, tick_ns = _keyed(data), 1_000_000_000 // TICKS_PER_SECOND
    fields["cpu_user_ns"] = int(values.get(b"user", 0)) * tick_ns
    fields["cpu_system_ns"] = int(values.get(b"system", 0)) * tick_ns


def _v1_memory_stat(data: bytes, fields: Fields) -> None:
    values = _keyed(data)
    limit = int(values.get(b"hierarchical_memory_limit", UNLIMITED))
    fields["memory_limit_bytes"] = None if limit >= UNLIMITED else limit
    fields["swap_usage_bytes"] = int(values[b"total_swap"]) if b"total_swap" in values else None
    _memory(values, fields, b"total_rss", b"total_cache", b"total_inactive_file", b"total_pg")


def _v2_memory_stat(data: bytes, fields: Fields) -> None:
    _memory(_keyed(data), fields, b"anon", b"file", b"inactive_file", b"pg")


def _memory(values: dict[bytes, bytes], fields: Fields, rss: bytes, cache: bytes, inactive: bytes, pg: bytes) -> None:
    fields["memory_rss_bytes"] = int(values.get(rss, 0))
    fields["memory_cache_bytes"] = int(values.get(cache, 0))
    fields["memory_working_set_bytes"] = max(0, fields.get("memory_usage_bytes", 0) - int(values.get(inactive, 0)))
    fields["memory_page_faults"] = int(values.get(pg + b"fault", 0))
    fields["memory_major_page_faults"] = int(values.get(pg + b"majfault", 0))


def _oom_kills(data: bytes, fields: Fields) -> None:
    fields["oom_kills"] = int(_keyed(data).get(b"oom_kill", 0))


def _v1_blkio(what: str) -> Parser:
    def parse(data: bytes, fields: Fields) -> None:
        devices = {(stats.major, stats.minor): stats for stats in fields.get("io", ())}
        for line in data.splitlines():
            words = line.split()
            if len(words) != 3 or words[1] not in (b"Read", b"Write"):
                continue
            major, _, minor = words[0].partition(b":")
            key = int(major), int(minor)
            values = vars(devices.get(key, IoStats(*key))) | {f"{words[1].decode().lower()}_{what}": int(words[2])}
            devices[key] = IoStats(**values)
        fields["io"] = tuple(stats for _, stats in sorted(devices.items()))

    return parse


def _v2_cpu_stat(data: bytes, fields: Fields) -> None:
    values = _keyed(data)
    fields["cpu_usage_ns"] = int(values.get(b"usage_usec", 0)) * 1000
    fields["cpu_user_ns"] = int(values.get(b"user_usec", 0)) * 1000
    fields["cpu_system_ns"] = int(values.get(b"system_usec", 0)) * 1000
    if b"nr_periods" in values:
        fields["cpu_periods"] = int(values[b"nr_periods"])
        fields["cpu_throttled_periods"] = int(values.get(b"nr_throttled", 0))
        fields["cpu_throttled_ns"] = int(values.get(b"throttled_usec", 0)) * 1000


def _v2_io_stat(data: bytes, fields: Fields) -> None:
    stats = []
    for line in data.splitlines():
        device, _, rest = line.partition(b" ")
        major, colon, minor = device.partition(b":")
        values = dict(pair.split(b"=", 1) for pair in rest.split() if b"=" in pair)
        if colon and b"rbytes" in values:
            counts = (int(values.get(key, 0)) for key in (b"rbytes", b"wbytes", b"rios", b"wios"))
            stats.append(IoStats(int(major), int(minor), *counts))
    fields["io"] = tuple(stats)


def _pressure(name: str) -> Parser:
    def parse(data: bytes, fields: Fields) -> None:
        some, _, full = data.partition(b"\n")
        average, total = _stall(some)
        full_average, full_total = _stall(full) if full else (0.0, 0)
        fields.setdefault("pressure", {})[name] = Pressure(average, total, full_average, full_total)

    return parse


def _stall(line: bytes) -> tuple[float, int]:
    """ "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" """
    words = line.split()
    return float(words[1].partition(b"=")[2]), int(words[4].partition(b"=")[2])
