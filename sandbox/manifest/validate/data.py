"""ConfigMap and Secret."""

from __future__ import annotations

import base64

from sandbox.manifest.models import ConfigMap, Secret
from sandbox.manifest.problems import Problems
from sandbox.manifest.validate.check import check_required
from sandbox.manifest.validate.names import config_key

_MAX_BYTES = 1 << 20

_REQUIRED_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
"""Secret types whose keys Kubernetes checks."""


def validate_config_map(config_map: ConfigMap, problems: Problems) -> None:
    total = 0
    for field in ("data", "binaryData"):
        for key, value in (getattr(config_map, field) or {}).items():
            if wrong := config_key(key):
                problems.add((field, key), wrong, key=True)
            total += len(value.encode()) if field == "data" else _decoded_length(value)
    for key in config_map.binaryData or {}:
        if key in (config_map.data or {}):
            problems.add(("binaryData", key), "duplicate key, it is in data as well", key=True)
    _check_size(total, problems)


def validate_secret(secret: Secret, problems: Problems) -> None:
    total = 0
    data = secret.data or {}
    for key, value in data.items():
        if wrong := config_key(key):
            problems.add(("data", key), wrong, key=True)
        total += _decoded_length(value)
    for key in _REQUIRED_KEYS.get(secret.type or "", ()):
        check_required(problems, ("data", key), data.get(key))
    _check_size(total, problems)


def _decoded_length(text: str) -> int:
    return len(base64.b64decode(text))


def _check_size(total: int, problems: Problems) -> None:
    if total > _MAX_BYTES:
        problems.add((), f"expected at most {_MAX_BYTES} bytes of data, got {total}")
