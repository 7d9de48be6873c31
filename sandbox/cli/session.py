"""A session with a process in a container: what `exec` and `attach` do once their command line is understood."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from sandbox.cli.client import ApiError
from sandbox.cli.context import CliContext

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from typing import Any


def terminal_fd() -> int:
    """The first of the standard descriptors that is a terminal."""
    return next((fd for fd in (0, 1, 2) if os.isatty(fd)), 0)


def session(
    context: CliContext,
    pod: str,
    verb: str,
    container: str,
    query: list[tuple[str, str | int]],
    *,
    stdin: bool,
    tty: bool,
) -> int:
    """Carries the streams until the process ends or is left; its exit code. `verb` is exec or attach."""
    from sandbox.cli.websocket import RemoteProcess

    query = [*([("container", container)] if container else []), *query, ("stdin", int(stdin)), ("tty", int(tty))]
    remote = RemoteProcess(context.client.connect(), context.pod_target(pod, verb, query=query))
    sys.stdout.flush()
    with ExitStack() as stack:
        stack.callback(remote.close)
        extras: dict[str, Any] = {}
        if tty:
            from sandbox.cli.terminal import DetachKeys, raw, resizes, size

            fd = terminal_fd()
            extras = {"terminal_size": lambda: size(fd), "wakeup": stack.enter_context(resizes())}
            if stdin:
                stack.enter_context(raw(0))
                if verb == "attach":
                    extras["detach"] = DetachKeys()
                    # Only now: who reads this may press keys at once, and the terminal must pass them on already.
                    print("Ctrl-P Ctrl-Q leaves the session; a key brings up the prompt", end="\r\n", file=sys.stderr)
        status = remote.run(0 if stdin else None, 1, 2, **extras)
    if status is None:
        print("\nleft the session; the process goes on", file=sys.stderr)
        return 0
    return _exit_code(status)


def _exit_code(status: dict[str, Any]) -> int:
    """The exit code that a Kubernetes Status carries. Raises ApiError when it is about something else."""
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
            return int(cause["message"]) & 0xFF
    raise ApiError([{"message": status.get("message") or "the command could not be run", "exitCode": 1}])
