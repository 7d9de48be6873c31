"""The verdicts of the restart-survival demonstration: each promise, broken alone, is seen."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from typing import Any

import pytest

from sandbox.cli.root import run
from sandbox.daemon.config import Config
from sandbox.errors import NetworkError
from sandbox.experiments.interrupts import interruptible, undisturbed
from sandbox.experiments.own_daemon import free_subnet, own_config
from sandbox.experiments.restart_survival import Outcome
from sandbox.experiments.survival import Log, Snapshot, compare, read_log

BEFORE = Snapshot(
    pod_address="10.64.0.2",
    netns_inode=4026532000,
    pause_pid=10,
    monitor_pid=11,
    steady_pid=12,
    steady_restarts=0,
    app_pid=13,
    app_restarts=0,
    app_last_exit=None,
    app_answers=True,
    connection="open, port 40000",
    echoed_bytes=64,
    log=Log(0, 5, 0),
    daemon_pid=20,
)
CRASHED = replace(BEFORE, app_pid=14, app_restarts=3, app_last_exit=137, echoed_bytes=320, log=Log(0, 9, 0))
KILLED = replace(CRASHED, app_pid=15, app_restarts=4, echoed_bytes=512, log=Log(0, 20, 0), daemon_pid=21)


def bad(before: Snapshot = BEFORE, crashed: Snapshot = CRASHED, killed: Snapshot = KILLED) -> list[str]:
    return [row.what for row in compare(before, crashed, killed, 3) if not row.ok]


def test_what_survived_has_no_bad_row() -> None:
    assert bad() == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"pod_address": "10.64.0.3"}, "pod address"),
        ({"netns_inode": 1}, "network namespace (inode)"),
        ({"pause_pid": 1}, "pause process (pid)"),
        ({"monitor_pid": 1}, "monitor process (pid)"),
        ({"steady_pid": 1}, "other container (pid)"),
        ({"steady_restarts": 1}, "other container (restarts)"),
        ({"connection": "closed"}, "TCP connection into the pod"),
        ({"echoed_bytes": 320}, "bytes echoed over it"),
        ({"log": Log(0, 20, 1)}, "other container's log"),
        ({"log": Log(3, 20, 0)}, "other container's log"),
        ({"log": Log(0, 9, 0)}, "other container's log"),
        ({"app_pid": 14}, "app (pid)"),
        ({"app_restarts": 3}, "app (restarts)"),
        ({"app_last_exit": None}, "app (last exit code)"),
        ({"app_answers": False}, "app answers"),
        ({"daemon_pid": 20}, "daemon (pid)"),
    ],
)
def test_each_broken_promise_is_seen(change: dict[str, Any], what: str) -> None:
    assert bad(killed=replace(KILLED, **change)) == [what]


def test_a_change_between_the_first_two_moments_is_seen() -> None:
    assert bad(before=replace(BEFORE, steady_pid=1)) == ["other container (pid)"]


def test_one_bad_row_is_the_verdict_of_all() -> None:
    assert Outcome(compare(BEFORE, CRASHED, KILLED, 3), 3, 1.0).ok
    outcome = Outcome(compare(BEFORE, CRASHED, replace(KILLED, pause_pid=1), 3), 3, 1.0)
    assert not outcome.ok
    assert outcome.to_json()["survived"] is False


def test_a_log_is_read_up_to_its_last_whole_line() -> None:
    assert read_log("line 0\nline 1\nline 2\nlin") == Log(0, 2, 0)
    assert read_log("line 0\nline 2\nline 1\n") == Log(0, 1, 2)
    assert read_log("line 4\nnoise\nline 5\n") == Log(4, 5, 0)
    assert read_log("") == Log(0, -1, 0)


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
br0\t0000400A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def test_a_free_subnet_is_one_without_a_route() -> None:
    found = free_subnet(ROUTES, 0)
    assert found.subnet_of(IPv4Network("10.64.0.0/10"))
    assert not found.overlaps(ip_network("10.64.0.0/16"))
    assert free_subnet(ROUTES, 1 << 18) == free_subnet(ROUTES, 0), "the search goes round"


def test_no_free_subnet_is_an_error() -> None:
    everywhere = ROUTES + "br1\t0000400A\t00000000\t0001\t0\t0\t0\t0000C0FF\t0\t0\t0\n"  # 10.64.0.0/10
    with pytest.raises(NetworkError):
        free_subnet(everywhere, 5)


def test_an_own_daemon_shares_nothing_with_the_hosts() -> None:
    base = Config()
    one, other = own_config(base, 0.1), own_config(base, 0.1)
    for name in ("root", "run_dir", "cgroup_parent", "bridge", "subnet"):
        assert len({getattr(config, name) for config in (base, one, other)}) == 3, name
    assert one.root.parent == base.root.parent, "the same file system"
    assert len(one.bridge) <= 15
    assert one.back_off_initial_s == 0.1


def test_told_to_end_is_an_interrupt() -> None:
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_clean_up_is_finished_before_the_interrupt_comes() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            steps.append("cleaned")
        steps.append("not reached")
    assert steps == ["cleaned"]


def test_only_root_can_make_the_demonstration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(["demo", "restart-survival"]) == 1
    assert "only root" in capsys.readouterr().err
