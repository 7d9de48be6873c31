"""A client for commands that start a daemon when none answers."""

from __future__ import annotations

import os
import sys

from sandbox.cli.client import Client
from sandbox.cli.context import CliContext
from sandbox.cli.progress import StatusLine
from sandbox.errors import DaemonUnavailable


def client_with_daemon(context: CliContext) -> Client:
    """A client whose daemon answers. Raises DaemonUnavailable when none could be started."""
    client = context.client
    try:
        client.probe()
        return client
    except DaemonUnavailable as error:
        if os.geteuid() != 0:
            raise DaemonUnavailable(
                f"no daemon answers at {client.socket_path}, and only root can start one",
                operation="connect",
                subject=client.socket_path,
                errno=error.errno,
                hint="use sudo",
            ) from error
    from sandbox.daemon.launch import start_daemon

    with StatusLine(sys.stderr) as line:
        line.show("starting the daemon")
        start_daemon(context.config())
    return client
