"""The pod as a whole (Kubernetes `pkg/apis/core/validation/validation.go`, ValidatePodSpec)."""

from __future__ import annotations

from sandbox.manifest.models import Pod, core_v1
from sandbox.manifest.nodes import Path, quote
from sandbox.manifest.problems import Problems
from sandbox.manifest.validate.check import (
    check_at_least,
    check_choice,
    check_range,
    check_required,
    check_text,
    check_unique,
)
from sandbox.manifest.validate.containers import validate_containers
from sandbox.manifest.validate.names import dns_label, dns_subdomain, ip_address
from sandbox.manifest.validate.security import validate_pod_security
from sandbox.manifest.validate.volumes import validate_volumes

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_DEADLINE_MAX = (1 << 31) - 1


def validate_pod(pod: Pod, problems: Problems) -> None:
    """Check a defaulted pod."""
    path: Path = ("spec",)
    if pod.spec is None:
        problems.add(path, "missing, it is required in Pod")
        return
    spec = pod.spec
    check_choice(problems, (*path, "restartPolicy"), spec.restartPolicy, RESTART_POLICIES)
    check_at_least(problems, (*path, "terminationGracePeriodSeconds"), spec.terminationGracePeriodSeconds, 0)
    deadline = (*path, "activeDeadlineSeconds")
    check_range(problems, deadline, spec.activeDeadlineSeconds, 1, _DEADLINE_MAX, " seconds")
    check_text(problems, (*path, "hostname"), spec.hostname, dns_label)
    check_text(problems, (*path, "subdomain"), spec.subdomain, dns_label)
    if spec.hostPID and spec.shareProcessNamespace:
        problems.add((*path, "shareProcessNamespace"), "shareProcessNamespace and hostPID cannot both be true")
    if spec.os is not None and spec.os.name != "linux":
        problems.add(
            (*path, "os", "name"), f"expected linux, this host runs no other system, got {quote(spec.os.name)}"
        )
    _validate_dns(spec, path, problems)
    _validate_host_aliases(spec.hostAliases or [], (*path, "hostAliases"), problems)
    validate_pod_security(spec.securityContext, spec, (*path, "securityContext"), problems)
    validate_volumes(spec.volumes or [], (*path, "volumes"), problems)
    validate_containers(spec, path, problems)


def _validate_dns(spec: core_v1.PodSpec, path: Path, problems: Problems) -> None:
    check_choice(problems, (*path, "dnsPolicy"), spec.dnsPolicy, DNS_POLICIES)
    config, where = spec.dnsConfig, (*path, "dnsConfig")
    servers = (config and config.nameservers) or []
    if spec.dnsPolicy == "None" and not servers:
        problems.add((*where, "nameservers"), "expected at least one name server with dnsPolicy None")
    if config is None:
        return
    for index, server in enumerate(servers):
        check_text(problems, (*where, "nameservers", index), server, ip_address)
    if len(servers) > 3:
        problems.add((*where, "nameservers"), f"expected at most 3 name servers, got {len(servers)}")
    searches = config.searches or []
    for index, search in enumerate(searches):
        check_text(problems, (*where, "searches", index), search, _search)
    if len(searches) > 32:
        problems.add((*where, "searches"), f"expected at most 32 search domains, got {len(searches)}")
    if len(" ".join(searches)) > 2048:
        problems.add((*where, "searches"), "expected at most 2048 characters of search domains")
    for index, option in enumerate(config.options or []):
        option_path = (*where, "options", index, "name")
        name = option.name or ""
        if check_required(problems, option_path, name) and any(c.isspace() for c in name + (option.value or "")):
            problems.add(option_path, f"expected an option without spaces, got {quote(name)}")


def _search(value: str) -> str:
    bare = value.removesuffix(".").replace("_", "-").lower()
    return dns_subdomain(bare) if bare else ""


def _validate_host_aliases(aliases: list[core_v1.HostAlias], path: Path, problems: Problems) -> None:
    for index, alias in enumerate(aliases):
        check_text(problems, (*path, index, "ip"), alias.ip, ip_address)
        for position, name in enumerate(alias.hostnames or []):
            check_text(problems, (*path, index, "hostnames", position), name, dns_subdomain)
    check_unique(problems, (((*path, i, "ip"), alias.ip) for i, alias in enumerate(aliases)), "address")
