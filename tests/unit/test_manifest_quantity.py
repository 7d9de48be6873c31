"""Quantities as `pkg/api/resource/quantity.go` reads them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import InvalidInput
from sandbox.manifest.quantity import parse_bytes, parse_milli, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("-1", "-1"),
        ("1.", "1"),
        (".5", "0.5"),
        ("0.5", "0.5"),
        ("100m", "0.1"),
        ("5u", "0.000005"),
        ("7n", "7e-9"),
        ("1k", "1000"),
        ("1.5Gi", str(3 << 29)),
        ("1Ki", "1024"),
        ("2Mi", str(2 << 20)),
        ("1Ti", str(1 << 40)),
        ("1Pi", str(1 << 50)),
        ("1Ei", str(1 << 60)),
        ("1E", "1e18"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1e-3", "0.001"),
        ("1.1e+2", "110"),
        ("0.1n", "1e-9"),  # rounded up to a nano
        ("-0.1n", "-1e-9"),  # away from zero
        ("0e999999999", "0"),
        ("100Ei", str((1 << 63) - 1)),  # capped
        ("1e999999", str((1 << 63) - 1)),
        ("1e-999999", "1e-9"),
        ("9223372036854775807", str((1 << 63) - 1)),
        ("0.000000001", "1e-9"),
        ("00012", "12"),
    ],
)
def test_value(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "+",
            "-",
            ".",
            "Ki",
            "1 ",
            " 1",
            "1 Ki",
            "1kk",
            "1K",
            "1mi",
            "1MB",
            "1i",
            "--1",
            "1+1",
            "0x10",
            "1e",
        ),
        *("1e+", "1.1.1", "1e1.5", "aoeu", ".5i", "1Kie", "٣", "1_000", "nan", "inf", "1" * 65, "1e3Ki", "1,5", "1m\n"),
    ],
)
def test_no_quantity(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("100MB", "100M"),
        ("1GiB", "1Gi"),
        ("64mi", "64Mi"),
        ("1K", "1k"),
        ("1 Gi", "1Gi"),
        ("2g", "2G"),
        (" 5", "5"),
        ("2KI", "2Ki"),
    ],
)
def test_what_was_meant(text: str, guess: str) -> None:
    with pytest.raises(InvalidInput, match=f'did you mean "{guess}"'):
        parse_quantity(text)


def test_rounding_up() -> None:
    assert parse_milli("0.0001") == 1
    assert parse_milli("250m") == 250
    assert parse_milli("-1500u") == -1
    assert parse_bytes("1500m") == 2
    assert parse_bytes("1Gi") == 1 << 30


@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    try:
        value = parse_quantity(text)
    except InvalidInput:
        return
    assert abs(value) <= (1 << 63) - 1


_POWERS = {"": 0, "m": -3, "u": -6, "n": -9, "k": 3, "M": 6}


@given(st.integers(-(10**12), 10**12), st.sampled_from(sorted(_POWERS)))
def test_decimal_suffixes(number: int, suffix: str) -> None:
    assert parse_quantity(f"{number}{suffix}") == Decimal(number).scaleb(_POWERS[suffix])
    assert parse_quantity(f"{number}e{_POWERS[suffix]}") == parse_quantity(f"{number}{suffix}")
