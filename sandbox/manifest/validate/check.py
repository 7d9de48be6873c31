"""Small checks that every room of the validation uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sandbox.manifest.kinds import nearest
from sandbox.manifest.nodes import Path, quote, render_path
from sandbox.manifest.problems import Problems

UID_MAX = (1 << 31) - 1
"""Kubernetes' bound on user and group ids."""


def check_text(problems: Problems, path: Path, value: str | None, rule: Callable[[str], str]) -> None:
    """Report what `rule` finds wrong with `value`. None is left to whoever says what is required."""
    if value is not None and (wrong := rule(value)):
        problems.add(path, wrong)


def check_required(problems: Problems, path: Path, value: Any) -> bool:
    """Report a value that is None or empty; whether there is one."""
    if value is None or value == "":
        problems.add(path, "missing, it is required" if value is None else "expected a value, got an empty string")
        return False
    return True


def check_choice(problems: Problems, path: Path, value: str | None, choices: Sequence[str]) -> None:
    """Report a value that is none of `choices`, with the nearest one."""
    if value is None or value in choices:
        return
    guess = nearest(value, [choice for choice in choices if choice])
    shown = [choice or '""' for choice in choices]
    listed = " or ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) > 1 else shown[0]
    suffix = f', did you mean "{guess}"?' if guess else ""
    problems.add(path, f"expected {listed}, got {quote(value)}{suffix}")


def check_range(problems: Problems, path: Path, value: int | None, low: int, high: int, unit: str = "") -> None:
    """Report an integer outside `low`..`high`."""
    if value is not None and not low <= value <= high:
        problems.add(path, f"expected {low} to {high}{unit}, got {value}")


def check_at_least(problems: Problems, path: Path, value: int | None, low: int) -> None:
    if value is not None and value < low:
        problems.add(path, f"expected at least {low}, got {value}")


def check_unique(problems: Problems, named: Iterable[tuple[Path, Any]], what: str) -> None:
    """Report every value after its first use. None and empty strings are not compared."""
    seen: dict[Any, Path] = {}
    for path, value in named:
        if value is None or value == "":
            continue
        if value in seen:
            first = problems.line_of(seen[value])
            problems.add(path, f"duplicate {what} {_show(value)}, first at {render_path(seen[value])} (line {first})")
        else:
            seen[value] = path


def _show(value: Any) -> str:
    return quote(value) if isinstance(value, str) else str(value)


def given(source: Any, names: Iterable[str]) -> list[str]:
    """Which of the fields `names` of an object are set."""
    return [name for name in names if getattr(source, name) is not None]
