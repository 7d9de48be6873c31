"""What every experiment is: a name, limits, how a limit is written, and one measurement."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from sandbox.errors import InvalidInput
from sandbox.experiments.pods import PodFactory
from sandbox.experiments.sweep import Point, Sample
from sandbox.manifest.quantity import parse_quantity

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """`window_s`: how long a rate is measured. `loop`: I/O on a loop device also where the disk can be used."""

    repetitions: int = 3
    seed: int = 1
    window_s: float = 2.0
    loop: bool = False
    limits: tuple[float, ...] = ()


class Bench(Protocol):
    """An experiment that is set up. `facts` go into the report."""

    facts: dict[str, Any]

    def measure(self, point: Point) -> Sample: ...


@dataclass(frozen=True)
class Experiment:
    """Values are in the kernel's unit (CPUs, bytes, bytes a second, tasks); `scale` divides them for people."""

    name: str
    title: str
    method: str
    """How it measures, in one sentence for the report."""
    limit_label: str
    measured_label: str
    scale: float
    precision: int
    limits: tuple[float, ...]
    lowest: float
    """The smallest limit that says something."""
    highest: float
    logarithmic: bool
    open: Callable[[PodFactory, Settings], AbstractContextManager[Bench]]
    series: tuple[str, ...] = ("",)
    whole: bool = False
    """Limits are whole numbers of the kernel's unit."""
    tolerance_percent: float = field(default=5.0)
    """The band drawn around the ideal line."""

    def parse_limits(self, text: str) -> tuple[float, ...]:
        """Kubernetes quantities separated by commas. Raises InvalidInput."""
        found = {self._parse_limit(word.strip()) for word in text.split(",") if word.strip()}
        if not found:
            raise InvalidInput(f"there is no limit in {text!r}", operation="read the limits", hint=self._example())
        return tuple(sorted(found))

    def _parse_limit(self, word: str) -> float:
        value = parse_quantity(word)
        if not Decimal(self.lowest) <= value <= Decimal(self.highest) or (self.whole and value % 1):
            raise InvalidInput(
                f"limit {word!r} is not between {self.text(self.lowest)} and {self.text(self.highest)}",
                operation="read the limits",
                subject=word,
                hint=self._example(),
            )
        return float(value)

    def _example(self) -> str:
        return {"cpu": "for example 250m,500m", "pids": "for example 16,64"}.get(self.name, "for example 8Mi,32Mi")

    def text(self, value: float) -> str:
        """A value in the unit of `limit_label`."""
        return f"{value / self.scale:.{self.precision}f}"


def cpu_quantity(cpus: float) -> str:
    return f"{round(cpus * 1000)}m"
