"""Plans as data: order, privileges and slots, without a kernel."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from sandbox.errors import InvalidInput
from sandbox.linux import constants as k
from sandbox.linux.seccomp import Filter
from sandbox.runtime import ops
from sandbox.runtime.config import (
    Device,
    Mount,
    NamespaceMode,
    NamespaceOptions,
    PodSandboxConfig,
    PodSandboxMetadata,
    Propagation,
    Rlimit,
)
from sandbox.runtime.container_plan import (
    ContainerSpec,
    Source,
    compile_container,
    container_clone_flags,
    find_device,
    find_source,
)
from sandbox.runtime.process import CapabilitySets, ProcessSpec, command_line, environment, process_ops
from sandbox.runtime.sandbox_plan import check_sysctls, compile_sandbox, sandbox_clone_flags

POD = PodSandboxConfig(PodSandboxMetadata("web", "uid"))
PROCESS = ProcessSpec(
    ("app",), ("A=1",), "/", 0, 0, (), CapabilitySets(1, 1, 1), True, Filter(b"\0" * 16, 0), "RuntimeDefault"
)


def spec(**changes: object) -> ContainerSpec:
    base = ContainerSpec(
        sandbox=POD,
        layers=("/l/lower", "/l/upper-most"),
        upper="/c/upper",
        work="/c/work",
        cgroup_joins=("/sys/fs/cgroup/memory/p/c/tasks",),
        cgroup_views=(("memory", "/sys/fs/cgroup/memory/p/c"),),
        unified_cgroup=False,
        sources=(),
        devices=(),
        readonly_rootfs=False,
        privileged=False,
        masked_paths=("/proc/kcore",),
        readonly_paths=("/proc/sys",),
        oom_score_adj=0,
        tty=False,
        process=PROCESS,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def index_of(plan: ops.Plan, kind: type[ops.Op], **fields: object) -> int:
    for number, op in enumerate(plan.ops):
        if isinstance(op, kind) and all(getattr(op, name) == value for name, value in fields.items()):
            return number
    raise AssertionError(f"no {kind.__name__} with {fields}")


def test_the_cgroup_is_joined_before_its_namespace_is_made_and_before_any_mount() -> None:
    plan = compile_container(spec())
    join = index_of(plan, ops.JoinCgroup)
    assert join < index_of(plan, ops.Overlay) < index_of(plan, ops.Setns) < index_of(plan, ops.Unshare)


def test_sources_are_opened_outside_and_mounted_inside_parents_first() -> None:
    deep = Source(Mount("/a/b", "/srv/b"), True)
    top = Source(Mount("/a", "/srv/a", readonly=True, recursive_read_only=True), True)
    plan = compile_container(spec(sources=(deep, top)))
    setns = index_of(plan, ops.Setns)
    assert index_of(plan, ops.OpenTree, path="/srv/a") < setns and index_of(plan, ops.OpenTree, path="/srv/b") < setns
    assert setns < index_of(plan, ops.MoveMount, path="/a") < index_of(plan, ops.MoveMount, path="/a/b")
    read_only = [op for op in plan.ops if isinstance(op, ops.MountSetattr) and op.attr_set & k.MOUNT_ATTR_RDONLY]
    assert any(op.recursive for op in read_only)


def test_nothing_is_mounted_after_the_pivot_and_exec_is_last() -> None:
    plan = compile_container(spec(tty=True))
    pivot = index_of(plan, ops.PivotRoot)
    mounting = (ops.MoveMount, ops.Mask, ops.ReadOnly, ops.Pty, ops.Mknod, ops.Filesystem)
    assert not any(isinstance(op, mounting) for op in plan.ops[pivot:])
    assert isinstance(plan.ops[-1], ops.Exec)


def test_the_topmost_layer_is_first_in_the_overlay() -> None:
    plan = compile_container(spec())
    overlay = plan.ops[index_of(plan, ops.Overlay)]
    assert isinstance(overlay, ops.Overlay) and overlay.lowers == ("/l/upper-most", "/l/lower")


def test_a_filter_comes_last_with_no_new_privs_and_before_the_drop_without() -> None:
    kinds = [type(op) for op in process_ops(PROCESS)]
    assert kinds.index(ops.NoNewPrivs) < kinds.index(ops.Credentials) < kinds.index(ops.Seccomp)
    kinds = [type(op) for op in process_ops(replace(PROCESS, no_new_privs=False))]
    assert ops.NoNewPrivs not in kinds and kinds.index(ops.Seccomp) < kinds.index(ops.Credentials)
    assert ops.Seccomp not in [type(op) for op in process_ops(replace(PROCESS, seccomp=None))]


def test_an_unknown_rlimit_is_named() -> None:
    with pytest.raises(InvalidInput, match="RLIMIT_TEA"):
        process_ops(replace(PROCESS, rlimits=(Rlimit("RLIMIT_TEA", 1, 1),)))


def test_namespaces_follow_the_options() -> None:
    assert sandbox_clone_flags(POD) == k.CLONE_NEWNET | k.CLONE_NEWUTS | k.CLONE_NEWIPC | k.CLONE_NEWNS | k.CLONE_NEWPID
    host = replace(POD, namespaces=NamespaceOptions(NamespaceMode.NODE, NamespaceMode.NODE, NamespaceMode.NODE))
    assert sandbox_clone_flags(host) == k.CLONE_NEWNS | k.CLONE_NEWPID
    assert container_clone_flags(POD) == k.CLONE_NEWPID
    assert container_clone_flags(host) == 0
    kinds = [type(op) for op in compile_sandbox(host, "/run/x").ops]
    assert ops.LoopbackUp not in kinds and ops.Hostname not in kinds and ops.SendFd not in kinds


def test_pause_gives_up_everything_before_its_exec() -> None:
    plan = compile_sandbox(POD, "/run/x")
    pivot, drop = index_of(plan, ops.PivotRoot), index_of(plan, ops.Credentials)
    assert pivot < drop < len(plan.ops) - 1
    credentials = plan.ops[drop]
    assert isinstance(credentials, ops.Credentials)
    assert (credentials.uid, credentials.bounding, credentials.effective, credentials.groups) == (65535, 0, 0, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.core_pattern", "|/bin/sh"),
        ("vm.swappiness", "1"),
        ("net.ipv4.ip_forward", "1\nkernel.core_pattern=x"),
        ("net.ipv4.ip_forward", "1+kernel.core_pattern=|/x"),
        ("net/../kernel/core_pattern", "1"),
        ("net...kernel.core_pattern", "1"),
        ("", "1"),
    ],
)
def test_sysctls_that_reach_the_host_are_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match="sysctl"):
        check_sysctls(replace(POD, sysctls=((name, value),)))


def test_namespaced_sysctls_are_taken_but_not_those_of_a_shared_namespace() -> None:
    check_sysctls(
        replace(POD, sysctls=(("net.ipv4.ip_forward", "1"), ("kernel.shmmax", "1"), ("fs.mqueue.msg_max", "1")))
    )
    host = NamespaceOptions(network=NamespaceMode.NODE)
    with pytest.raises(InvalidInput, match="host's network"):
        check_sysctls(replace(POD, namespaces=host, sysctls=(("net.ipv4.ip_forward", "1"),)))


def test_mount_sources_and_targets_are_checked(tmp_path: object) -> None:
    assert find_source(Mount("/x", "/etc")).is_directory
    assert not find_source(Mount("/x", "/etc/passwd")).is_directory
    for bad in (Mount("x", "/etc"), Mount("/", "/etc"), Mount("/a/../b", "/etc"), Mount("/x", f"{tmp_path}/absent")):
        with pytest.raises(InvalidInput):
            find_source(bad)


def test_a_device_is_a_device() -> None:
    node, rule = find_device(Device("/dev/null2", "/dev/null", "rw"))
    assert (rule.kind, rule.major, rule.minor, rule.access) == ("c", 1, 3, "rw") and node.container_path == "/dev/null2"
    with pytest.raises(InvalidInput, match="not a device"):
        find_device(Device("/dev/x", "/etc/passwd"))


def test_command_line_combines_as_kubernetes_does() -> None:
    assert command_line(["e"], ["c"], [], [], "i") == ("e", "c")
    assert command_line(["e"], ["c"], ["k"], [], "i") == ("k",)
    assert command_line(["e"], ["c"], [], ["a"], "i") == ("e", "a")
    assert command_line(["e"], ["c"], ["k"], ["a"], "i") == ("k", "a")
    with pytest.raises(InvalidInput, match="no command"):
        command_line([], [], [], [], "i")


def test_environment_order_and_defaults() -> None:
    env = environment(["PATH=/x", "A=image"], [("A", "pod"), ("B", "")], home="/root", hostname="h", tty=True)
    assert dict(e.split("=", 1) for e in env) == {
        "PATH": "/x",
        "HOSTNAME": "h",
        "TERM": "xterm",
        "A": "pod",
        "B": "",
        "HOME": "/root",
    }
    for key in ("", "A=B", "A\0"):
        with pytest.raises(InvalidInput):
            environment([], [(key, "x")], home="/", hostname="h", tty=False)


def test_slots_never_collide() -> None:
    """Every descriptor a plan opens has a slot of its own, above those it was given."""
    sources = (
        Source(Mount("/a", "/srv"), True),
        Source(Mount("/b", "/srv", propagation=Propagation.BIDIRECTIONAL), True),
    )
    plan = compile_container(spec(sources=sources, tty=True))
    opening = (ops.OpenTree, ops.Overlay, ops.Filesystem, ops.OpenPath, ops.Pty)
    slots = [op.fd for op in plan.ops if isinstance(op, opening)]
    shm = [op.fd for op in plan.ops if isinstance(op, ops.OpenTree) and op.path in ("/shm", "/dev/shm")]
    assert len(slots) == len(set(slots)) and min(slots) >= len(plan.given) and len(shm) == 1


def test_the_wire_form_has_its_header_and_its_strings() -> None:
    plan = compile_sandbox(POD, "/run/x")
    wire = ops.encode_plan(plan)
    magic, version, count, total, slots = struct.unpack_from("=IHHII", wire)
    assert (magic, version, count, total, slots) == (ops.MAGIC, ops.VERSION, len(plan.ops), len(wire), plan.slot_count)
    assert b"web\0" in wire and len(wire) < 8192


def test_bounds_of_the_wire_form() -> None:
    with pytest.raises(ValueError, match="operations"):
        ops.encode_plan(ops.Plan(()))
    with pytest.raises(ValueError, match="operations"):
        ops.encode_plan(ops.Plan((ops.Setsid(),) * (ops.MAX_OPS + 1)))
    with pytest.raises(ValueError, match="bytes"):
        ops.encode_plan(ops.Plan((ops.Hostname("x" * (ops.MAX_PLAN_BYTES + 1)),)))
    with pytest.raises(ValueError, match="NUL"):
        ops.encode_plan(ops.Plan((ops.Exec(("a\0b",)),)))
