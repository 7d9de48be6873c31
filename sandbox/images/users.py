"""Who a container runs as: names and numbers looked up in the image's /etc/passwd and /etc/group.

Source: OCI image-spec `config.md` (User), `api.proto` LinuxContainerSecurityContext and SupplementalGroupsPolicy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.errors import InvalidInput
from sandbox.images.model import Image
from sandbox.images.store import ImageStore

MAX_USER_ID = (1 << 31) - 1
"""Larger numbers wrap round to root in what reads them as signed (CVE-2024-40635)."""
MAX_DATABASE_BYTES = 4 << 20
MAX_SPEC_CHARACTERS = 512
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class ResolvedUser:
    """`groups` are the supplementary groups, the primary one first. `name` is "" where /etc/passwd has none."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str


@dataclass(frozen=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


ROOT = _Account("root", 0, 0, "/root")


def resolve_user(
    store: ImageStore,
    image: Image,
    spec: str | None = None,
    *,
    group: int | None = None,
    supplemental_groups: Sequence[int] = (),
    policy: str = "Merge",
) -> ResolvedUser:
    """What `spec` (`name|uid[:name|gid]`; None: the image's User, else root) means in this image.

    `group` overrides the primary group. `policy` Merge adds the groups in which /etc/group lists the user; Strict does
    not. A uid that /etc/passwd does not know is fine, a name that it does not know is not. Raises InvalidInput.
    """
    text = image.config.user if spec is None else spec
    if len(text) > MAX_SPEC_CHARACTERS:
        raise _invalid(text[:40] + "…", f"longer than {MAX_SPEC_CHARACTERS} characters")
    user, _, group_name = text.partition(":")
    account = _account(_accounts(store, image), user, text)
    groups = _groups(store, image) if group_name or policy == "Merge" else []
    gid = account.gid
    if group is not None:
        gid = _checked(group, "group")
    elif group_name:
        gid = _gid(groups, group_name, text)
    extra = [_checked(g, "supplemental group") for g in supplemental_groups]
    if policy == "Merge" and account.name:
        extra += sorted(g.gid for g in groups if account.name in g.members)
    return ResolvedUser(account.uid, gid, tuple(dict.fromkeys([gid, *extra])), account.name, account.home)


def _account(accounts: list[_Account], user: str, spec: str) -> _Account:
    if not user:
        return next((a for a in accounts if a.uid == 0), ROOT)
    if _NUMBER.fullmatch(user):
        uid = _number(user, spec)
        fallback = ROOT if uid == 0 else _Account("", uid, 0, "/")
        return next((a for a in accounts if a.uid == uid), fallback)
    for account in accounts:
        if account.name == user:
            return account
    if user == "root":
        return ROOT
    raise _invalid(spec, f"the image's /etc/passwd has no user {user!r}")


def _gid(groups: list[_Group], name: str, spec: str) -> int:
    if _NUMBER.fullmatch(name):
        return _number(name, spec)
    for group in groups:
        if group.name == name:
            return group.gid
    if name == "root":
        return 0
    raise _invalid(spec, f"the image's /etc/group has no group {name!r}")


def _number(text: str, spec: str) -> int:
    if len(text) > 10 or int(text) > MAX_USER_ID:
        raise _invalid(spec, f"{text[:40]} is larger than {MAX_USER_ID}")
    return int(text)


def _checked(number: int, what: str) -> int:
    if not 0 <= number <= MAX_USER_ID:
        raise InvalidInput(f"{what} {number} is not between 0 and {MAX_USER_ID}", operation="resolve user")
    return number


def _rows(store: ImageStore, image: Image, path: str, fields: int) -> list[list[str]]:
    content = store.read_file(image, path, MAX_DATABASE_BYTES) or b""
    rows = [line.split(":") for line in content.decode("utf-8", "surrogateescape").split("\n")]
    return [row for row in rows if len(row) >= fields and row[0]]


def _accounts(store: ImageStore, image: Image) -> list[_Account]:
    """Malformed lines are skipped, as the C library does; so are ids that are refused elsewhere."""
    return [
        _Account(row[0], int(row[2]), int(row[3]), row[5] or "/")
        for row in _rows(store, image, "/etc/passwd", 6)
        if _is_id(row[2]) and _is_id(row[3])
    ]


def _groups(store: ImageStore, image: Image) -> list[_Group]:
    return [
        _Group(row[0], int(row[2]), tuple(filter(None, row[3].strip().split(","))))
        for row in _rows(store, image, "/etc/group", 4)
        if _is_id(row[2])
    ]


def _is_id(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and len(text) <= 10 and int(text) <= MAX_USER_ID


def _invalid(spec: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"user {spec!r} is invalid: {why}",
        operation="resolve user",
        subject=spec,
        hint="use uid[:gid], or names of the image's /etc/passwd and /etc/group",
    )
