"""The daemon's life: flags, one instance, recover, serve, stop. `python -m sandbox.daemon`, called by `sandbox daemon`.

Everything is imported before the daemon says that it is ready: no request pays for an import.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.daemon import config as configuration
from sandbox.daemon import logconfig
from sandbox.daemon.config import SETTINGS, Config
from sandbox.daemon.process import (
    InstanceLock,
    Readiness,
    inherited_sockets,
    listen,
    make_private_directory,
    notify,
    prepare,
)
from sandbox.errors import SandboxError, StateError

if TYPE_CHECKING:
    from sandbox.daemon.wiring import Services

logger = logging.getLogger("sandbox.daemon")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SHUTDOWN_TIMEOUT_S = 10.0
"""How long open connections may take to end when the daemon stops."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a daemon until it is told to stop; returns the exit code."""
    gc.disable()  # nothing is garbage while modules load; `_serve` turns it on again
    options = _parser().parse_args(arguments)
    readiness = Readiness(options.ready_fd)
    try:
        overrides = {setting.name: getattr(options, setting.name) for setting in SETTINGS}
        config = configuration.load(overrides, file=options.config)
        return run(config, readiness, reload=(overrides, options.config))
    except SandboxError as error:
        readiness.failed(error)
        hint = f" ({error.hint})" if error.hint else ""
        print(f"sandbox daemon: {error}{hint}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sandbox daemon",
        description="Runs the daemon in the foreground. Flags win over the environment, which wins over the file.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"TOML file, else SANDBOX_CONFIG, else {configuration.DEFAULT_FILE}"
    )
    for setting in SETTINGS:
        parser.add_argument(
            setting.flag, dest=setting.name, metavar="VALUE", help=f"{setting.help} [{setting.environment}]"
        )
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    return parser


def run(config: Config, readiness: Readiness, reload: tuple[dict[str, Any], Path | None] = ({}, None)) -> int:
    """Becomes the daemon. `reload` is what the configuration is read from again at SIGHUP."""
    inherited = inherited_sockets()
    prepare([*inherited, *readiness.fds])
    logconfig.configure(config.log_level, config.log_format)
    if os.geteuid() != 0:
        raise StateError("the daemon must run as root", operation="start", hint="use sudo, or `sandbox doctor`")
    make_private_directory(config.root, "root")
    make_private_directory(config.run_dir, "run_dir")
    # Two run directories on one root would be two owners of one state.
    locks = [InstanceLock(config.pid_path, "run_dir"), InstanceLock(config.root / "lock", "root")]
    try:
        asyncio.run(_serve(config, readiness, inherited, reload))
    finally:
        for lock in locks:
            lock.release()
    return 0


async def _serve(
    config: Config, readiness: Readiness, inherited: list[int], reload: tuple[dict[str, Any], Path | None]
) -> None:
    begun = time.monotonic()
    # Bound before anything slow happens: who connects meanwhile waits in the backlog instead of being refused.
    server_socket = listen(config.socket_path, inherited)
    with _without_certificates():
        from aiohttp import web

    from sandbox.daemon import wiring
    from sandbox.daemon.api.app import build_app

    services = await wiring.build(config)
    try:
        _handle_signals(services, reload)
        runner = web.AppRunner(
            build_app(services),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            keepalive_timeout=60.0,
        )
        await runner.setup()
        await services.start()
        await web.SockSite(runner, server_socket).start()
        # What was made until now lives as long as the daemon: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        gc.enable()
        logger.info(
            "ready",
            extra={
                "fields": {
                    "socket": config.socket_path,
                    "root": config.root,
                    "cgroups": services.cgroups.mode,
                    "milliseconds": round((time.monotonic() - begun) * 1000),
                }
            },
        )
        readiness.ready()
        await services.stop_requested()
        notify("STOPPING=1")
        logger.info("stopping; pods keep running")
        for socket in list(services.sockets):
            await socket.close(code=1001, message=b"the daemon stops")
        await runner.cleanup()
        if not inherited:
            config.socket_path.unlink(missing_ok=True)
    finally:
        await services.close()
    logger.info("stopped")


@contextmanager
def _without_certificates() -> Iterator[None]:
    """Importing aiohttp loads every certificate of the host for a client that this daemon has no use for: 30 ms."""
    name = ssl.get_default_verify_paths().openssl_cafile_env
    before = os.environ.get(name)
    os.environ[name] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _handle_signals(services: Services, reload: tuple[dict[str, Any], Path | None]) -> None:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, services.request_stop)
    loop.add_signal_handler(signal.SIGHUP, _reload, reload)


def _reload(reload: tuple[dict[str, Any], Path | None]) -> None:
    """SIGHUP: level and format of the log are taken from the configuration again; the rest needs a restart."""
    overrides, file = reload
    try:
        config = configuration.load(overrides, file=file)
    except SandboxError as error:
        logger.error("the configuration stays as it was: %s", error)
        return
    logconfig.configure(config.log_level, config.log_format)
    logger.info("configuration read again", extra={"fields": {"level": config.log_level}})
