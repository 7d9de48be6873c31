"""What an unquoted YAML scalar means: exactly what Kubernetes' own parser (sigs.k8s.io/yaml, go-yaml v2) makes of it.

That is YAML 1.1 for booleans (`yes`, `no`, `on`, `off`, `y`, `n` are booleans, so `value: no` for a string is an error
and not the word), C for integers (`0644` and `0o644` are octal, `0x1F`, `0b11`, `1_000`), no sexagesimal numbers
(`22:22` is a string) and no dates (`2001-01-01` is a string).
"""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {word: None for word in ("", "~", "null", "Null", "NULL")}
for _words, _value in (
    (("y", "yes", "true", "on"), True),
    (("n", "no", "false", "off"), False),
):
    for _word in _words:
        _WORDS.update({_word: _value, _word.capitalize(): _value, _word.upper(): _value})
for _sign, _infinity in (("", "inf"), ("+", "inf"), ("-", "-inf")):
    for _word in (".inf", ".Inf", ".INF"):
        _WORDS[_sign + _word] = float(_infinity)
for _word in (".nan", ".NaN", ".NAN"):
    _WORDS[_word] = float("nan")

_FIRST = frozenset("+-.0123456789~yYnNtTfFoO")
_INT = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_MAX_DIGITS = 400
"""Longer numbers are strings: nothing in Kubernetes holds one, and converting them takes quadratic time."""


def resolve_plain(text: str) -> Scalar:
    """The value of the unquoted scalar `text`."""
    if not text:
        return None
    if text[0] not in _FIRST:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    return _number(text)


def _number(text: str) -> Scalar:
    plain = text.replace("_", "") if text[0] != "." else text
    if _INT.fullmatch(plain):
        return _integer(plain)
    if _FLOAT.fullmatch(plain):
        value = float(plain)
        return text if value in (float("inf"), float("-inf")) else value
    return text


def _integer(plain: str) -> int:
    negative, digits = plain[0] == "-", plain.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567":
        digits = "0o" + digits[1:]
    value = int(digits, 0)
    return -value if negative else value
