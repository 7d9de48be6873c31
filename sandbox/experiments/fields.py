"""The fields of one mapping of a declaration, each read once; every complaint has its line and column."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, TypeVar

from sandbox.errors import InvalidInput, ManifestError
from sandbox.manifest.kinds import nearest
from sandbox.manifest.nodes import Kind, Node, Path, describe, quote, render_path
from sandbox.manifest.quantity import parse_quantity

T = TypeVar("T")
REQUIRED: Any = object()


class Fields:
    """Raises ManifestError at the first thing that is wrong. `done` refuses what nobody asked for."""

    def __init__(self, file: str, node: Node, path: Path = ()) -> None:
        self.file, self.node, self.path = file, node, path
        self._read: list[str] = []
        if node.kind is not Kind.MAP:
            raise self.error(f"expected a mapping, got {describe(node)}")

    def error(self, message: str, key: str = "", hint: str = "") -> ManifestError:
        """About the value of `key`, or about the mapping."""
        node = self.node.get(key) or self.node
        where = render_path((*self.path, key) if key else self.path)
        return ManifestError(
            f"{where}: {message}" if where else message, file=self.file, line=node.line, column=node.column, hint=hint
        )

    def has(self, key: str) -> bool:
        node = self.node.get(key)
        return node is not None and not node.is_null()

    def _value(self, key: str, default: T, read: Callable[[Node], T]) -> T:
        self._read.append(key)
        node = self.node.get(key)
        if node is None or node.is_null():
            if default is REQUIRED:
                raise self.error(f"{key} is missing")
            return default
        return read(node)

    def text(self, key: str, default: str = REQUIRED) -> str:
        def read(node: Node) -> str:
            if node.kind is not Kind.SCALAR or isinstance(node.value, bool):
                raise self.error(f"expected a string, got {describe(node)}", key)
            return str(node.text if node.plain else node.value).strip()

        return self._value(key, default, read)

    def choice(self, key: str, known: Iterable[str], default: str = REQUIRED) -> str:
        value, choices = self.text(key, default), list(known)
        if self.has(key) and value not in choices:
            guess = nearest(value, choices)
            wanted = f"did you mean {quote(guess)}?" if guess else f"known are {', '.join(choices)}"
            raise self.error(f"{quote(value)} is not known, {wanted}", key)
        return value

    def number(self, key: str, default: float = REQUIRED, *, least: float = 0.0, most: float = 1e18) -> float:
        def read(node: Node) -> float:
            value = node.value
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise self.error(f"expected a number from {least:g} to {most:g}, got {describe(node)}", key)
            return float(value)

        return self._value(key, default, read)

    def integer(self, key: str, default: int, *, least: int = 0, most: int = 1 << 31) -> int:
        value = self.number(key, default, least=least, most=most)
        if value % 1:
            raise self.error(f"expected a whole number, got {value:g}", key)
        return int(value)

    def flag(self, key: str) -> bool:
        def read(node: Node) -> bool:
            if not isinstance(node.value, bool):
                raise self.error(f"expected true or false, got {describe(node)}", key)
            return node.value

        return self._value(key, False, read)

    def quantity(self, key: str, default: Decimal | None = REQUIRED) -> Decimal | None:
        """A Kubernetes quantity in its base unit."""

        def read(node: Node) -> Decimal | None:
            try:
                return parse_quantity(self.text(key))
            except InvalidInput as error:
                raise self.error(str(error), key) from error

        return self._value(key, default, read)

    def texts(self, key: str, default: tuple[str, ...] = REQUIRED) -> tuple[str, ...]:
        def read(node: Node) -> tuple[str, ...]:
            if node.kind is not Kind.LIST or any(
                n.kind is not Kind.SCALAR or n.is_null() or isinstance(n.value, bool) for n in node.items
            ):
                raise self.error(f"expected a list of strings, got {describe(node)}", key)
            return tuple(item.text if item.plain else str(item.value) for item in node.items)

        return self._value(key, default, read)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """A mapping of strings."""

        def read(node: Node) -> tuple[tuple[str, str], ...]:
            inner = Fields(self.file, node, (*self.path, key))
            return tuple((name, inner.text(name)) for name in node.entries)

        return self._value(key, (), read)

    def mapping(self, key: str) -> Fields | None:
        return self._value(key, None, lambda node: Fields(self.file, node, (*self.path, key)))

    def mappings(self, key: str) -> list[Fields]:
        def read(node: Node) -> list[Fields]:
            if node.kind is not Kind.LIST:
                raise self.error(f"expected a list, got {describe(node)}", key)
            return [Fields(self.file, item, (*self.path, key, n)) for n, item in enumerate(node.items)]

        return self._value(key, [], read)

    def plain(self) -> dict[str, Any]:
        """All of it as JSON would have it."""
        found: dict[str, Any] = _plain(self.node)
        return found

    def done(self) -> None:
        for name, entry in self.node.entries.items():
            if name not in self._read:
                guess = nearest(name, self._read)
                wanted = f"did you mean {quote(guess)}?" if guess else f"known are {', '.join(sorted(self._read))}"
                key = entry.key
                where = render_path((*self.path, name))
                raise ManifestError(
                    f"{where}: unknown field, {wanted}", file=self.file, line=key.line, column=key.column
                )


def _plain(node: Node) -> Any:
    if node.kind is Kind.SCALAR:
        return node.value
    if node.kind is Kind.LIST:
        return [_plain(item) for item in node.items]
    return {key: _plain(entry.value) for key, entry in node.entries.items()}
