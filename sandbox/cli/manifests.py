"""Reading the manifests named on the command line."""

from __future__ import annotations

import os
import sys

from sandbox.errors import InvalidInput

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from collections.abc import Sequence


MAX_FILE_BYTES = 4 << 20


def read_files(names: Sequence[str]) -> list[dict[str, str]]:
    """`[{"name", "content"}]` as the API takes it; `-` is standard input. Raises InvalidInput."""
    if names.count("-") > 1:
        raise InvalidInput("standard input (-) can be read only once", operation="read the manifest")
    return [{"name": name if name != "-" else "<stdin>", "content": _read(name)} for name in names]


def _read(name: str) -> str:
    shown = name if name != "-" else "<stdin>"
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with open(name, "rb") as file:  # noqa: PTH123 - pathlib costs 4 ms of start-up
                size = os.fstat(file.fileno()).st_size
                data = file.read(MAX_FILE_BYTES + 1) if size <= MAX_FILE_BYTES else b" " * (MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {shown!r}", operation="read the manifest", errno=error.errno or 0) from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput(
            f"{shown!r} is larger than the {MAX_FILE_BYTES >> 20} MiB that a manifest may have",
            operation="read the manifest",
            subject=shown,
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{shown!r} is not UTF-8 text: byte {data[error.start]:#04x} at offset {error.start}",
            operation="read the manifest",
            subject=shown,
        ) from error
