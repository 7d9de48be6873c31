"""What an experiment is, once its declaration has been read: cases, pods, and what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sandbox.errors import InvalidInput
from sandbox.experiments.sweep import Case
from sandbox.manifest.quantity import parse_quantity

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What a run may choose. None: as declared. `loop`: I/O on a loop device also where the disk can be used."""

    repetitions: int | None = None
    seed: int | None = None
    window_s: float | None = None
    limits: tuple[str, ...] = ()
    """Quantities instead of the declared sweep."""
    loop: bool = False


@dataclass(frozen=True)
class Axis:
    """Values are in the kernel's unit (CPUs, bytes, bytes a second, tasks); `scale` divides them for people."""

    label: str
    scale: float = 1.0
    digits: int = 0
    logarithmic: bool = False

    def text(self, value: float) -> str:
        return f"{value / self.scale:.{self.digits}f}"


@dataclass(frozen=True)
class Sweep:
    """One limit, many values. `whole`: they are whole numbers of the kernel's unit."""

    axis: Axis
    values: tuple[str, ...]
    lowest: Decimal
    highest: Decimal
    whole: bool = False

    def number(self, quantity: str) -> float:
        """Raises InvalidInput for one that says nothing."""
        value = parse_quantity(quantity)
        if not self.lowest <= value <= self.highest or (self.whole and value % 1):
            raise InvalidInput(
                f"limit {quantity!r} is not between {self._text(self.lowest)} and {self._text(self.highest)}",
                operation="read the limits",
                subject=quantity,
                hint=f"for example {','.join(self.values[:2])}",
            )
        return float(value)

    def _text(self, value: Decimal) -> str:
        return f"{value.normalize():f}"


@dataclass(frozen=True)
class Series:
    """The same cases in another direction (read, write): `variables` tell them apart."""

    name: str = ""
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Measure:
    """What is read of which container; `readings.py` has the kinds. Texts may have placeholders."""

    kind: str
    of: str
    counter: str = ""
    against: tuple[str, ...] = ()
    keeper: str = ""
    plus: int = 0
    window_s: float | None = None
    warm_up_s: float = 0.25


@dataclass(frozen=True)
class Experiment:
    name: str
    title: str
    method: str
    """How it measures, in one sentence."""
    lesson: str
    """What one should see."""
    sweep: Sweep | None
    declared_cases: tuple[Case, ...]
    cases_label: str
    series: tuple[Series, ...]
    measured: Axis
    measure: Measure
    pods: tuple[dict[str, Any], ...]
    """Pod manifests with placeholders."""
    disk_bytes: int
    """Of the disk that it needs; 0: none."""
    repetitions: int
    seed: int
    tolerance_percent: float
    """The band drawn around what is expected."""
    expects_weights: bool
    baseline: str
    also: tuple[tuple[str, str], ...]
    """Details shown as further columns, and their headers."""
    files: tuple[str, ...]
    """Files of the containers' cgroups that are kept with each sample: what the kernel was told."""
    declaration: str
    """The text it was read from."""

    def parse_limits(self, text: str) -> tuple[str, ...]:
        """Kubernetes quantities separated by commas, smallest first. Raises InvalidInput."""
        words = [word.strip() for word in text.split(",") if word.strip()]
        if self.sweep is None:
            raise InvalidInput(
                f"experiment {self.name!r} has cases and no sweep: there are no limits to choose",
                operation="read the limits",
                hint=f"copy it and change the cases: sandbox experiment show {self.name}",
            )
        if not words:
            raise InvalidInput(f"there is no limit in {text!r}", operation="read the limits", hint="for example 8,16")
        found = {self.sweep.number(word): word for word in words}
        return tuple(found[number] for number in sorted(found))

    def cases(self, limits: tuple[str, ...] = ()) -> tuple[Case, ...]:
        """What is measured: the declared cases, or one for each limit."""
        sweep = self.sweep
        if sweep is None:
            return self.declared_cases
        numbers = {quantity: sweep.number(quantity) for quantity in limits or sweep.values}
        return tuple(
            Case(quantity, number, None if self.expects_weights else number) for quantity, number in numbers.items()
        )

    def pods_of(self, case: Case) -> list[dict[str, Any]]:
        """The declared pods that run in a case."""
        return [pod for pod in self.pods if not case.pods or pod["metadata"]["name"] in case.pods]
