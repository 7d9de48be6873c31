"""Records survive the database: what is written is what is read."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sandbox.cgroups.resources import CgroupResources, DeviceRule, IoLimit
from sandbox.runtime.codec import from_json, to_json
from sandbox.runtime.config import (
    ContainerConfig,
    ContainerSecurity,
    Mount,
    NamespaceMode,
    NamespaceOptions,
    PodSandboxConfig,
    PodSandboxMetadata,
    PortMapping,
    Propagation,
    SeccompProfile,
)

SANDBOX = PodSandboxConfig(
    metadata=PodSandboxMetadata("web", "u1", "team", 3),
    port_mappings=(PortMapping(80, 8080, "UDP", "127.0.0.1"),),
    host_aliases=(("10.0.0.1", ("a", "b")),),
    labels=(("app", "web"),),
    namespaces=NamespaceOptions(pid=NamespaceMode.POD),
    resources=CgroupResources(memory_limit_bytes=5, io_limits=(IoLimit(8, 16, read_bytes_per_second=1024),)),
)
CONTAINER = ContainerConfig(
    name="c",
    image="localhost/busybox",
    mounts=(Mount("/data", "/srv", readonly=True, propagation=Propagation.BIDIRECTIONAL),),
    resources=CgroupResources(device_rules=(DeviceRule(False), DeviceRule(True, "c", 1, 3, "rw"))),
    security=ContainerSecurity(masked_paths=(), run_as_user=0, seccomp=SeccompProfile("Localhost", "/p.json")),
)


@pytest.mark.parametrize("value", [SANDBOX, CONTAINER])
def test_round_trip(value: object) -> None:
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


def test_empty_and_absent_stay_apart() -> None:
    """`masked_paths=()` hides nothing; None hides the defaults: the stored form must keep the difference."""
    assert to_json(ContainerSecurity(masked_paths=())) == {"masked_paths": []}
    assert from_json(ContainerSecurity, {}).masked_paths is None


def test_a_record_of_an_older_release_gets_defaults_and_one_of_a_newer_is_read() -> None:
    data = to_json(CONTAINER)
    del data["mounts"]
    data["invented_later"] = 1
    assert from_json(ContainerConfig, data) == dataclasses.replace(CONTAINER, mounts=())
