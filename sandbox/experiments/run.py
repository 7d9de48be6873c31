"""Runs one experiment from its plan to its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandbox.cli.client import ApiError, Client
from sandbox.errors import InvalidInput, SandboxError, UnsupportedByHost
from sandbox.experiments import template
from sandbox.experiments.disk import Disk, block_size, disk_below, file_on_disk, loop_device
from sandbox.experiments.experiment import Experiment, Settings
from sandbox.experiments.interrupts import interruptible
from sandbox.experiments.pods import PodFactory
from sandbox.experiments.readings import KINDS
from sandbox.experiments.result import Result, host_facts, load_average
from sandbox.experiments.sweep import Point, Sample, plan, relative

Progress = Callable[[str], None]


def check_settings(experiment: Experiment, settings: Settings) -> None:
    """Refuses what this experiment has not. Raises InvalidInput."""
    if settings.window_s is not None and not KINDS[experiment.measure.kind].has_window:
        raise InvalidInput(
            f"experiment {experiment.name!r} measures no rate: it has no window", operation="read the settings"
        )
    if settings.loop and not experiment.disk_bytes:
        raise InvalidInput(f"experiment {experiment.name!r} uses no disk", operation="read the settings")


def run(experiment: Experiment, settings: Settings, client: Client, progress: Progress) -> Result:
    """Measures every point of the plan, with fresh pods each. Everything it made is gone when it returns or raises.

    A limit that this host does not have is a result too: `refused` says why. Raises KeyboardInterrupt for SIGTERM too.
    """
    check_settings(experiment, settings)
    factory = PodFactory(client, experiment.name)
    chosen = replace(
        experiment,
        repetitions=settings.repetitions or experiment.repetitions,
        seed=experiment.seed if settings.seed is None else settings.seed,
        measure=replace(experiment.measure, window_s=settings.window_s or experiment.measure.window_s),
    )
    daemon = factory.daemon()
    limits = settings.limits or (experiment.sweep.values if experiment.sweep else ())
    points = plan([s.name for s in chosen.series], chosen.cases(limits), chosen.repetitions, chosen.seed)
    result = Result(
        experiment=chosen,
        limits=limits,
        host=host_facts(str(daemon["cgroups"])),
        began=time.time(),
        load=(load_average(), 0.0),
    )
    start = time.monotonic()
    samples: list[Sample] = []
    with interruptible():
        progress(f"{experiment.name}: preparing")
        try:
            with _disk(chosen, Path(daemon["root"]), loop=settings.loop) as disk:
                result = replace(result, facts={"disk": disk.description, "device": disk.device} if disk else {})
                for number, point in enumerate(points):
                    progress(_sentence(chosen, point, number, len(points), time.monotonic() - start))
                    samples.append(measure(chosen, point, factory, disk))
        except (UnsupportedByHost, ApiError) as error:
            result = replace(result, refused=_refusal(error))
            samples = []
    if chosen.baseline and samples:
        samples = _relative(chosen, samples)
    ended = (result.load[0], load_average())
    return replace(result, samples=tuple(samples), seconds=time.monotonic() - start, load=ended)


def measure(experiment: Experiment, point: Point, factory: PodFactory, disk: Disk | None) -> Sample:
    """One point, with pods of its own."""
    variables = _variables(experiment, point, disk)
    manifests = [_manifest(pod, variables, disk) for pod in experiment.pods_of(point.case)]
    said = experiment.measure
    what = replace(said, counter=template.fill(said.counter, variables))
    kind = KINDS[what.kind]
    measured = (what.of, *what.against)
    with factory.pods(manifests, kind.wait) as pods:
        value, details = kind.read(pods, what)
        told = {name: pods.kernel_files(name, experiment.files) for name in measured if name in pods}
        expected = None
        if experiment.expects_weights and point.case.expected is None:
            weights = [weight_of(pods.kernel_files(name, WEIGHT_FILES)) for name in measured if name in pods]
            expected = weights[0] / sum(weights)
    kernel = {name: files for name, files in told.items() if files}
    return Sample(point, value, {**details, "kernel": kernel} if kernel else details, expected)


WEIGHT_FILES = ("cpu.shares", "cpu.weight")


def weight_of(files: dict[str, str]) -> int:
    """cpu.weight or cpu.shares, whichever this host has. Raises UnsupportedByHost."""
    for name in WEIGHT_FILES:
        if files.get(name, "").isdigit():
            return int(files[name])
    raise UnsupportedByHost("this host's cgroups have neither cpu.weight nor cpu.shares", operation="read a weight")


def _manifest(pod: dict[str, Any], variables: dict[str, str], disk: Disk | None) -> dict[str, Any]:
    """A container whose text names the disk gets it mounted."""
    filled: dict[str, Any] = template.fill(pod, variables)
    if disk is None or "disk" not in template.names(pod):
        return filled
    spec = dict(filled["spec"])
    containers = []
    for declared, container in zip(pod["spec"]["containers"], spec["containers"], strict=True):
        if "disk" in template.names(declared):
            mounts = [*container.get("volumeMounts", ()), disk.mount]
            security = {**container.get("securityContext", {}), **disk.security}
            container = {**container, "volumeMounts": mounts, "securityContext": security}
        containers.append(container)
    spec["containers"] = containers
    spec["volumes"] = [*spec.get("volumes", ()), disk.volume]
    return {**filled, "spec": spec}


def _variables(experiment: Experiment, point: Point, disk: Disk | None) -> dict[str, str]:
    series = next(s for s in experiment.series if s.name == point.series)
    variables: dict[str, str] = {}
    if point.case.limit is not None:
        limit = point.case.limit
        number = str(int(limit)) if limit == int(limit) else repr(limit)
        variables |= {"limit": point.case.name, "number": number, "block": str(block_size(limit))}
    if disk is not None:
        variables |= {"device": disk.device, "disk": disk.target, "diskBytes": str(disk.size_bytes)}
    return variables | dict(series.variables) | dict(point.case.variables)


@contextmanager
def _disk(experiment: Experiment, root: Path, *, loop: bool) -> Iterator[Disk | None]:
    if not experiment.disk_bytes:
        yield None
        return
    device = "" if loop else disk_below(root)
    place = file_on_disk(root, device, experiment.disk_bytes) if device else loop_device(root, experiment.disk_bytes)
    with place as disk:
        yield disk


def _relative(experiment: Experiment, samples: list[Sample]) -> list[Sample]:
    try:
        return relative(samples, experiment.baseline)
    except ZeroDivisionError as error:
        raise SandboxError(
            f"case {experiment.baseline!r} did nothing: nothing can be compared with it", operation="compare"
        ) from error


def _refusal(error: UnsupportedByHost | ApiError) -> str:
    """What the host or the daemon has against the pods, in a sentence; raises `error` again when it is a failure."""
    if isinstance(error, UnsupportedByHost):
        return str(error)
    if error.exit_code != UnsupportedByHost.exit_code:
        raise error
    return "; ".join(dict.fromkeys(map(_without_place, error.errors)))


def _without_place(error: dict[str, Any]) -> str:
    """Where it stands in the manifest of a pod that nobody has seen says nothing."""
    place = f"{error.get('file')}:{error.get('line')}:{error.get('column')}: "
    return str(error.get("message", "")).removeprefix(place)


def _sentence(experiment: Experiment, point: Point, done: int, total: int, seconds: float) -> str:
    left = f", {seconds / done * (total - done):.0f} s left" if done else ""
    what = " ".join(word for word in (experiment.name, point.series, point.case.name) if word)
    return f"{what}: measurement {done + 1} of {total}{left}"
