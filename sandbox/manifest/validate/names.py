"""The syntaxes of names (apimachinery `pkg/util/validation/validation.go`).

Each function returns what is wrong, as the rest of a sentence after the path, or an empty string.
"""

from __future__ import annotations

import ipaddress
import re

from sandbox.manifest.nodes import quote

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*", re.ASCII)
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+", re.ASCII)
_PORT_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9])*", re.ASCII)
_ENV_NAME = re.compile(r"[ -<>-~]+")


def dns_label(value: str) -> str:
    """RFC 1123 label: names of containers, volumes, namespaces, hosts."""
    if len(value) > 63:
        return f"expected at most 63 characters, got {len(value)}"
    if _LABEL.fullmatch(value):
        return ""
    return f"expected lower case letters, digits and inner '-' (a DNS label), got {quote(value)}"


def dns_subdomain(value: str) -> str:
    """RFC 1123 subdomain: names of pods, config maps, secrets."""
    if len(value) > 253:
        return f"expected at most 253 characters, got {len(value)}"
    if _SUBDOMAIN.fullmatch(value):
        return ""
    return f"expected lower case letters, digits, inner '-' and '.' (a DNS name), got {quote(value)}"


def qualified_name(value: str) -> str:
    """Keys of labels and annotations, names of resources: `[prefix.example.com/]name`."""
    prefix, slash, name = value.rpartition("/")
    if slash:
        wrong = dns_subdomain(prefix)
        if wrong:
            return f"expected a DNS name before the '/' of {quote(value)}"
    if len(name) > 63:
        return f"expected at most 63 characters after any '/', got {len(name)}"
    if _QUALIFIED.fullmatch(name):
        return ""
    return f"expected letters, digits and inner '-', '_' or '.', got {quote(value)}"


def label_value(value: str) -> str:
    if len(value) > 63:
        return f"expected at most 63 characters, got {len(value)}"
    if not value or _QUALIFIED.fullmatch(value):
        return ""
    return f"expected letters, digits and inner '-', '_' or '.' in the value of a label, got {quote(value)}"


def config_key(value: str) -> str:
    """Keys of config maps and secrets."""
    if len(value) > 253:
        return f"expected at most 253 characters, got {len(value)}"
    if value in (".", "..") or value.startswith(".."):
        return f"expected a key that does not begin with '..', got {quote(value)}"
    if _CONFIG_KEY.fullmatch(value):
        return ""
    return f"expected letters, digits, '-', '_' and '.', got {quote(value)}"


def port_name(value: str) -> str:
    """RFC 6335 service name."""
    if len(value) > 15:
        return f"expected at most 15 characters, got {len(value)}"
    if _PORT_NAME.fullmatch(value) and any(c.isalpha() for c in value):
        return ""
    return f"expected lower case letters, digits and single inner '-' with at least one letter, got {quote(value)}"


def env_name(value: str) -> str:
    if _ENV_NAME.fullmatch(value):
        return ""
    return f"expected printable ASCII characters other than '=', got {quote(value)}"


def ip_address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return f"expected an IP address, got {quote(value)}"
    return ""


def relative_path(value: str) -> str:
    """A path that cannot leave the directory it is taken from."""
    if value.startswith("/"):
        return f"expected a relative path, got {quote(value)}"
    if ".." in value.split("/"):
        return f"expected a path without '..', got {quote(value)}"
    if "\0" in value:
        return "expected a path without NUL characters"
    return ""
