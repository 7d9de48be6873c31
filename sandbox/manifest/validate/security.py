"""Security contexts of pods and containers."""

from __future__ import annotations

import re

from sandbox.manifest.kinds import nearest
from sandbox.manifest.models import core_v1
from sandbox.manifest.nodes import Path, quote
from sandbox.manifest.problems import Problems
from sandbox.manifest.validate.check import UID_MAX, check_choice, check_range, check_required, check_text, check_unique
from sandbox.manifest.validate.names import relative_path

_CAPABILITY_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
    "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE ALL"
)
CAPABILITIES = tuple(_CAPABILITY_NAMES.split())
"""capabilities(7), without CAP_, and ALL."""

_SYSCTL = re.compile(r"[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?(?:[./][a-z0-9*](?:[-_a-z0-9.*]*[a-z0-9*])?)*", re.ASCII)
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_NET_SYSCTLS = ("net.",)


def validate_pod_security(
    context: core_v1.PodSecurityContext | None, spec: core_v1.PodSpec, path: Path, problems: Problems
) -> None:
    if context is None:
        return
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        check_range(problems, (*path, field), getattr(context, field), 0, UID_MAX)
    for index, group in enumerate(context.supplementalGroups or []):
        check_range(problems, (*path, "supplementalGroups", index), group, 0, UID_MAX)
    check_choice(problems, (*path, "supplementalGroupsPolicy"), context.supplementalGroupsPolicy, ("Merge", "Strict"))
    check_choice(problems, (*path, "fsGroupChangePolicy"), context.fsGroupChangePolicy, ("Always", "OnRootMismatch"))
    _validate_seccomp(context.seccompProfile, (*path, "seccompProfile"), problems)
    _validate_sysctls(context.sysctls or [], spec, (*path, "sysctls"), problems)


def _validate_sysctls(sysctls: list[core_v1.Sysctl], spec: core_v1.PodSpec, path: Path, problems: Problems) -> None:
    for index, sysctl in enumerate(sysctls):
        where = (*path, index, "name")
        name = (sysctl.name or "").replace("/", ".")
        if not _SYSCTL.fullmatch(name) or len(name) > 253:
            problems.add(where, f'expected the name of a sysctl such as "net.core.somaxconn", got {quote(name)}')
        elif name.startswith(_NET_SYSCTLS):
            if spec.hostNetwork:
                problems.add(
                    where, f"the sysctl {quote(name)} is not allowed with hostNetwork, it would change the host"
                )
        elif name.startswith(_IPC_SYSCTLS):
            if spec.hostIPC:
                problems.add(where, f"the sysctl {quote(name)} is not allowed with hostIPC, it would change the host")
        else:
            problems.add(where, f"the sysctl {quote(name)} has no namespace of its own, it would change the host")
    named = (((*path, i, "name"), (s.name or "").replace("/", ".")) for i, s in enumerate(sysctls))
    check_unique(problems, named, "sysctl")


def _validate_seccomp(profile: core_v1.SeccompProfile | None, path: Path, problems: Problems) -> None:
    if profile is None:
        return
    check_choice(problems, (*path, "type"), profile.type, ("RuntimeDefault", "Unconfined", "Localhost"))
    where = (*path, "localhostProfile")
    if profile.type == "Localhost":
        if check_required(problems, where, profile.localhostProfile):
            check_text(problems, where, profile.localhostProfile, relative_path)
    elif profile.localhostProfile is not None:
        problems.add(where, f'expected only with type "Localhost", got type {quote(profile.type or "")}')


def validate_container_security(
    context: core_v1.SecurityContext | None,
    pod_context: core_v1.PodSecurityContext | None,
    path: Path,
    problems: Problems,
) -> None:
    user = (context and context.runAsUser) if context and context.runAsUser is not None else None
    non_root = context.runAsNonRoot if context else None
    if pod_context is not None:
        user = pod_context.runAsUser if user is None else user
        non_root = pod_context.runAsNonRoot if non_root is None else non_root
    if non_root and user == 0:
        problems.add((*path, "runAsNonRoot"), "runAsNonRoot is true and runAsUser is 0, which is root")
    if context is None:
        return
    for field in ("runAsUser", "runAsGroup"):
        check_range(problems, (*path, field), getattr(context, field), 0, UID_MAX)
    check_choice(problems, (*path, "procMount"), context.procMount, ("Default", "Unmasked"))
    _validate_seccomp(context.seccompProfile, (*path, "seccompProfile"), problems)
    _validate_capabilities(context.capabilities, (*path, "capabilities"), problems)
    if context.allowPrivilegeEscalation is False:
        added = {name.removeprefix("CAP_") for name in (context.capabilities and context.capabilities.add) or []}
        if context.privileged:
            problems.add(
                (*path, "allowPrivilegeEscalation"), "allowPrivilegeEscalation cannot be false when privileged is true"
            )
        elif "SYS_ADMIN" in added:
            problems.add(
                (*path, "allowPrivilegeEscalation"),
                "allowPrivilegeEscalation cannot be false when the capability SYS_ADMIN is added",
            )


def _validate_capabilities(capabilities: core_v1.Capabilities | None, path: Path, problems: Problems) -> None:
    for field in ("add", "drop"):
        for index, name in enumerate((capabilities and getattr(capabilities, field)) or []):
            bare = name.upper().removeprefix("CAP_")
            if bare not in CAPABILITIES:
                guess = nearest(bare, list(CAPABILITIES))
                suffix = f', did you mean "{guess}"?' if guess else ""
                problems.add((*path, field, index), f"unknown capability {quote(name)}{suffix}")
