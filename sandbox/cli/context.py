"""What every command knows: where the daemon is, the namespace, the output format."""

from __future__ import annotations

import os

from sandbox.cli.client import Client, target
from sandbox.errors import InvalidInput

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from typing import Any

    from sandbox.daemon.config import Config


DEFAULT_RUN_DIR = "/run/sandbox"
CONFIG_FILE = "/etc/sandbox/config.toml"
NAMESPACE = "default"


class CliContext:
    """The global options; made once by the root command, handed to every command as click's `obj`."""

    def __init__(self, root: str | None, run_dir: str | None, namespace: str | None, output: str | None) -> None:
        self.root = root
        self.run_dir = run_dir
        self.namespace_given = namespace
        self.output = output

    @property
    def namespace(self) -> str:
        return self.namespace_given or NAMESPACE

    def config(self) -> Config:
        """The whole configuration as the daemon reads it; takes longer than most commands may, so only where needed."""
        from sandbox.daemon.config import load

        return load({"root": self.root, "run_dir": self.run_dir})

    @property
    def socket_path(self) -> str:
        run_dir = self.run_dir or os.environ.get("SANDBOX_RUN_DIR")
        if run_dir is None and ("SANDBOX_CONFIG" in os.environ or os.path.exists(CONFIG_FILE)):  # noqa: PTH110
            run_dir = str(self.config().run_dir)
        return f"{run_dir or DEFAULT_RUN_DIR}/api.sock"

    @property
    def client(self) -> Client:
        return Client(self.socket_path)

    def pod_target(self, pod: str, *segments: str, query: Any = ()) -> str:
        """The request target of a pod in the chosen namespace, or of something below it."""
        return target("v1", "namespaces", self.namespace, "pods", pod, *segments, query=query)


def split_name(text: str, container: str = "") -> tuple[str, str]:
    """POD or POD/CONTAINER, with an explicit `-c CONTAINER`. `pod/NAME`, as `ps -o name` prints it, is NAME."""
    if text.startswith("pod/"):
        text = text[len("pod/") :]
    pod, slash, named = text.partition("/")
    if not pod or (slash and not named) or "/" in named:
        raise InvalidInput(f"{text!r} is not a name of the form POD or POD/CONTAINER", operation="parse a name")
    if named and container and named != container:
        raise InvalidInput(f"{text!r} and -c {container!r} name two different containers", operation="parse a name")
    return pod, named or container


def pod_name(text: str) -> str:
    """POD; a container is refused."""
    pod, container = split_name(text)
    if container:
        raise InvalidInput(
            f"{text!r} names a container, but this command takes a whole pod",
            operation="parse a name",
            hint=f"use {pod!r}",
        )
    return pod
