"""YAML as Kubernetes reads it, within bounds."""

from __future__ import annotations

import math
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import ManifestError
from sandbox.manifest import to_yaml
from sandbox.manifest.nodes import Kind, Node
from sandbox.manifest.parse import Limits, parse
from sandbox.manifest.scalars import resolve_plain


def plain(node: Node) -> Any:
    if node.kind is Kind.SCALAR:
        return node.value
    if node.kind is Kind.LIST:
        return [plain(item) for item in node.items]
    return {key: plain(entry.value) for key, entry in node.entries.items()}


def one(text: str | bytes) -> Any:
    (document,) = parse("f", text.encode() if isinstance(text, str) else text)
    return plain(document)


def problem(text: str | bytes, limits: Limits | None = None) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse("f", text.encode() if isinstance(text, str) else text, limits or Limits())
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("No", False),
        ("ON", True),
        ("off", False),
        ("y", True),
        ("n", False),
        ("true", True),
        ("tRUE", "tRUE"),
        ("", None),
        ("~", None),
        ("null", None),
        ("0644", 420),
        ("0o644", 420),
        ("-010", -8),
        ("0x1F", 31),
        ("0b101", 5),
        ("1_000", 1000),
        ("+5", 5),
        ("08", 8.0),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        ("22:22", "22:22"),
        ("2001-01-01", "2001-01-01"),
        ("1.2.3", "1.2.3"),
        ("1٣", "1٣"),
        ("-", "-"),
        (".", "."),
        ("0x", "0x"),
        ("9" * 5000, "9" * 5000),
        (".inf", math.inf),
    ],
)
def test_plain_scalar(text: str, value: Any) -> None:
    got = resolve_plain(text)
    assert got == value
    assert type(got) is type(value)


def test_quoted_scalars_are_strings() -> None:
    assert one("""["yes", '5', "", 'null']""") == ["yes", "5", "", "null"]
    assert one("a: |\n  5\nb: >-\n  yes\n") == {"a": "5\n", "b": "yes"}


def test_explicit_tags() -> None:
    assert one("[!!str 5, !!int 7, !!binary aGk=, ! 5]") == ["5", 7, "hi", "5"]


def test_keys_are_strings() -> None:
    assert one("{1: a, true: b, 1.5: c, yes: d}".replace(", yes: d", "")) == {"1": "a", "true": "b", "1.5": "c"}


def test_json_with_surrogates_tabs_and_an_escaped_backslash() -> None:
    assert one('{\n\t"a": "\\ud83d\\ude00",\n\t"b": "\\\\ud83d\\\\ude00", "c": [1, 2.0, null, true]}') == {
        "a": "😀",
        "b": "\\ud83d\\ude00",
        "c": [1, 2.0, None, True],
    }


def test_aliases_and_merges() -> None:
    text = "base: &b {x: 1, z: 2}\nfirst: {<<: *b, z: 3}\nsecond: {z: 4, <<: *b}\nthird: {<<: [{x: 0}, *b]}\n"
    assert one(text) == {
        "base": {"x": 1, "z": 2},
        "first": {"x": 1, "z": 3},
        "second": {"x": 1, "z": 4},
        "third": {"x": 0, "z": 2},
    }


def test_empty_documents_are_no_documents() -> None:
    assert [plain(node) for node in parse("f", b"---\n---\n# x\n---\na: 1\n...\n---\nnull\n")] == [{"a": 1}]


def test_a_byte_order_mark_is_not_text() -> None:
    assert one(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_positions_are_of_characters_not_bytes() -> None:
    (node,) = parse("f", "ä: {ö: ü,\n é: x}".encode())
    inner = node.get("ä")
    assert inner is not None
    entry = inner.entries["é"]
    assert (entry.key.line, entry.key.column) == (2, 2)
    assert (inner.entries["ö"].value.line, inner.entries["ö"].value.column) == (1, 8)


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b"a: 1\nb: \xff\n", (2, 4), "invalid UTF-8 (byte 0xff)"),
        (b"a: \xc3(", (1, 4), "invalid UTF-8 (byte 0xc3)"),
        (b"a: b\n\0", (2, 1), "U+0000 is not allowed"),
        (b'a: "\x07"', (1, 5), "U+0007 is not allowed"),
        ("a: 1".encode("utf-16"), (1, 1), "invalid UTF-8"),
    ],
)
def test_text_that_is_none(content: bytes, place: tuple[int, int], message: str) -> None:
    error = problem(content)
    assert (error.line, error.column) == place
    assert message in str(error)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
)
MERGE_BOMB = (
    "a: &a {"
    + ", ".join(f"k{i}: v" for i in range(1000))
    + "}\n"
    + "".join(f"m{i}: {{<<: *a}}\n" for i in range(10_000))
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a" * (100 << 20), "the file is 104857600 bytes long"),
        (BOMB.encode(), "aliases expand to more than 100000"),
        (MERGE_BOMB.encode(), "expand to more than 100000"),
        (b"[" * 1_000_000, "nested more than 64 levels"),
        (b"{a: " * 500_000, "nested more than 64 levels"),
        (b"- " * 1_000_000 + b"x", "nested more than 64 levels"),
        (b"? " * 1_000_000 + b"x", "nested more than 64 levels"),
        (b"- a\n" * 1_000_000, "more than 100000 values"),
        (b"--- a\n" * 600_000, "more than 1000 documents"),
        (b"a: &a [x]\n" + b"".join(b"b%d: &b%d [*%s]\n" % (i, i, b"b%d" % (i - 1) if i else b"a") for i in range(99)),
         "aliases nest more than 64 levels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_bounds(content: bytes, message: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    try:
        assert message in str(problem(content))
    finally:
        elapsed, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert elapsed < 10  # half a second without tracemalloc; a bomb that goes off takes forever
    assert peak < 150 << 20


def test_a_large_config_map_within_the_bounds_is_read() -> None:
    text = "data:\n  big: |\n" + "    0123456789abcdef\n" * 50_000
    assert len(one(text)["data"]["big"]) == 17 * 50_000


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_fail_otherwise(content: bytes) -> None:
    try:
        parse("f", content)
    except ManifestError as error:
        assert error.line >= 1
        assert error.column >= 1


_FRAGMENTS = st.sampled_from(
    [
        *"[]{},:-?&*!|>'\"%@`#~ \n\t\\",
        "&a ",
        "*a",
        "<<: ",
        "---\n",
        "...\n",
        "\\u12",
        "!!int ",
        "é",
        "\u2028",
        "0x",
        "a: ",
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(_FRAGMENTS, max_size=40).map("".join))
def test_no_text_of_yaml_signs_fails_otherwise(text: str) -> None:
    try:
        parse("f", text.encode())
    except ManifestError as error:
        assert error.line >= 1
        assert error.column >= 1


_KEYS = st.text("abcé/. n0e1y_", min_size=1)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text("abcyn01.", min_size=1), _JSON, min_size=1, max_size=4))
def test_what_is_written_is_read(value: dict[str, Any]) -> None:
    text = to_yaml(value)
    assert one(text) == value
