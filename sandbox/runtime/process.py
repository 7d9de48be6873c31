"""One process in a container, the first or an exec'd one: who it is, what it may do, what it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.errors import InvalidInput
from sandbox.linux.constants import RLIMITS
from sandbox.linux.seccomp import Filter
from sandbox.runtime import defaults, ops
from sandbox.runtime.config import Rlimit


@dataclass(frozen=True)
class CapabilitySets:
    """Bit masks, as capabilities(7) defines the sets."""

    bounding: int = 0
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    ambient: int = 0


@dataclass(frozen=True)
class ProcessSpec:
    """`seccomp` None: no filter."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: CapabilitySets
    no_new_privs: bool
    seccomp: Filter | None
    seccomp_name: str = ""
    rlimits: tuple[Rlimit, ...] = ()


def process_ops(spec: ProcessSpec) -> list[ops.Op]:
    """The last stretch of every plan: limits, privileges, the exec.

    Without no_new_privs a filter can only be installed while CAP_SYS_ADMIN is still held; with it, it comes last, so
    that it need not allow what only the set-up needs.
    """
    caps = spec.capabilities
    steps: list[ops.Op] = [_rlimit(limit) for limit in spec.rlimits]
    filter_op = [ops.Seccomp(spec.seccomp.program, spec.seccomp.flags, spec.seccomp_name)] if spec.seccomp else []
    steps += [ops.NoNewPrivs()] if spec.no_new_privs else filter_op
    steps += [
        ops.Credentials(
            spec.uid,
            spec.gid,
            spec.groups,
            caps.bounding,
            caps.effective,
            caps.permitted,
            caps.inheritable,
            caps.ambient,
        ),
        ops.Umask(0o022),
        ops.Chdir(spec.working_dir),
    ]
    steps += filter_op if spec.no_new_privs else []
    return [*steps, ops.Exec(spec.argv, spec.env)]


def _rlimit(limit: Rlimit) -> ops.Op:
    number = RLIMITS.get(limit.name)
    if number is None:
        raise InvalidInput(f"{limit.name!r} is not a resource limit of Linux", subject=limit.name)
    return ops.SetRlimit(number, limit.soft, limit.hard, limit.name)


def command_line(
    entrypoint: Sequence[str], cmd: Sequence[str], command: Sequence[str], args: Sequence[str], image: str
) -> tuple[str, ...]:
    """argv as Kubernetes combines the image's Entrypoint and Cmd with the container's command and args.

    Raises InvalidInput when nothing is left to run.
    """
    argv = tuple(command or entrypoint) + tuple(args if args or command else cmd)
    if not argv:
        raise InvalidInput(f"the image {image} has no command and the container gives none", subject=image)
    return argv


def environment(
    image_env: Sequence[str], env: Sequence[tuple[str, str]], *, home: str, hostname: str, tty: bool
) -> tuple[str, ...]:
    """ "KEY=value" strings: the image's, overridden by the container's; PATH, HOME, HOSTNAME and TERM have defaults."""
    merged = {"PATH": defaults.PATH, "HOSTNAME": hostname}
    if tty:
        merged["TERM"] = "xterm"
    for entry in image_env:
        key, _, value = entry.partition("=")
        merged[key] = value
    merged.update(env)
    merged.setdefault("HOME", home or "/")
    for key, value in merged.items():
        if not key or "=" in key or "\0" in key + value:
            raise InvalidInput(f"{key!r} is not a name of an environment variable", subject=key)
    return tuple(f"{key}={value}" for key, value in merged.items())
