"""The console script. It stays free of imports so that what it switches off is off before click is loaded."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Runs the command line and ends the process with one of the documented exit codes.

    The process lives for milliseconds and builds no garbage: the collector only costs time while modules load, and
    the interpreter's own tear-down costs more than many a request. So the first is off and the second is skipped,
    after both streams were flushed.
    """
    gc.disable()
    from sandbox.cli.plain import is_plain

    if is_plain(sys.argv[1:]):
        from sandbox.cli.plain import run_plain as run
    else:
        from sandbox.cli.root import run
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 141
    os._exit(code)


if __name__ == "__main__":
    main()
