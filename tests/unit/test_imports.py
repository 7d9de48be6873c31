"""The shape of the source: imports point one way, system calls live in one room, files and functions stay readable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sandbox"
FILES = sorted(PACKAGE.rglob("*.py"))

LEAVES = {"errors", "timeline", "__init__"}
"""Anyone may import these; they import nothing of ours."""

LEAF_MODULES = {"sandbox.manifest.quantity"}
"""As the leaves: Kubernetes' quantities are arithmetic, not manifests."""

MAY_IMPORT: dict[str, set[str]] = {
    "store": set(),
    "linux": {"store"},
    "cgroups": {"linux", "store"},
    "images": {"linux", "store"},
    "network": {"linux", "store"},
    "runtime": {"cgroups", "images", "network", "linux", "store"},
    "manifest": set(),
    "pods": {"runtime", "manifest", "cgroups", "images", "network", "linux", "store"},
    "daemon": {"pods", "runtime", "manifest", "cgroups", "images", "network", "linux", "store"},
    "cli": {"manifest", "experiments"},
    "experiments": {"cli", "manifest"},
}
"""Rooms and what they may use: cli → (HTTP) → daemon → pods → runtime → the rest → store."""

CLI_MAY_USE_OF_THE_DAEMON = {
    "sandbox.daemon.config",
    "sandbox.daemon.launch",
    "sandbox.daemon.doctor",
    "sandbox.daemon.units",
    "sandbox.daemon.process",
    "sandbox.daemon.main",
}
"""Paths, start, doctor: none of them loads what serves requests (but `main`, which becomes the daemon)."""

EXCEPTIONS: set[tuple[str, str]] = set()
"""(file below sandbox/, module): each one has its reason beside it."""

MAX_LINES = 420
LONGER = {
    "runtime/ops.py": 800,  # one dataclass an operation: all of the wire format on one page
    "runtime/monitor.py": 560,  # one class, one connection
}
MAX_FUNCTION_LINES = 75


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.lineno, node.module or ""


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def violations(path: Path) -> list[str]:
    room = room_of(path)
    found = []
    for line, module in imported_modules(parse(path)):
        parts = module.split(".")
        if parts[0] != "sandbox" or len(parts) == 1 or parts[1] in LEAVES or parts[1] == room:
            continue
        if module in LEAF_MODULES or (room in ("cli", "experiments") and module in CLI_MAY_USE_OF_THE_DAEMON):
            continue
        if (str(path.relative_to(PACKAGE)), module) in EXCEPTIONS:
            continue
        if room in LEAVES or parts[1] not in MAY_IMPORT[room]:
            found.append(f"{path.relative_to(ROOT)}:{line}: {room} imports {module}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    assert violations(path) == []


def test_every_room_is_known() -> None:
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert rooms == set(MAY_IMPORT)


def test_the_directions_have_no_cycle() -> None:
    def reachable(room: str, seen: frozenset[str]) -> set[str]:
        assert room not in seen, f"{room} reaches itself"
        return {room}.union(*(reachable(other, seen | {room}) for other in MAY_IMPORT[room]))

    for room in set(MAY_IMPORT) - {"cli", "experiments"}:
        reachable(room, frozenset())


def test_the_rule_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tests.unit.test_imports.PACKAGE" if __name__.startswith("tests.") else f"{__name__}.PACKAGE", tmp_path
    )
    monkeypatch.setattr(
        "tests.unit.test_imports.ROOT" if __name__.startswith("tests.") else f"{__name__}.ROOT", tmp_path
    )
    (tmp_path / "store").mkdir()
    bad = tmp_path / "store" / "x.py"
    bad.write_text("from sandbox.runtime.runtime import Runtime\n")
    assert violations(bad) == ["store/x.py:1: store imports sandbox.runtime.runtime"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_linux_uses_ctypes_and_only_manifest_and_pods_know_kubernetes(path: Path) -> None:
    modules = {module.split(".")[0] for _, module in imported_modules(parse(path))}
    room = room_of(path)
    if room != "linux":
        assert not modules & {"ctypes", "_ctypes"}
    if room in ("store", "linux", "cgroups", "images", "network", "runtime"):
        assert not modules & {"yaml", "lightkube", "aiohttp", "click", "rich"}
    if room == "daemon":
        assert "yaml" not in modules


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGER.get(str(path.relative_to(PACKAGE)), MAX_LINES)
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is too long"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_error_is_swallowed_and_every_module_says_what_it_is(path: Path) -> None:
    tree = parse(path)
    assert ast.get_docstring(tree) or not tree.body, "a module begins with its contract"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            assert not (broad and all(isinstance(s, ast.Pass) for s in node.body)), f"line {node.lineno}"
