"""The daemon's one truth: a SQLite database under the state directory.

WAL with synchronous=NORMAL: a killed daemon loses nothing, and no create waits for the disk. Records are JSON bodies in
a table a kind; what the body holds is the business of the room that owns the kind.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.errors import StateError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE pod_sandboxes (id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL, updated_ns INTEGER NOT NULL);
CREATE TABLE containers    (id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL, updated_ns INTEGER NOT NULL);
CREATE TABLE pods          (id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL, updated_ns INTEGER NOT NULL);
CREATE TABLE objects       (id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL, updated_ns INTEGER NOT NULL);
CREATE TABLE images        (id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL, updated_ns INTEGER NOT NULL);
CREATE TABLE attachments   (id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL, updated_ns INTEGER NOT NULL);
CREATE TABLE addresses     (id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL, updated_ns INTEGER NOT NULL);
CREATE TABLE events        (sequence INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX containers_owner ON containers(owner);
"""

KINDS = ("pod_sandboxes", "containers", "pods", "objects", "images", "attachments", "addresses")
MAX_EVENTS = 10_000


class Database:
    """One connection, used from the daemon's event loop only: each statement takes tens of microseconds."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the database (mode 0600). Raises StateError when it is not one of ours."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
            elif version != SCHEMA_VERSION:
                raise StateError(
                    f"the state database {path} has schema version {version}, this release knows {SCHEMA_VERSION}",
                    operation="open the state database",
                    subject=str(path),
                    hint="run the release that wrote it, or move the file away",
                )
        except sqlite3.Error as error:
            raise StateError(
                f"the state database {path} cannot be opened: {error}",
                operation="open the state database",
                subject=str(path),
                hint="move the file away to start with an empty state",
            ) from error
        self._depth = 0

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nests (the outermost commits)."""
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._connection.execute("COMMIT")

    def put(self, kind: str, id: str, body: dict[str, Any], owner: str = "") -> None:
        """Inserts or replaces. `owner` is the id of the object this one belongs to."""
        assert kind in KINDS, kind
        self._connection.execute(
            f"INSERT INTO {kind} VALUES (?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET "  # noqa: S608 - a name of KINDS
            "owner=excluded.owner, body=excluded.body, updated_ns=excluded.updated_ns",
            (id, owner, json.dumps(body, separators=(",", ":")), time.time_ns()),
        )

    def get(self, kind: str, id: str) -> dict[str, Any] | None:
        assert kind in KINDS, kind
        row = self._connection.execute(f"SELECT body FROM {kind} WHERE id=?", (id,)).fetchone()  # noqa: S608
        return None if row is None else json.loads(row[0])

    def all(self, kind: str, owner: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """(id, body) in order of insertion; only those of `owner` where given."""
        assert kind in KINDS, kind
        where, arguments = ("", ()) if owner is None else (" WHERE owner=?", (owner,))
        rows = self._connection.execute(f"SELECT id, body FROM {kind}{where} ORDER BY rowid", arguments)  # noqa: S608
        return [(id, json.loads(body)) for id, body in rows]

    def delete(self, kind: str, id: str) -> None:
        """Idempotent."""
        assert kind in KINDS, kind
        self._connection.execute(f"DELETE FROM {kind} WHERE id=?", (id,))  # noqa: S608

    def add_event(self, body: dict[str, Any]) -> int:
        """Appends to the event log, bounded to MAX_EVENTS; returns the sequence number."""
        cursor = self._connection.execute(
            "INSERT INTO events(time_ns, body) VALUES (?, ?)", (time.time_ns(), json.dumps(body, separators=(",", ":")))
        )
        sequence = cursor.lastrowid or 0
        if sequence % 256 == 0:
            self._connection.execute("DELETE FROM events WHERE sequence <= ?", (sequence - MAX_EVENTS,))
        return sequence

    def last_event(self) -> int:
        """The sequence number of the latest event; 0 when there is none."""
        (sequence,) = self._connection.execute("SELECT MAX(sequence) FROM events").fetchone()
        return sequence or 0

    def events(self, after: int = 0) -> list[tuple[int, dict[str, Any]]]:
        """(sequence, body) of the events later than `after`, oldest first."""
        rows = self._connection.execute(
            "SELECT sequence, body FROM events WHERE sequence > ? ORDER BY sequence", (after,)
        )
        return [(sequence, json.loads(body)) for sequence, body in rows]
