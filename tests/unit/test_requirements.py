"""The locks pin, with hashes, all that pyproject.toml and requirements-dev.in name, and say nothing of where from."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")


def pinned(lock: str) -> set[str]:
    return set(re.findall(r"^([A-Za-z0-9_.-]+)==\S+ \\$", (ROOT / lock).read_text(), re.MULTILINE))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_a_pin_or_its_hash(lock: str) -> None:
    for line in (ROOT / lock).read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9A-Za-z.]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?|#.*|", line), line
        assert "://" not in line


def test_the_locks_hold_what_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {normal(name) for name in project["dependencies"]} <= pinned("requirements.lock")
    wanted = [line for line in (ROOT / "requirements-dev.in").read_text().splitlines() if re.match(r"\w", line)]
    assert len(wanted) > 5
    assert {normal(name) for name in wanted} <= pinned("requirements-dev.lock")


@pytest.mark.parametrize("script", ["install", "test"])
def test_what_needs_root_says_so_in_one_sentence(script: str, tmp_path: Path) -> None:
    """As another user: exit code 1, one line, nothing done."""
    (tmp_path / "scripts").mkdir()
    copy = tmp_path / "scripts" / script
    copy.write_bytes((ROOT / "scripts" / script).read_bytes())
    command = ["bash", "-c", f"id() {{ echo 1000; }}; export -f id; bash {copy}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "root" in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scripts"]
