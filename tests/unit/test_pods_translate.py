"""Pods to what the runtime is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import InvalidInput
from sandbox.manifest import load_manifests
from sandbox.pods.admission import Preview
from sandbox.runtime.config import DNSConfig, NamespaceMode, NamespaceOptions, PortMapping, Propagation, SeccompProfile
from tests.unit.pods_fakes import Harness, pod


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53 # ours\nsearch a.example b.example\noptions ndots:1\n")
    return Harness(tmp_path)


def _preview(harness: Harness, **options: Any) -> Preview:
    metadata = options.pop("metadata", "{name: web}")
    text = pod(**options).replace("{name: web}", metadata)
    (preview,) = harness.controller.preview(load_manifests([("a.yaml", text.encode())]))
    return preview


def test_names_labels_and_logs_are_those_of_the_kubelet(harness: Harness) -> None:
    preview = _preview(harness, metadata="{name: web, namespace: shop, labels: {tier: front}, annotations: {a: b}}")
    sandbox, (container,) = preview.sandbox, preview.containers
    uid = sandbox.metadata.uid
    assert (sandbox.metadata.name, sandbox.metadata.namespace) == ("web", "shop")
    labels = dict(sandbox.labels)
    assert labels["tier"] == "front"
    assert labels["io.kubernetes.pod.name"] == "web"
    assert labels["io.kubernetes.pod.namespace"] == "shop"
    assert labels["io.kubernetes.pod.uid"] == uid
    assert dict(sandbox.annotations) == {"a": "b"}
    assert sandbox.log_directory == str(harness.directory / "root" / "logs" / f"shop_web_{uid}")
    assert container.log_path == "app/0.log"
    assert dict(container.labels)["io.kubernetes.container.name"] == "app"
    assert sandbox.hostname == "web"


def test_commands_are_expanded(harness: Harness) -> None:
    preview = _preview(
        harness, container="command: [sh, -c, 'echo $(A)']\nargs: ['$$(A)', $(B)]\nenv: [{name: A, value: x}]"
    )
    assert preview.containers[0].command == ("sh", "-c", "echo x")
    assert preview.containers[0].args == ("$(A)", "$(B)")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", NamespaceOptions()),
        ("hostNetwork: true", NamespaceOptions(network=NamespaceMode.NODE)),
        ("hostPID: true", NamespaceOptions(pid=NamespaceMode.NODE)),
        ("hostIPC: true", NamespaceOptions(ipc=NamespaceMode.NODE)),
        ("shareProcessNamespace: true", NamespaceOptions(pid=NamespaceMode.POD)),
    ],
)
def test_namespaces(harness: Harness, spec: str, expected: NamespaceOptions) -> None:
    assert _preview(harness, spec=spec).sandbox.namespaces == expected


def test_host_ports(harness: Harness) -> None:
    ports = "ports: [{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1}, {containerPort: 53, protocol: UDP}]"
    assert _preview(harness, container=ports).sandbox.port_mappings == (PortMapping(80, 8080, "TCP", "127.0.0.1"),)
    same = "ports: [{containerPort: 80, hostPort: 80}]"
    preview = _preview(harness, container=same, spec="hostNetwork: true")
    assert preview.sandbox.port_mappings == ()
    assert preview.sandbox.hostname == "node"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", DNSConfig()),
        ("dnsPolicy: Default", DNSConfig()),
        (
            "dnsPolicy: None\ndnsConfig: {nameservers: [192.0.2.1], searches: [x.example],"
            " options: [{name: ndots, value: '5'}]}",
            DNSConfig(("192.0.2.1",), ("x.example",), ("ndots:5",)),
        ),
        (
            "dnsConfig: {nameservers: [192.0.2.1, 192.0.2.53], searches: [x.example],"
            " options: [{name: ndots, value: '2'}, {name: edns0}]}",
            DNSConfig(("192.0.2.53", "192.0.2.1"), ("a.example", "b.example", "x.example"), ("ndots:2", "edns0")),
        ),
    ],
)
def test_dns(harness: Harness, spec: str, expected: DNSConfig) -> None:
    assert _preview(harness, spec=spec).sandbox.dns == expected


def test_host_aliases_and_sysctls(harness: Harness) -> None:
    sandbox = _preview(
        harness,
        spec="hostAliases: [{ip: 192.0.2.9, hostnames: [db, db.local]}]\n"
        "securityContext: {sysctls: [{name: net.core.somaxconn, value: '512'}]}",
    ).sandbox
    assert sandbox.host_aliases == (("192.0.2.9", ("db", "db.local")),)
    assert sandbox.sysctls == (("net.core.somaxconn", "512"),)


def test_the_container_overrides_the_pod_field_by_field(harness: Harness) -> None:
    security = (
        _preview(
            harness,
            spec="securityContext: {runAsUser: 1000, runAsGroup: 1001, fsGroup: 2000, supplementalGroups: [7],"
            " seccompProfile: {type: Unconfined}, runAsNonRoot: true}",
            container="securityContext: {runAsUser: 1234, readOnlyRootFilesystem: true, allowPrivilegeEscalation:"
            " false, capabilities: {add: [NET_ADMIN], drop: [ALL]}}",
        )
        .containers[0]
        .security
    )
    assert (security.run_as_user, security.run_as_group, security.run_as_non_root) == (1234, 1001, True)
    assert security.supplemental_groups == (7, 2000)
    assert security.readonly_rootfs and security.no_new_privs and not security.privileged
    assert (security.add_capabilities, security.drop_capabilities) == (("NET_ADMIN",), ("ALL",))
    assert security.seccomp == SeccompProfile("Unconfined")
    assert security.masked_paths is None and security.readonly_paths is None


def test_security_defaults(harness: Harness) -> None:
    security = _preview(harness).containers[0].security
    assert security.seccomp == SeccompProfile("RuntimeDefault")
    assert not security.no_new_privs, "Kubernetes sets it only where allowPrivilegeEscalation is false"


def test_privileged_and_unmasked(harness: Harness) -> None:
    assert _preview(harness, container="securityContext: {privileged: true}").containers[0].security.seccomp.kind == (
        "Unconfined"
    )
    unmasked = (
        _preview(harness, container="securityContext: {privileged: true, procMount: Unmasked}").containers[0].security
    )
    assert unmasked.masked_paths == () and unmasked.readonly_paths == ()


def test_localhost_seccomp_stays_in_its_directory(harness: Harness) -> None:
    profile = "securityContext: {seccompProfile: {type: Localhost, localhostProfile: %s}}"
    security = _preview(harness, container=profile % "my/p.json").containers[0].security
    assert security.seccomp == SeccompProfile("Localhost", str(harness.directory / "root/seccomp/my/p.json"))
    with pytest.raises(InvalidInput):
        _preview(harness, container=profile % "../p.json")


def test_resources_qos_and_oom_score(harness: Harness) -> None:
    limits = "resources: {limits: {cpu: 500m, memory: 64Mi}}"
    preview = _preview(harness, container=limits)
    resources = preview.containers[0].resources
    assert preview.sandbox.qos_class == "Guaranteed"
    assert (resources.cpu_shares, resources.cpu_quota_us, resources.cpu_period_us) == (512, 50_000, 100_000)
    assert resources.memory_limit_bytes == 64 << 20
    assert preview.sandbox.resources.memory_limit_bytes == 64 << 20
    assert preview.containers[0].oom_score_adj == -997
    assert _preview(harness).sandbox.qos_class == "BestEffort"
    assert _preview(harness).containers[0].oom_score_adj == 1000


def test_limits_by_annotation(harness: Harness) -> None:
    preview = _preview(harness, metadata="{name: web, annotations: {sandbox/pids.app: '50'}}")
    assert preview.containers[0].resources.pids_limit == 50
    with pytest.raises(InvalidInput, match="no container 'nope'"):
        _preview(harness, metadata="{name: web, annotations: {sandbox/pids.nope: '50'}}")


def test_mounts(harness: Harness) -> None:
    (mount, memory, host) = (
        _preview(
            harness,
            spec="volumes: [{name: d, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}},"
            " {name: h, hostPath: {path: /tmp}}]",
            container="volumeMounts: [{name: d, mountPath: /data, subPathExpr: $(A)}, {name: m, mountPath: /mem},"
            " {name: h, mountPath: /host, readOnly: true, mountPropagation: HostToContainer}]\n"
            "env: [{name: A, value: inner}]",
        )
        .containers[0]
        .mounts
    )
    volumes = harness.directory / "root" / "volumes"
    assert mount.host_path.startswith(str(volumes)) and mount.host_path.endswith("/d")
    assert (mount.container_path, mount.sub_path, mount.readonly) == ("/data", "inner", False)
    assert memory.host_path.startswith(str(harness.directory / "run" / "volumes"))
    assert (host.host_path, host.readonly, host.propagation) == ("/tmp", True, Propagation.HOST_TO_CONTAINER)
    assert not volumes.exists(), "a preview makes nothing"


@pytest.mark.parametrize("expression", ["$(A)/x", "$(UNSET)"])
def test_sub_path_expressions_stay_inside(harness: Harness, expression: str) -> None:
    with pytest.raises(InvalidInput):
        _preview(
            harness,
            spec="volumes: [{name: d, emptyDir: {}}]",
            container=f"volumeMounts: [{{name: d, mountPath: /data, subPathExpr: {expression}}}]\n"
            "env: [{name: A, value: ../..}]",
        )


def test_terminal_and_stop_signal(harness: Harness) -> None:
    config = _preview(harness, container="tty: true\nstdin: true\nstdinOnce: true\nworkingDir: /srv").containers[0]
    assert (config.tty, config.stdin, config.stdin_once, config.working_dir) == (True, True, True, "/srv")
