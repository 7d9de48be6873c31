"""Errors as a person reads them: a sentence, the place in the file, what to do next."""

from __future__ import annotations

import os
import sys

from sandbox.cli.client import ApiError
from sandbox.cli.style import clean, style
from sandbox.errors import SandboxError

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def report_failure(error: Exception) -> int | None:
    """Prints an expected failure and returns its exit code; None for one that nobody expected."""
    if isinstance(error, SandboxError):
        print_errors([error.to_json()])
        return error.exit_code
    if isinstance(error, ApiError):
        print_errors(error.errors)
        return error.exit_code
    return None


def broken_pipe() -> int:
    """The reader of our output is gone, which is its right: end quietly, as SIGPIPE would have ended us."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return 141


def print_errors(errors: Sequence[Mapping[str, Any]], sources: Mapping[str, str] | None = None) -> None:
    """Writes errors (`SandboxError.to_json`) to stderr; `sources` are the manifests, to show the line that is wrong."""
    sys.stdout.flush()
    sys.stderr.write("".join(f"{line}\n" for error in errors for line in error_lines(error, sources or {})))
    sys.stderr.flush()


def error_lines(error: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """`error: …`, the source line with a caret under the column, `hint: …`."""
    message = clean(str(error.get("message", ""))) or "no reason was given"
    lines = [style("error:", "red", bold=True, stream=sys.stderr) + " " + message]
    operation, subject = clean(str(error.get("operation") or "")), clean(str(error.get("subject") or ""))
    if error.get("exitCode") == 1 and operation and operation not in message:  # wrong input speaks for itself
        lines.append(f"  while: {operation}" + (f" ({subject})" if subject and subject not in message else ""))
    lines += _excerpt(error, sources)
    if error.get("hint"):
        lines.append(style("hint:", "cyan", stream=sys.stderr) + f" {clean(str(error['hint']))}")
    return lines


def _excerpt(error: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """The line that the error points at, cut to what a terminal shows, with a caret."""
    text = sources.get(str(error.get("file") or ""))
    if text is None:
        return []
    number, column = int(error.get("line") or 0), max(int(error.get("column") or 0), 1)
    all_lines = text.splitlines()
    if not 1 <= number <= len(all_lines):
        return []
    line = all_lines[number - 1].replace("\t", " ")
    start = max(0, column - 60)
    shown = "".join(c if c.isprintable() else "?" for c in line[start : start + 100])
    gutter = f"{number:>5} | "
    return [gutter + shown, " " * (len(gutter) - 2) + "| " + " " * (column - 1 - start) + "^"]
