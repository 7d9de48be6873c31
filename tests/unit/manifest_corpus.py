"""The corpus of wrong manifests: `manifests/*.txt`.

A case is `### name`, a manifest, and a line `>>> line:column: message` for each problem it has. `@spec` stands for the
four lines of a pod down to `spec:`; `@container` for those and one container, with seven lines in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parent / "manifests"
SPEC = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n"
CONTAINER = SPEC + "  containers:\n  - name: c\n    image: i\n"


@dataclass(frozen=True)
class Case:
    name: str
    manifest: str
    expected: tuple[str, ...]


def read_cases() -> list[Case]:
    return [case for path in sorted(DIRECTORY.glob("*.txt")) for case in read_file(path)]


def read_file(path: Path) -> list[Case]:
    cases = []
    for block in path.read_text().split("### ")[1:]:
        name, _, body = block.partition("\n")
        lines = body.rstrip("\n").split("\n")
        expected = tuple(line.removeprefix(">>> ") for line in lines if line.startswith(">>> "))
        text = "\n".join(line for line in lines if not line.startswith(">>> ")) + "\n"
        text = text.replace("@spec\n", SPEC).replace("@container\n", CONTAINER)
        cases.append(Case(f"{path.stem}: {name}", text, expected))
    return cases
