"""Who has which address and which host port of a network: one small SQLite file, safe between processes.

Its own file rather than the daemon's database, because any CNI runtime may execute the plugin, several at once.
"""

from __future__ import annotations

import ipaddress
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import NetworkError
from sandbox.network.embedded.ranges import INVALID_CONFIG, Interface, IPAddress, Range

TRY_AGAIN = 11
_BUSY_TIMEOUT_S = 20

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS addresses (
    address TEXT PRIMARY KEY, container TEXT NOT NULL, ifname TEXT NOT NULL, reserved_ns INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS addresses_owner ON addresses(container, ifname);
CREATE TABLE IF NOT EXISTS cursors (range TEXT PRIMARY KEY, last TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ports (
    family INTEGER NOT NULL, host_address TEXT NOT NULL, protocol TEXT NOT NULL, host_port INTEGER NOT NULL,
    address TEXT NOT NULL, port INTEGER NOT NULL, container TEXT NOT NULL, ifname TEXT NOT NULL,
    PRIMARY KEY (family, protocol, host_port, host_address));
CREATE INDEX IF NOT EXISTS ports_owner ON ports(container, ifname);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version=1;
COMMIT;
"""


@dataclass(frozen=True)
class Owner:
    """What the CNI calls an attachment."""

    container: str
    ifname: str


@dataclass(frozen=True)
class Port:
    """One rule of destination translation. `host_address` empty: every address of the host; protocol: lower case."""

    family: int
    host_address: str
    protocol: str
    host_port: int
    address: str
    port: int
    container: str


class Leases:
    """One connection. The callers of one process take turns (a lock of theirs); processes wait for each other."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        self.path = path
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S
            )
            if self._connection.execute("PRAGMA user_version").fetchone() == (0,):
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.executescript(_SCHEMA)
            self._connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error as error:
            raise NetworkError(
                f"the leases of the network in {path} cannot be read: {error}",
                code=5,
                operation="open the leases",
                subject=str(path),
                hint="remove the file when no pod of this network runs",
            ) from error

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and nobody else writes meanwhile."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def reserve(
        self, owner: Owner, sets: Sequence[Sequence[Range]], wanted: Sequence[IPAddress] = ()
    ) -> list[tuple[Interface, Range]]:
        """One address of each set, the one longest unused next (round robin), or those in `wanted`. In a transaction.

        Raises NetworkError when the owner has one already, when a set is exhausted, or when a wanted one is taken.
        """
        if held := self.held(owner):
            raise NetworkError(
                f"container {owner.container} has address {', '.join(held)} on {owner.ifname} already",
                code=100,
                operation="reserve an address",
                hint="DEL comes before a second ADD",
            )
        return [self._reserve_of(owner, group, list(wanted)) for group in sets]

    def _reserve_of(self, owner: Owner, group: Sequence[Range], wanted: list[IPAddress]) -> tuple[Interface, Range]:
        for address in wanted:
            for span in group:
                if address in span:
                    if not self._take(owner, address):
                        raise NetworkError(
                            f"address {address} is taken by container {self._holder(address)}",
                            code=100,
                            operation="reserve an address",
                            subject=str(address),
                        )
                    return span.interface(address), span
        if wrong := [a for a in wanted if a.version == group[0].subnet.version]:
            raise NetworkError(
                f"address {wrong[0]} is not within {', '.join(str(span.subnet) for span in group)}",
                code=INVALID_CONFIG,
                operation="reserve an address",
                subject=str(wrong[0]),
            )
        for span in group:
            key = f"{span.start}-{span.end}"
            row = self._connection.execute("SELECT last FROM cursors WHERE range=?", (key,)).fetchone()
            for address in span.after(ipaddress.ip_address(row[0]) if row else None):
                if self._take(owner, address):
                    self._connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (key, str(address)))
                    return span.interface(address), span
        count = sum(span.size for span in group)
        raise NetworkError(
            f"no address is free in {', '.join(str(span.subnet) for span in group)}: all {count} are taken",
            code=TRY_AGAIN,
            operation="reserve an address",
            subject=str(group[0].subnet),
            hint="remove pods, or give the network a larger subnet",
        )

    def _take(self, owner: Owner, address: IPAddress) -> bool:
        cursor = self._connection.execute(
            "INSERT OR IGNORE INTO addresses VALUES (?, ?, ?, ?)",
            (str(address), owner.container, owner.ifname, time.time_ns()),
        )
        return cursor.rowcount == 1

    def _holder(self, address: IPAddress) -> str:
        row = self._connection.execute("SELECT container FROM addresses WHERE address=?", (str(address),)).fetchone()
        return row[0] if row else "nobody"

    def held(self, owner: Owner) -> list[str]:
        rows = self._connection.execute(
            "SELECT address FROM addresses WHERE container=? AND ifname=?", (owner.container, owner.ifname)
        )
        return [address for (address,) in rows]

    def release(self, owner: Owner) -> None:
        """Addresses and ports. Idempotent."""
        for table in ("addresses", "ports"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE container=? AND ifname=?",  # noqa: S608 - one of two names
                (owner.container, owner.ifname),
            )

    def owners(self) -> set[Owner]:
        """Everyone who holds an address or a port."""
        rows = self._connection.execute(
            "SELECT container, ifname FROM addresses UNION SELECT container, ifname FROM ports"
        )
        return {Owner(container, ifname) for container, ifname in rows}

    def add_port(self, owner: Owner, port: Port) -> None:
        """In a transaction. Raises NetworkError naming who has it."""
        taken = self._connection.execute(
            "SELECT container FROM ports WHERE family=? AND protocol=? AND host_port=?"
            " AND (host_address=? OR host_address='' OR ?='')",
            (port.family, port.protocol, port.host_port, port.host_address, port.host_address),
        ).fetchone()
        if taken:
            where = f"{port.host_address}:" if port.host_address else ""
            raise NetworkError(
                f"host port {where}{port.host_port}/{port.protocol} is taken by pod sandbox {taken[0]}",
                code=100,
                operation="open a host port",
                subject=f"{port.host_port}/{port.protocol}",
            )
        self._connection.execute(
            "INSERT INTO ports VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                port.family,
                port.host_address,
                port.protocol,
                port.host_port,
                port.address,
                port.port,
                owner.container,
                owner.ifname,
            ),
        )

    def ports(self, owner: Owner | None = None) -> list[Port]:
        """Those of one owner, or all."""
        where, arguments = (
            ("", ()) if owner is None else (" WHERE container=? AND ifname=?", (owner.container, owner.ifname))
        )
        rows = self._connection.execute(
            "SELECT family, host_address, protocol, host_port, address, port, container FROM ports" + where,  # noqa: S608
            arguments,
        )
        return [Port(*row) for row in rows]

    def note(self, name: str) -> str:
        row = self._connection.execute("SELECT value FROM notes WHERE name=?", (name,)).fetchone()
        return row[0] if row else ""

    def set_note(self, name: str, value: str) -> None:
        """A fact to remember for `remove`: what the host was like before. Kept when it is there already."""
        self._connection.execute("INSERT OR IGNORE INTO notes VALUES (?, ?)", (name, value))

    def unlink(self) -> None:
        """Deletes the file; what is open stays usable until closed. Idempotent."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
