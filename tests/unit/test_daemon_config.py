"""Configuration: who wins, and what is refused with which sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.daemon.config import SETTINGS, Config, find_pause, load
from sandbox.errors import InvalidInput

NO_ENVIRONMENT: dict[str, str] = {}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_defaults_are_valid_and_are_those_of_the_documentation() -> None:
    config = load(environ=NO_ENVIRONMENT, file=None) if not Path("/etc/sandbox/config.toml").exists() else Config()
    assert (config.root, config.run_dir) == (Path("/var/lib/sandbox"), Path("/run/sandbox"))
    assert config.socket_path == Path("/run/sandbox/api.sock")
    assert config.cgroup_parent == "sandbox"


def test_flags_win_over_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'root = "/file"\nrun_dir = "/file-run"\ncgroup_parent = "file"\n[log]\nlevel = "debug"\n')
    environ = {"SANDBOX_RUN_DIR": "/environment-run", "SANDBOX_CGROUP_PARENT": "environment"}
    config = load({"cgroup_parent": "flag", "subnet": None}, file=file, environ=environ)
    assert config.root == Path("/file")
    assert config.run_dir == Path("/environment-run")
    assert config.cgroup_parent == "flag"
    assert config.log_level == "debug"
    assert config.file == file


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path, 'root = "/named"\n')
    assert load(environ={"SANDBOX_CONFIG": str(file)}).root == Path("/named")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('root = "relative"', "root 'relative'"),
        ('root = "/a/../b"', "must not contain .."),
        ("root = 3", "root 3"),
        ('rot = "/x"', "unknown setting 'rot'"),
        ('[log]\nlevel = "loud"', "must be one of debug, info, warning, error"),
        ('[network]\nsubnet = "10.0.0.0/33"', "network.subnet '10.0.0.0/33'"),
        ('[network]\nsubnet = "10.0.0.1/16"', "has host bits set"),
        ('[network]\nsubnet = "10.0.0.0/31"', "room for a gateway and a pod"),
        ('[network]\nbridge = "a-name-that-is-too-long"', "interface name"),
        ('[network]\nbin_dirs = ["x"]', "absolute path"),
        ('cgroup_parent = "a/../b"', "cgroup_parent"),
        ("[pods]\nback_off_initial_s = 20\nback_off_max_s = 10", "back_off_initial_s 20 is over back_off_max_s 10"),
        ("[images]\nmax_bytes = true", "whole number"),
        ("root = ", "cannot be read"),
        (f'run_dir = "/{"x" * 100}"', "too long for the path of a unix socket"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(file=write(tmp_path, text), environ=NO_ENVIRONMENT)
    message = str(caught.value)
    assert part in message
    assert "\n" not in message and message[0].islower()
    assert caught.value.exit_code == 2


def test_a_missing_file_is_an_error_only_when_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no configuration file"):
        load(file=tmp_path / "absent.toml", environ=NO_ENVIRONMENT)
    with pytest.raises(InvalidInput, match="there is no configuration file"):
        load(environ={"SANDBOX_CONFIG": str(tmp_path / "absent.toml")})


def test_the_source_of_a_bad_value_is_named() -> None:
    with pytest.raises(InvalidInput, match="environment variable SANDBOX_LOG_LEVEL"):
        load(environ={"SANDBOX_LOG_LEVEL": "x"})
    with pytest.raises(InvalidInput, match="flag --log-level"):
        load({"log_level": "x"}, environ=NO_ENVIRONMENT)


def test_to_flags_makes_the_same_configuration_again() -> None:
    config = Config(
        root=Path("/r"),
        run_dir=Path("/u"),
        cni_bin_dirs=(Path("/a"), Path("/b")),
        back_off_initial_s=0.5,
        subnet="10.1.0.0/24",
    )
    flags = dict(flag.split("=", 1) for flag in config.to_flags())
    overrides = {s.name: flags[s.flag] for s in SETTINGS if s.flag in flags}
    assert load(overrides, environ=NO_ENVIRONMENT) == config


def test_every_setting_is_a_field_with_unique_spellings() -> None:
    for spelling in ("name", "key", "environment", "flag"):
        values = [getattr(setting, spelling) for setting in SETTINGS]
        assert len(set(values)) == len(values)


def test_find_pause(tmp_path: Path) -> None:
    pause = tmp_path / "pause"
    with pytest.raises(InvalidInput, match="there is no pause program"):
        find_pause(Config(pause_path=pause))
    pause.write_bytes(b"")
    with pytest.raises(InvalidInput):  # not executable
        find_pause(Config(pause_path=pause))
    pause.chmod(0o755)
    assert find_pause(Config(pause_path=pause)) == pause


@pytest.mark.parametrize("module", ["sandbox.daemon.config", "sandbox.daemon.launch", "sandbox.daemon.doctor"])
def test_the_cli_gets_no_heavy_import(module: str) -> None:
    heavy = "aiohttp", "pyroute2", "sqlite3", "yaml", "lightkube", "prctl"
    program = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
