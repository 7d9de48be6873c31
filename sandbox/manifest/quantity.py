"""Kubernetes quantities: `500m`, `1.5Gi`, `1e3`, `-3k` (apimachinery `pkg/api/resource/quantity.go`).

A number with a suffix: n u m (1e-9 1e-6 1e-3), k M G T P E (powers of 1000), Ki Mi Gi Ti Pi Ei (powers of 1024), or an
exponent e3 or E3. As there, a value is rounded up, away from zero, to a whole number of nanos, and capped to 2^63-1.
"""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal

from sandbox.errors import InvalidInput

_SYNTAX = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(|[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)", re.ASCII)
_MAX_LENGTH = 64
_MAX = (1 << 63) - 1
_NANO = Decimal("1e-9")
_CONTEXT = Context(prec=400)  # exact for every text of at most _MAX_LENGTH characters after the exponent is bounded

_SUFFIXES: dict[str, Decimal] = {"": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}
for _power, _letter in enumerate("kMGTPE", start=1):
    _SUFFIXES[_letter] = Decimal(1000) ** _power
    _SUFFIXES[_letter.upper() + "i"] = Decimal(1024) ** _power


def parse_quantity(text: str) -> Decimal:
    """The value of a quantity in its base unit (cores, bytes, …). Raises InvalidInput."""
    match = _SYNTAX.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None or not (match[2] or match[3]):
        raise InvalidInput(_explain(text), operation="parse quantity", subject=text[:_MAX_LENGTH])
    sign, whole, fraction, suffix = match.groups()
    number = Decimal(f"{whole or '0'}.{fraction or '0'}")
    if suffix not in _SUFFIXES:
        exponent = max(-100, min(100, int(suffix[1:])))  # far beyond nanos and the cap
        value = _CONTEXT.scaleb(number, exponent)
    else:
        value = _CONTEXT.multiply(number, _SUFFIXES[suffix])
    value = min(value.quantize(_NANO, ROUND_UP, _CONTEXT), Decimal(_MAX))
    return -value if sign == "-" else value


def _explain(text: str) -> str:
    shown = text[:40] + ("…" if len(text) > 40 else "")
    sentence = f'expected a quantity such as "500m" or "1.5Gi", got "{shown}"'
    stripped = text.strip()
    fixes = (
        (r"([0-9.]+)\s*([KMGTPE]i?)[bB]", r"\1\2"),  # 100MB, 1GiB
        (r"([0-9.]+)\s*K", r"\1k"),
        (r"([0-9.]+)\s*g", r"\1G"),
        (r"([0-9.]+)\s*(mi|MI|mI|gi|GI|ki|KI)", None),
        (r"([0-9.]+)\s+([numkMGTPE]|[KMGTPE]i)", r"\1\2"),
        (r"([0-9.]+)", r"\1"),
    )
    for pattern, replacement in fixes:
        match = re.fullmatch(pattern, stripped, re.ASCII)
        if match and len(text) <= _MAX_LENGTH:
            fixed = match.expand(replacement) if replacement else match[1] + match[2][0].upper() + "i"
            if fixed != text and (found := _SYNTAX.fullmatch(fixed)) and (found[2] or found[3]):
                return f'{sentence}, did you mean "{fixed}"?'
    return sentence


def to_milli(value: Decimal) -> int:
    """Thousandths of the base unit, rounded up: `0.0005` CPUs are 1 milli-CPU (`Quantity.MilliValue`)."""
    return _ceil(value * 1000)


def to_int(value: Decimal) -> int:
    """Whole units, rounded up: bytes of a memory quantity (`Quantity.Value`)."""
    return _ceil(value)


def _ceil(value: Decimal) -> int:
    whole = int(value)
    return whole + 1 if value > whole else whole


def parse_milli(text: str) -> int:
    """`parse_quantity` in thousandths, rounded up: what CPU fields mean."""
    return to_milli(parse_quantity(text))


def parse_bytes(text: str) -> int:
    """`parse_quantity` in whole units, rounded up: what memory and storage fields mean."""
    return to_int(parse_quantity(text))
