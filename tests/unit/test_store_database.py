"""The store: transactions, durability over a kill, refusal of what is not ours."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.errors import StateError
from sandbox.store import database as module
from sandbox.store.database import KINDS, Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


@pytest.mark.parametrize("kind", KINDS)
def test_put_get_all_delete(path: Path, kind: str) -> None:
    database = Database(path)
    database.put(kind, "b", {"n": 1}, owner="x")
    database.put(kind, "a", {"n": 2}, owner="y")
    database.put(kind, "b", {"n": 3}, owner="x")
    assert database.get(kind, "b") == {"n": 3}
    assert database.get(kind, "c") is None
    assert database.all(kind) == [("b", {"n": 3}), ("a", {"n": 2})]
    assert database.all(kind, owner="y") == [("a", {"n": 2})]
    database.delete(kind, "b")
    database.delete(kind, "b")
    assert database.all(kind) == [("a", {"n": 2})]
    database.close()


def test_the_files_are_private(path: Path) -> None:
    Database(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_transaction_is_all_or_nothing_and_nests(path: Path) -> None:
    database = Database(path)
    with pytest.raises(RuntimeError), database.transaction():
        database.put("pods", "a", {})
        with database.transaction():
            database.put("pods", "b", {})
        raise RuntimeError
    assert database.all("pods") == []
    with database.transaction():
        database.put("pods", "a", {})
        with database.transaction():
            database.put("pods", "b", {})
    assert len(database.all("pods")) == 2
    database.close()


def test_what_was_written_survives_a_kill(path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from sandbox.store.database import Database\n"
        f"d = Database(Path({str(path)!r}))\n"
        "for n in range(100): d.put('pods', str(n), {'n': n})\n"
        "with d.transaction():\n    d.put('pods', 'half', {})\n    print('go', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"go\n"
        os.kill(writer.pid, signal.SIGKILL)
    database = Database(path)
    assert [id for id, _ in database.all("pods")] == [str(n) for n in range(100)]
    database.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_refused_with_a_hint(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StateError) as caught:
        Database(path)
    assert str(path) in str(caught.value) and caught.value.hint


def test_another_schema_version_is_refused(path: Path) -> None:
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StateError, match="schema version 99"):
        Database(path)


def test_events_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 300)
    database = Database(path)
    for n in range(1024):
        assert database.add_event({"n": n}) == n + 1
    events = database.events()
    assert len(events) == 300
    assert events[-1] == (1024, {"n": 1023})
    assert database.events(after=1023) == [(1024, {"n": 1023})]
    database.close()
