"""Image references: Docker's normalisation, and no other text gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import InvalidInput
from sandbox.images.reference import parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest"),
        ("user/app", "docker.io/user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("localhost/busybox", "localhost/busybox:latest"),
        ("localhost:5000/busybox:v1", "localhost:5000/busybox:v1"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ("host:5000/a/b/c", "host:5000/a/b/c:latest"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("[::1]:5000/app:x", "[::1]:5000/app:x"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}"),
        (f"quay.io/a/b:tag@{DIGEST}", f"quay.io/a/b:tag@{DIGEST}"),
        ("a/b__c-d.e--f", "docker.io/a/b__c-d.e--f:latest"),
        ("Host/app", "Host/app:latest"),
    ],
)
def test_normalisation(text: str, normalised: str) -> None:
    assert str(parse_reference(text)) == normalised
    assert parse_reference(normalised) == parse_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "/", "@", "a:", "a@", "a/", "/a", "a//b", "A", "a/B", "a b", "a\n", "a:b\n", "a:-x", "a:" + "t" * 129,
        "a@sha256:12", "a@sha512:" + "a" * 128, "a@" + DIGEST.upper(), "a" * 300, "x" * 600, "a" * 64, "-a", "a-",
        "a..b", "a___b", "host:port/a", "host:123456/a", "http://a/b", "../etc", "a/../b", "localhost/", "ä",
        "a:ä", "a\0b",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_reference(text)
    assert caught.value.exit_code == 2
    assert caught.value.hint


_component = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True).filter(lambda c: len(c) <= 20)
_tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(
    domain=st.sampled_from(["quay.io", "localhost", "localhost:5000", "10.0.0.1:80", "a.b.c"]),
    path=st.lists(_component, min_size=1, max_size=4),
    tag=st.none() | _tag,
    digest=st.none() | st.just(DIGEST),
)
def test_every_legal_reference_comes_back(domain: str, path: list[str], tag: str | None, digest: str | None) -> None:
    text = f"{domain}/{'/'.join(path)}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    parsed = parse_reference(text)
    assert (parsed.domain, parsed.path, parsed.digest) == (domain, "/".join(path), digest or "")
    assert parsed.tag == (tag or ("" if digest else "latest"))
    assert parse_reference(str(parsed)) == parsed


@given(st.text(max_size=80) | st.text(alphabet="aA0:/@.-_[]", max_size=40))
def test_any_text_is_refused_or_stable(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except InvalidInput:
        return
    assert parse_reference(str(parsed)) == parsed
    assert ".." not in str(parsed).split("/")
    assert str(parsed).isascii()
    assert not any(c.isspace() for c in str(parsed))
