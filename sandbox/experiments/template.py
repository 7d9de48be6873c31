"""Placeholders in a declaration: `{{limit}}` in any string of a pod or a measure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z][A-Za-z0-9]*)\s*\}\}")


def fill(value: Any, variables: Mapping[str, str]) -> Any:
    """`value` (what JSON can hold) with every placeholder replaced. Raises KeyError for one without a value."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda match: variables[match[1]], value)
    if isinstance(value, Mapping):
        return {fill(key, variables): fill(item, variables) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, variables) for item in value]
    return value


def names(value: Any) -> Iterator[str]:
    """The placeholders in `value`, one by one."""
    if isinstance(value, str):
        yield from PLACEHOLDER.findall(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from names(key)
            yield from names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from names(item)
