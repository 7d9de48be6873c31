"""What a daemon is configured with: defaults ← a TOML file ← environment ← flags, each later one wins.

One table (`SETTINGS`) holds every setting with its four spellings. No third-party import: the CLI reads the paths of a
daemon from here.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sandbox.errors import InvalidInput

DEFAULT_FILE = Path("/etc/sandbox/config.toml")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
MAX_SOCKET_PATH_BYTES = 100
"""sun_path has 108 bytes (unix(7)); a pod's `pods/<id>/monitor.sock` is opened relative to its directory."""


@dataclass(frozen=True)
class Setting:
    """One setting: `name` is the field of `Config` and the flag; `key` its place in the TOML file, table dot key."""

    name: str
    key: str
    parse: Callable[[Any], Any]
    help: str
    variable: str = ""

    @property
    def environment(self) -> str:
        return self.variable or f"SANDBOX_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _absolute_path(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    if ".." in path.parts:
        raise ValueError("must not contain ..")
    return path


def _paths(value: Any) -> tuple[Path, ...]:
    items = value.split(":") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ValueError("must be a list of absolute paths")
    return tuple(_absolute_path(item) for item in items)


def _text(value: Any) -> str:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("must be a text that is not empty")
    if "\0" in str(value):
        raise ValueError("must not contain a NUL byte")
    return str(value)


def _cgroup_parent(value: Any) -> str:
    text = _text(value).strip("/")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", text) or ".." in text.split("/"):
        raise ValueError("must be names of letters, digits, dots, dashes and underscores, separated by /")
    return text


def _interface(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", text) or text in (".", ".."):
        raise ValueError("must be an interface name of 1 to 15 letters, digits, dots, dashes and underscores")
    return text


def _network(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise ValueError("must be the name of a network: letters, digits, dots, dashes and underscores")
    return text


def _subnet(value: Any) -> str:
    network = ipaddress.ip_network(_text(value))
    if network.num_addresses < 4:
        raise ValueError("must have room for a gateway and a pod")
    return str(network)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        text = _text(value).lower()
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return parse


def _number(low: float, high: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError("must be a number")
        number = float(value)
        if not low <= number <= high:
            raise ValueError(f"must be between {low:g} and {high:g}")
        return number

    return parse


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool | float):
            raise ValueError("must be a whole number")
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return parse


SETTINGS: tuple[Setting, ...] = (
    Setting("root", "root", _absolute_path, "directory of everything that survives a boot"),
    Setting("run_dir", "run_dir", _absolute_path, "directory of sockets and of what dies with a boot"),
    Setting("cgroup_parent", "cgroup_parent", _cgroup_parent, "cgroup under which those of the pods are made"),
    Setting("pause_path", "pause_path", _absolute_path, "the pause program", variable="SANDBOX_PAUSE"),
    Setting("network", "network.name", _network, "CNI network: sandbox is the embedded one, auto the first configured"),
    Setting("cni_conf_dir", "network.conf_dir", _absolute_path, "directory of CNI network configurations"),
    Setting("cni_bin_dirs", "network.bin_dirs", _paths, "directories of CNI plugins (separated by : as flag)"),
    Setting("bridge", "network.bridge", _interface, "bridge of the embedded network"),
    Setting("subnet", "network.subnet", _subnet, "subnet of the embedded network"),
    Setting("subnet6", "network.subnet6", _subnet, "IPv6 subnet of the embedded network, none without"),
    Setting("mtu", "network.mtu", _integer(0, 65535), "MTU of the embedded network, 0 the kernel's default"),
    Setting("log_level", "log.level", _one_of(*LOG_LEVELS), "debug, info, warning or error"),
    Setting("log_format", "log.format", _one_of(*LOG_FORMATS), "text (key=value) or json, a line a record"),
    Setting("back_off_initial_s", "pods.back_off_initial_s", _number(0.01, 3600), "first pause before a restart"),
    Setting("back_off_max_s", "pods.back_off_max_s", _number(0.01, 86400), "longest pause before a restart"),
    Setting("image_max_bytes", "images.max_bytes", _integer(1 << 20, 1 << 44), "largest image archive, unpacked"),
    Setting("request_max_bytes", "api.request_max_bytes", _integer(1 << 10, 1 << 30), "largest request body"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_KEY = {setting.key: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Config:
    """A valid configuration; make it with `load`."""

    root: Path = Path("/var/lib/sandbox")
    run_dir: Path = Path("/run/sandbox")
    cgroup_parent: str = "sandbox"
    pause_path: Path | None = None
    """None: `find_pause` looks in the usual places."""
    network: str = "sandbox"
    cni_conf_dir: Path = Path("/etc/cni/net.d")
    cni_bin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
    bridge: str = "sandbox0"
    subnet: str = "10.85.0.0/16"
    subnet6: str = ""
    mtu: int = 0
    log_level: str = "info"
    log_format: str = "text"
    back_off_initial_s: float = 10.0
    back_off_max_s: float = 300.0
    image_max_bytes: int = 64 << 30
    request_max_bytes: int = 16 << 20
    file: Path | None = field(default=None, compare=False)
    """The file that was read, None when there was none."""

    def __post_init__(self) -> None:
        if len(os.fsencode(self.socket_path)) > MAX_SOCKET_PATH_BYTES:
            raise InvalidInput(
                f"run_dir {str(self.run_dir)!r} is too long for the path of a unix socket",
                operation="configure",
                subject="run_dir",
                hint="choose a shorter directory, such as /run/sandbox",
            )
        if self.back_off_initial_s > self.back_off_max_s:
            raise InvalidInput(
                f"back_off_initial_s {self.back_off_initial_s:g} is over back_off_max_s {self.back_off_max_s:g}",
                operation="configure",
                subject="back_off_initial_s",
            )

    @property
    def socket_path(self) -> Path:
        return self.run_dir / "api.sock"

    @property
    def pid_path(self) -> Path:
        return self.run_dir / "daemon.pid"

    @property
    def database_path(self) -> Path:
        return self.root / "state.db"

    @property
    def log_path(self) -> Path:
        """Where a daemon started by the CLI writes its own log."""
        return self.root / "daemon.log"

    def to_flags(self) -> list[str]:
        """Flags that make the same configuration in another process, whatever its file and environment say."""
        flags = []
        for setting in SETTINGS:
            value = getattr(self, setting.name)
            if value not in (None, ""):
                text = ":".join(map(str, value)) if isinstance(value, tuple) else str(value)
                flags.append(f"{setting.flag}={text}")
        return flags


def load(
    overrides: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration. `overrides` are flags by field name, None values are ignored; `file` is --config.

    Raises InvalidInput, one sentence with the setting, its value and where it came from.
    """
    environment = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    path, must_exist = _file(file, environment)
    found = _read_file(path, values, must_exist=must_exist)
    for setting in SETTINGS:
        text = environment.get(setting.environment)
        if text:
            values[setting.name] = _parsed(setting, text, f"environment variable {setting.environment}")
    for name, value in (overrides or {}).items():
        if value is not None:
            values[name] = _parsed(_BY_NAME[name], value, f"flag {_BY_NAME[name].flag}")
    assert set(values) <= {f.name for f in fields(Config)}
    return Config(**values, file=path if found else None)


def _file(flag: Path | None, environment: Mapping[str, str]) -> tuple[Path, bool]:
    if flag is not None:
        return flag, True
    if environment.get("SANDBOX_CONFIG"):
        return Path(environment["SANDBOX_CONFIG"]), True
    return DEFAULT_FILE, False


def _read_file(path: Path, values: dict[str, Any], *, must_exist: bool) -> bool:
    """Fills `values` from the TOML file; True when there was one."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            raise InvalidInput(f"there is no configuration file {str(path)!r}", operation="configure") from None
        return False
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(
            f"the configuration file {str(path)!r} cannot be read: {error}", operation="configure", subject=str(path)
        ) from error
    for key, value in _flattened(tree):
        setting = _BY_KEY.get(key)
        if setting is None:
            raise InvalidInput(
                f"unknown setting {key!r} in {path}",
                operation="configure",
                subject=str(path),
                hint=f"the settings are {', '.join(_BY_KEY)}",
            )
        values[setting.name] = _parsed(setting, value, str(path))
    return True


def _flattened(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            items += _flattened(value, f"{prefix}{key}.")
        else:
            items.append((prefix + key, value))
    return items


def _parsed(setting: Setting, value: Any, source: str) -> Any:
    try:
        return setting.parse(value)
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"{setting.key} {value!r} ({source}) is not valid: {error}", operation="configure", subject=setting.key
        ) from error


def find_pause(config: Config) -> Path:
    """The pause program: the configured one, that of the package, of the checkout, or of the distribution.

    Raises InvalidInput when none is there and executable.
    """
    package = Path(__file__).resolve().parent.parent
    usual = (package / "data/pause", package.parent / "pause/build/pause", Path("/usr/libexec/sandbox/pause"))
    candidates = (config.pause_path,) if config.pause_path is not None else usual
    for path in candidates:
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise InvalidInput(
        f"there is no pause program at {' or '.join(map(str, candidates))}",
        operation="find the pause program",
        subject=str(candidates[0]),
        hint="build it with `make -C pause`, or name it in SANDBOX_PAUSE",
    )
