"""What the daemon does with its process and its host: locks, descriptors, notification, logs, doctor, units."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.daemon import doctor, launch, logconfig, units
from sandbox.daemon.config import Config
from sandbox.daemon.process import InstanceLock, Readiness, close_inherited, make_private_directory, notify, read_pid
from sandbox.errors import Conflict, StateError


def test_the_lock_is_exclusive_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "daemon.pid"
    assert read_pid(path) is None
    lock = InstanceLock(path, "run_dir")
    assert read_pid(path) == os.getpid()
    with pytest.raises(Conflict, match=f"a daemon with pid {os.getpid()} is running already on run_dir"):
        InstanceLock(path, "run_dir")
    lock.release()
    assert read_pid(path) is None
    program = (
        "import os, signal, sys; from pathlib import Path; from sandbox.daemon.process import InstanceLock\n"
        "lock = InstanceLock(Path(sys.argv[1]), 'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert path.read_text().strip().isdigit()  # stale
    assert read_pid(path) is None
    InstanceLock(path, "run_dir").release()


def test_a_lock_does_not_follow_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "daemon.pid").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        InstanceLock(tmp_path / "daemon.pid", "run_dir")
    assert not (tmp_path / "victim").exists()


def test_directories_become_private(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    make_private_directory(tmp_path / "open", "root")
    make_private_directory(tmp_path / "a/b", "root")
    assert [oct((tmp_path / p).stat().st_mode & 0o777) for p in ("open", "a/b")] == ["0o700", "0o700"]
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot be made"):
        make_private_directory(tmp_path / "file", "root")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(StateError, match="belongs to user 65534"):
        make_private_directory(tmp_path, "run_dir")


def test_inherited_descriptors_are_closed_but_those_to_keep() -> None:
    program = (
        "import os, sys; from sandbox.daemon.process import close_inherited\n"
        "close_inherited([int(sys.argv[1])])\n"
        "import json; alive = []\n"
        "for fd in map(int, sys.argv[1:]):\n"
        "    try: alive.append([fd, os.get_inheritable(fd)])\n"
        "    except OSError: pass\n"
        "print(json.dumps(alive))"
    )
    keep, drop = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(keep), str(drop)],
            pass_fds=(keep, drop),
            capture_output=True,
            check=True,
        )
    finally:
        os.close(keep)
        os.close(drop)
    assert json.loads(done.stdout) == [[keep, False]]
    assert close_inherited.__doc__


def test_notification_goes_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("nobody listens")
    for address, name in (
        (str(tmp_path / "notify"), str(tmp_path / "notify")),
        (f"\0sb-{os.getpid()}", f"@sb-{os.getpid()}"),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", name)
            notify("READY=1")
            assert manager.recv(100) == b"READY=1"
    notify("the manager is gone")  # a warning in the log, no more


def test_readiness_is_told_once() -> None:
    read_end, write_end = os.pipe()
    readiness = Readiness(write_end)
    assert readiness.fds == [write_end]
    readiness.failed(StateError("no room", hint="make some"))
    readiness.ready()
    with os.fdopen(read_end) as pipe:
        lines = pipe.read().splitlines()
    assert [json.loads(line)["error"]["message"] for line in lines] == ["no room"]


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("sandbox.x", logging.WARNING, __file__, 1, message, (), None)
    made.fields = fields
    return made


def test_a_log_record_is_one_line() -> None:
    made = record('two\nlines "quoted"', pod="default/web", count=3)
    text = logconfig.TextFormatter().format(made)
    assert "\n" not in text
    assert text.endswith(r'level=warning logger=sandbox.x message="two\nlines \"quoted\"" pod=default/web count=3')
    parsed = json.loads(logconfig.JsonFormatter().format(made))
    assert (parsed["message"], parsed["pod"], parsed["count"]) == ('two\nlines "quoted"', "default/web", 3)
    assert parsed["time"].endswith("Z")


def test_units_run_the_command_that_installed_them(tmp_path: Path) -> None:
    written = units.install(Path("/opt/venv/bin/sandbox"), tmp_path)
    assert units.install(Path("/opt/venv/bin/sandbox"), tmp_path) == written
    service, listener = (tmp_path / "sandbox.service").read_text(), (tmp_path / "sandbox.socket").read_text()
    assert "ExecStart=/opt/venv/bin/sandbox daemon\n" in service and "@" not in service
    for line in ("Type=notify", "KillMode=process", "Delegate=yes", "Restart=always"):
        assert f"\n{line}\n" in service
    assert "ListenStream=/run/sandbox/api.sock\nSocketMode=0600\n" in listener
    assert units.uninstall(tmp_path) == written
    assert units.uninstall(tmp_path) == []


def test_doctor_checks_this_host() -> None:
    checks = doctor.run_checks(Config())
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"root", "kernel", "cgroups", "nftables", "pause program", "Python packages", "open files"} <= set(names)
    assert {check.status for check in checks} <= {"ok", "warn", "fail"}
    assert all(check.hint for check in checks if check.status == "fail")
    assert json.dumps([check.to_json() for check in checks])


def test_doctor_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(pause_path=tmp_path / "pause", root=tmp_path / "root", network="auto", cni_conf_dir=tmp_path)
    (tmp_path / "10-net.conflist").write_text("{}")
    checks = {check.name: check for check in doctor.run_checks(config)}
    assert checks["pause program"].status == "fail" and "make -C pause" in checks["pause program"].hint
    absent = Config(network="auto", cni_conf_dir=tmp_path, cni_bin_dirs=(tmp_path / "absent",))
    cni = {check.name: check for check in doctor.check_network(absent)}["CNI"]
    assert (cni.status, cni.hint) == ("fail", "apt install containernetworking-plugins")
    assert doctor.exit_code(checks.values()) == 1
    monkeypatch.setattr(doctor, "PACKAGES", {"no_such_module": "no-such-package"})
    (packages,) = doctor.check_packages(config)
    assert packages.hint == "pip install no-such-package"


def test_doctor_agrees_with_the_drivers_on_cgroups() -> None:
    from sandbox.cgroups.detect import detect

    _mode, found = doctor.cgroup_controllers()
    assert {"cpu", "memory", "pids"} <= found & {("io" if c == "blkio" else c) for c in detect().controllers}


def test_a_log_that_has_grown_large_is_set_aside(tmp_path: Path) -> None:
    config = Config(root=tmp_path)
    for size, kept in ((10, False), (launch.MAX_LOG_BYTES + 1, True)):
        os.truncate(os.open(config.log_path, os.O_CREAT | os.O_WRONLY), size)
        os.close(launch._open_log(config))
        assert (tmp_path / "daemon.log.1").exists() is kept
    assert config.log_path.stat().st_size == 0
