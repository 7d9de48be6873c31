"""What is wrong with a manifest, collected so that one run reports more than the first thing."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.errors import ManifestError, ManifestErrors
from sandbox.manifest.models import KubeObject
from sandbox.manifest.nodes import Node, Path, locate, render_path

MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Finding:
    """Something wrong at `path` of an object, found by who knows the host. `key`: the key, not its value, is wrong."""

    obj: KubeObject
    path: Path
    message: str
    hint: str = ""
    key: bool = False


class TooManyProblems(Exception):
    """Ends the work on a manifest once MAX_PROBLEMS were found."""


class Report:
    """The problems of all files of one call."""

    def __init__(self) -> None:
        self.errors: list[ManifestError] = []

    def add(self, error: ManifestError) -> None:
        self.errors.append(error)
        if len(self.errors) >= MAX_PROBLEMS:
            raise TooManyProblems

    def raise_if_any(self) -> None:
        """Raise the one problem, or all of them as ManifestErrors, in the order of the files and their lines."""
        files = list(dict.fromkeys(error.file for error in self.errors))
        self.errors.sort(key=lambda error: (files.index(error.file), error.line, error.column))
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ManifestErrors(self.errors)


class Problems:
    """The problems of one object, at the places in the file where they are."""

    def __init__(self, report: Report, file: str, root: Node, *, keep_server_fields: bool = False) -> None:
        self.report = report
        self.file = file
        self.root = root
        self.keep_server_fields = keep_server_fields
        """Whether to decode what an API server writes: for our own objects, not for a user's manifest."""
        self.count = 0

    def at(self, node: Node, path: Path, message: str, hint: str = "") -> None:
        """Something is wrong with the value written at `node`."""
        self.count += 1
        where = render_path(path)
        text = f"{where}: {message}" if where else message
        self.report.add(ManifestError(text, file=self.file, line=node.line, column=node.column, hint=hint))

    def add(self, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        """Something is wrong at `path`: the place is that of the value (or `key`), or of what should contain it."""
        self.at(locate(self.root, path, key=key), path, message, hint)

    def line_of(self, path: Path) -> int:
        """The line on which the value at `path` stands."""
        return locate(self.root, path).line
