"""YAML and JSON text to node graphs with positions, within bounds whatever the text is.

libyaml's events (through PyYAML) are put together here, with a stack of our own, because PyYAML's composer recurses,
forgets duplicate keys and expands aliases without a bound. Bounds are checked as the events arrive, so a bad file
costs no more than a good one of the permitted size.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

import yaml
import yaml.reader
from yaml._yaml import CParser  # libyaml; the pure Python parser is ten times slower

from sandbox.errors import ManifestError
from sandbox.manifest.nodes import Entry, Kind, Node, describe, quote
from sandbox.manifest.scalars import Scalar, resolve_plain

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Limits:
    """Bounds on one file. A Kubernetes API server takes objects of up to 1.5 MB; etcd's own bound is lower still."""

    file_bytes: int = 4 << 20
    nodes: int = 100_000
    """Scalars, lists and mappings, with every alias written out."""
    depth: int = 64
    documents: int = 1_000


DEFAULT_LIMITS = Limits()


def parse(name: str, content: bytes, limits: Limits = DEFAULT_LIMITS) -> list[Node]:
    """The documents of a file, without empty ones. Raises ManifestError at the first thing that is not YAML."""
    text = _decode(name, content, limits)
    return _Composer(name, limits).run(text)


def _decode(name: str, content: bytes, limits: Limits) -> str:
    if len(content) > limits.file_bytes:
        raise ManifestError(
            f"the file is {len(content)} bytes long, expected at most {limits.file_bytes}",
            file=name,
            hint="a manifest is text; put data into an image or a volume",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line_start = before.rfind(b"\n") + 1
        column = len(before[line_start:].decode("utf-8", "replace")) + 1
        line = before.count(b"\n") + 1
        message = f"invalid UTF-8 (byte 0x{content[error.start]:02x}), expected UTF-8 text"
        raise ManifestError(message, file=name, line=line, column=column) from None
    return _join_surrogates(text) if text.lstrip()[:1] == "{" else text


_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")


def _join_surrogates(text: str) -> str:
    """JSON writes characters beyond U+FFFF as two `\\u` escapes, which YAML does not know."""

    def join(match: re.Match[str]) -> str:
        high, low = int(match[2], 16), int(match[3], 16)
        return f"{match[1]}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"

    return _SURROGATES.sub(join, text) if "\\u" in text else text


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    assert mark is not None
    return mark.line + 1, mark.column + 1


class _Open:
    """A list or mapping whose end was not seen yet. `key` is a mapping's key that waits for its value."""

    __slots__ = ("anchor", "key", "node")

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Node | None = None


class _Composer:
    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.documents: list[Node] = []
        self.document_count = 0
        self.root: Node | None = None
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node | None] = {}  # None: still open
        self.count = 0

    def fail(self, message: str, line: int, column: int, hint: str = "") -> ManifestError:
        return ManifestError(message, file=self.name, line=line, column=column, hint=hint)

    def run(self, text: str) -> list[Node]:
        parser = CParser(text)
        try:
            while (event := parser.get_event()) is not None:
                self.handle(event)
        except yaml.MarkedYAMLError as error:
            raise self.syntax_error(error, text) from None
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            character = error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")
            raise self.fail(f"the character U+{character:04X} is not allowed in YAML", line, column) from None
        finally:
            parser.dispose()
        return self.documents

    def syntax_error(self, error: yaml.MarkedYAMLError, text: str) -> ManifestError:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = error.problem or "the text cannot be read"
        lines = text.split("\n", line)
        written = lines[line - 1] if line <= len(lines) else ""
        if "\t" in written[: column + 1].strip(" "):
            return self.fail("a tab cannot be used for indentation in YAML, expected spaces", line, column)
        context = f" {error.context}" if error.context else ""
        if error.context_mark and error.context_mark.line + 1 != line:
            context += f" that begins on line {error.context_mark.line + 1}"
        return self.fail(f"not valid YAML: {problem}{context}", line, column)

    def handle(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self.scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self.open(Kind.MAP, event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self.open(Kind.LIST, event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self.close()
        elif isinstance(event, yaml.AliasEvent):
            self.alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.root, self.anchors = None, {}
            self.document_count += 1
            if self.document_count > self.limits.documents:
                raise self.fail(f"more than {self.limits.documents} documents in one file", *_place(event))
        elif isinstance(event, yaml.DocumentEndEvent) and self.root is not None and not self.root.is_null():
            self.documents.append(self.root)

    # nodes

    def count_node(self, line: int, column: int) -> None:
        self.count += 1
        if self.count > self.limits.nodes:
            raise self.fail(f"more than {self.limits.nodes} values in one file", line, column)

    def scalar(self, event: yaml.ScalarEvent) -> None:
        line, column = _place(event)
        self.count_node(line, column)
        text: str = event.value
        value: Scalar = text
        plain = event.implicit[0]
        if event.tag is not None:
            value = self.tagged(event.tag, text, line, column)
        elif plain:
            value = resolve_plain(text)
        node = Node(Kind.SCALAR, value, line, column, text=text, plain=plain)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        self.add(node)

    def tagged(self, tag: str, text: str, line: int, column: int) -> Scalar:
        """A scalar with an explicit type such as `!!str 5`."""
        short = "!!" + tag[len(_TAG) :] if tag.startswith(_TAG) else tag
        if short in ("!!str", "!"):
            return text
        if short == "!!binary":
            try:
                return base64.b64decode("".join(text.split()), validate=True).decode()
            except (binascii.Error, ValueError):
                raise self.fail("expected base64 of UTF-8 text after !!binary", line, column) from None
        types: dict[str, tuple[type, ...]] = {
            "!!int": (int,),
            "!!float": (float, int),
            "!!bool": (bool,),
            "!!null": (type(None),),
        }
        if short not in types:
            raise self.fail(f"the tag {quote(short)} is not supported", line, column)
        value = resolve_plain(text)
        if type(value) not in types[short]:
            raise self.fail(f"{quote(text)} is not what the tag {short} says", line, column)
        return value

    def open(self, kind: Kind, event: yaml.CollectionStartEvent) -> None:
        line, column = _place(event)
        self.count_node(line, column)
        if event.tag not in (None, "!", _TAG + ("map" if kind is Kind.MAP else "seq")):
            raise self.fail(f"the tag {quote(event.tag.replace(_TAG, '!!'))} is not supported", line, column)
        if len(self.stack) >= self.limits.depth:
            raise self.fail(f"nested more than {self.limits.depth} levels deep", line, column)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        node = Node(kind, {} if kind is Kind.MAP else [], line, column)
        self.stack.append(_Open(node, event.anchor))

    def close(self) -> None:
        opened = self.stack.pop()
        if opened.anchor is not None:
            self.anchors[opened.anchor] = opened.node
        self.add(opened.node)

    def alias(self, event: yaml.AliasEvent) -> None:
        line, column = _place(event)
        self.count_node(line, column)
        name = event.anchor or ""
        if name not in self.anchors:
            raise self.fail(f"the alias *{name[:60]} has no anchor of that name before it", line, column)
        node = self.anchors[name]
        if node is None:
            raise self.fail(f"the alias *{name[:60]} contains itself", line, column)
        self.check_expansion(node, line, column)
        self.add(node, line, column)

    def check_expansion(self, node: Node, line: int, column: int) -> None:
        if node.size + self.count > self.limits.nodes:
            raise self.fail(f"aliases expand to more than {self.limits.nodes} values", line, column)
        self.count += node.size
        if node.depth + len(self.stack) > self.limits.depth:
            raise self.fail(f"aliases nest more than {self.limits.depth} levels deep", line, column)

    # putting a finished node into what surrounds it

    def add(self, node: Node, line: int = 0, column: int = 0) -> None:
        """`line`, `column`: of the alias that stands for the node, if it is one."""
        if not self.stack:
            self.root = node
            return
        opened = self.stack[-1]
        parent = opened.node
        parent.size += node.size
        parent.depth = max(parent.depth, node.depth + 1)
        if parent.kind is Kind.LIST:
            parent.items.append(node)
        elif opened.key is None:
            opened.key = self.key(node, line or node.line, column or node.column)
        else:
            key, opened.key = opened.key, None
            if key.plain and key.text == "<<":
                self.merge(parent, node, line or node.line, column or node.column)
            else:
                self.set(parent, key, node)

    def key(self, node: Node, line: int, column: int) -> Node:
        """The key as JSON has it: a string. Numbers and booleans are written out, as Kubernetes does."""
        if node.kind is not Kind.SCALAR or node.value is None:
            raise self.fail(f"expected a string as the key of a mapping, got {describe(node)}", line, column)
        value = node.value
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, float):
            value = repr(value).removesuffix(".0")
        elif isinstance(value, int):
            value = str(value)
        return Node(Kind.SCALAR, value, line, column, text=node.text, plain=node.plain)

    def set(self, parent: Node, key: Node, node: Node) -> None:
        known = parent.entries.get(key.value)
        if known is not None and not known.merged:
            raise self.fail(
                f"duplicate key {quote(key.value)}, first at line {known.key.line}, column {known.key.column}",
                key.line,
                key.column,
            )
        parent.entries[key.value] = Entry(key, node)

    def merge(self, parent: Node, node: Node, line: int, column: int) -> None:
        """`<<: *base` or `<<: [*a, *b]`: own keys win over merged ones, earlier maps over later ones."""
        sources = node.items if node.kind is Kind.LIST else [node]
        for source in sources:
            if source.kind is not Kind.MAP:
                raise self.fail(f"expected a mapping to merge with <<, got {describe(source)}", line, column)
            self.count += len(source.entries)
            if self.count > self.limits.nodes:
                raise self.fail(f"merges expand to more than {self.limits.nodes} values", line, column)
            for name, entry in source.entries.items():
                if name not in parent.entries:
                    parent.entries[name] = Entry(entry.key, entry.value, merged=True)
