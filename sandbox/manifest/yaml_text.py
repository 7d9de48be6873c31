"""Plain JSON values as YAML text that Kubernetes' parser, and ours, read back as the same values."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.cyaml import CSafeDumper

from sandbox.manifest.scalars import resolve_plain


class _Dumper(CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Quoted where it would be something else unquoted (`n`, `0o7`, `1e3`); several lines as a block."""
    style = None
    if "\n" in text:
        style = "|"
    elif text == "<<" or not isinstance(resolve_plain(text), str):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(value: Any) -> str:
    """`value`, of dicts, lists and JSON scalars, as one YAML document. The order of keys is kept."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
