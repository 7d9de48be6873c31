"""Image references: `[domain[:port]/]path[:tag][@digest]`, normalised as Docker does.

Source: the grammar of distribution/reference (`reference.go`), and its familiar-name rules (`normalize.go`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandbox.errors import InvalidInput

DEFAULT_DOMAIN = "docker.io"
LOCAL_DOMAIN = "localhost"
MAX_NAME_CHARACTERS = 255
MAX_REFERENCE_CHARACTERS = 512

_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_PATH_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A normalised reference. `tag` is "latest" where neither tag nor digest was given, "" beside a lone digest."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """`domain/path`."""
        return f"{self.domain}/{self.path}"

    @property
    def name(self) -> str:
        """`domain/path:tag`; "" where only a digest was given."""
        return f"{self.repository}:{self.tag}" if self.tag else ""

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 hexadecimal digits, the only digest that is spoken here."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: object, what: str) -> str:
    """`text`, when it is a digest. Raises InvalidInput."""
    if not isinstance(text, str) or not is_digest(text):
        raise InvalidInput(f"{what} has digest {text!r}, expected sha256: and 64 hexadecimal digits", subject=what)
    return text


def parse_reference(text: str) -> Reference:
    """The normalised form of what a user wrote. Raises InvalidInput."""
    if len(text) > MAX_REFERENCE_CHARACTERS:
        raise _invalid(text[:64] + "…", f"longer than {MAX_REFERENCE_CHARACTERS} characters")
    if not text:
        raise _invalid(text, "empty")
    if _BARE_ID.fullmatch(text):
        raise _invalid(text, "64 hexadecimal digits are an image id, not a name")
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, f"digest {digest!r} is not sha256: and 64 hexadecimal digits")
    domain, path_and_tag = _split_domain(rest)
    path, colon, tag = path_and_tag.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text, f"tag {tag!r} is not 1 to 128 letters, digits, '_', '.' and '-'")
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(text, f"{domain!r} is not a registry name")
    if path != path.lower():
        raise _invalid(text, "the repository name must be lower case")
    if not _PATH.fullmatch(path):
        raise _invalid(text, f"{path!r} is not a repository name")
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    if len(domain) + 1 + len(path) > MAX_NAME_CHARACTERS:
        raise _invalid(text, f"the repository name is longer than {MAX_NAME_CHARACTERS} characters")
    return Reference(domain, path, tag or ("" if digest else "latest"), digest)


def _split_domain(text: str) -> tuple[str, str]:
    """The first component is a registry when it has a dot or a port, is localhost, or has an upper-case letter."""
    first, slash, rest = text.partition("/")
    if not slash or not (set(first) & set(".:[") or first == LOCAL_DOMAIN or first != first.lower()):
        return DEFAULT_DOMAIN, text
    return (DEFAULT_DOMAIN if first == "index.docker.io" else first), rest


def _invalid(text: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"image reference {text!r} is invalid: {why}",
        operation="parse image reference",
        subject=text,
        hint="a reference is [registry[:port]/]name[:tag][@sha256:digest], such as localhost/busybox:latest",
    )
