"""`-o json|yaml|name` for Kubernetes objects."""

from __future__ import annotations

import json
import sys

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from typing import Any


def emit(lines: list[str]) -> None:
    """Lines to stdout in one write."""
    if lines:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()


def emit_object(value: Any, output: str) -> None:
    """A JSON value as JSON or YAML."""
    if output == "yaml":
        from sandbox.manifest import to_yaml

        sys.stdout.write(to_yaml(value))
    else:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def kind_list(items: list[Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": items}
