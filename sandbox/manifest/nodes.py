"""A parsed document: a graph of nodes that know where they stand in the file."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from sandbox.manifest.scalars import Scalar

Path = tuple[str | int, ...]
"""Where a value is in an object: `("spec", "containers", 0, "name")`."""


class Kind(IntEnum):
    SCALAR = 0
    LIST = 1
    MAP = 2


class Node:
    """One value of a document. Aliases share the node they point to; there are no cycles.

    `value` is a scalar, a `list[Node]`, or a `dict[str, Entry]`. `text` is a scalar as it was written.
    `size` counts the nodes below and including this one with every alias written out; `depth` the levels.
    """

    __slots__ = ("column", "depth", "kind", "line", "plain", "size", "text", "value")

    def __init__(self, kind: Kind, value: Any, line: int, column: int, *, text: str = "", plain: bool = False) -> None:
        self.kind = kind
        self.value = value
        self.line = line
        self.column = column
        self.text = text
        self.plain = plain
        self.size = 1
        self.depth = 1

    @property
    def scalar(self) -> Scalar:
        assert self.kind is Kind.SCALAR
        value: Scalar = self.value
        return value

    @property
    def items(self) -> list[Node]:
        assert self.kind is Kind.LIST
        value: list[Node] = self.value
        return value

    @property
    def entries(self) -> dict[str, Entry]:
        assert self.kind is Kind.MAP
        value: dict[str, Entry] = self.value
        return value

    def get(self, key: str) -> Node | None:
        """The value of `key` in a mapping, or None."""
        if self.kind is not Kind.MAP:
            return None
        entry = self.entries.get(key)
        return entry.value if entry else None

    def is_null(self) -> bool:
        return self.kind is Kind.SCALAR and self.value is None


class Entry:
    """A key of a mapping and its value. `merged` when it came by `<<` and an own key may still replace it."""

    __slots__ = ("key", "merged", "value")

    def __init__(self, key: Node, value: Node, *, merged: bool = False) -> None:
        self.key = key
        self.value = value
        self.merged = merged


def locate(root: Node, path: Path, *, key: bool = False) -> Node:
    """The node at `path`, or its nearest ancestor that was written. `key`: the key instead of the value."""
    node = root
    for index, step in enumerate(path):
        if node.kind is Kind.MAP:
            entry = node.entries.get(str(step))
            if entry is None:
                break
            node = entry.key if key and index == len(path) - 1 else entry.value
        elif node.kind is Kind.LIST and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        else:
            break
    return node


def render_path(path: Path) -> str:
    """`spec.containers[0].name`; keys that are no identifiers are quoted: `metadata.labels["a/b"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif len(step) <= 63 and step.replace("-", "").replace("_", "").isalnum():
            text += f".{step}" if text else step
        else:
            text += f"[{quote(step)}]"
    return text


def quote(text: str, limit: int = 80) -> str:
    """`text` in double quotes on one line, shortened."""
    shown = text if len(text) <= limit else text[:limit] + "…"
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return '"' + escaped.replace('"', '\\"') + '"'


def describe(node: Node) -> str:
    """What a node is, in words: `a string ("x")`, `a boolean (yes)`, `a list`."""
    if node.kind is Kind.MAP:
        return "a mapping"
    if node.kind is Kind.LIST:
        return "a list"
    value = node.value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"a boolean ({node.text})"
    if isinstance(value, int | float):
        return f"a number ({node.text[:40]})"
    return f"a string ({quote(value, 40)})"
