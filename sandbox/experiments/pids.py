"""Processes: how many a shell can fork before fork(2) fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sandbox.errors import SandboxError
from sandbox.experiments.experiment import Bench, Experiment, Settings
from sandbox.experiments.pods import PodFactory, shell_container
from sandbox.experiments.sweep import Point, Sample

FORK_TIMEOUT_S = 120.0


class PidsBench:
    def __init__(self, pods: PodFactory) -> None:
        self._pods = pods
        self.facts: dict[str, Any] = {"wanted": "twice the limit"}

    def measure(self, point: Point) -> Sample:
        limit = round(point.limit)
        # ash ends at the first fork that fails, and as PID 1 of its namespace takes every sleep with it.
        script = f"i=0; while [ $i -lt {2 * limit} ]; do sleep 3600 & i=$((i+1)); echo $i; done"
        bomb = shell_container("bomb", script)
        with self._pods.pod(bomb, wait="none", annotations={"sandbox/pids": str(limit)}) as pod:
            end = pod.termination("bomb", FORK_TIMEOUT_S)
            lines = pod.log("bomb").split("\n")
        numbers = [int(line) for line in lines if line.isdigit()]
        if end.get("exitCode") == 0 or not numbers:
            raise SandboxError(
                f"a limit of {limit} processes was not what ended the shell: it ended with {end.get('exitCode')} "
                f"after {len(numbers)} forks",
                operation="measure pids",
            )
        said = next((line for line in reversed(lines) if line and not line.isdigit()), "")
        details = {"forks": numbers[-1], "exitCode": end.get("exitCode"), "message": said[:200]}
        return Sample(point, numbers[-1] + 1, details)  # the shell itself is a task too


@contextmanager
def _open(pods: PodFactory, settings: Settings) -> Iterator[Bench]:
    del settings
    yield PidsBench(pods)


PIDS = Experiment(
    name="pids",
    title="Process limit: how many tasks a shell that forks on and on can have",
    method="a shell forks sleeping processes until fork(2) fails; the forks that succeeded, and the shell",
    limit_label="sandbox/pids (tasks)",
    measured_label="tasks that ran",
    scale=1,
    precision=0,
    limits=(8.0, 16.0, 32.0, 64.0, 128.0, 256.0),
    lowest=2,
    highest=4096,
    logarithmic=True,
    open=_open,
    whole=True,
)
