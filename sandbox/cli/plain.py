"""Command lines that need no parser: `run FILE...` and `exec POD [--] COMMAND...`, without a single option.

These two are what scripts and people call most, and half of their time would be the import of click. A line with an
option anywhere, and every other command, goes the ordinary way; both ways end in the same functions, and a test holds
them to the same outcome.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from collections.abc import Sequence


def is_plain(arguments: Sequence[str]) -> bool:
    """Whether `run_plain` takes this line. `-` alone is a file; words after exec's POD belong to the command."""
    if len(arguments) < 2 or "_SANDBOX_COMPLETE" in os.environ:
        return False
    verb, first = arguments[0], arguments[1]
    if verb == "run":
        return not any(word.startswith("-") and word != "-" for word in arguments[1:])
    if verb == "exec":
        command = arguments[3:] if arguments[2:3] == ["--"] else arguments[2:]
        explicit = arguments[2:3] == ["--"]
        return not first.startswith("-") and bool(command) and (explicit or not command[0].startswith("-"))
    return False


def run_plain(arguments: list[str]) -> int:
    """Runs a plain line; its exit code. Failures are printed as `sandbox.cli.root.run` prints them."""
    from sandbox.cli.context import CliContext, split_name
    from sandbox.cli.report import broken_pipe, report_failure

    context = CliContext(os.environ.get("SANDBOX_ROOT") or None, os.environ.get("SANDBOX_RUN_DIR") or None, None, None)
    try:
        if arguments[0] == "run":
            from sandbox.cli.apply import apply

            return apply(context, arguments[1:])
        from sandbox.cli.session import session

        pod, container = split_name(arguments[1])
        words = arguments[3:] if arguments[2] == "--" else arguments[2:]
        return session(context, pod, "exec", container, [("command", word) for word in words], stdin=False, tty=False)
    except BrokenPipeError:
        return broken_pipe()
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        code = report_failure(error)
        if code is None:
            raise
        return code
