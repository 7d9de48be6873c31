"""Every error: one sentence, an exit code, an HTTP status, a JSON form."""

from __future__ import annotations

import errno
import inspect
import json

import pytest

from sandbox import errors
from sandbox.errors import InvalidInput, ManifestError, NetworkError, SandboxError

CLASSES = [
    c
    for _, c in inspect.getmembers(errors, inspect.isclass)
    if issubclass(c, SandboxError) and c is not errors.ManifestErrors
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_maps_to_a_documented_exit_code_and_an_http_status(cls: type[SandboxError]) -> None:
    assert cls.exit_code in range(1, 7)
    assert 400 <= cls.http_status < 600
    assert cls.reason and cls.reason[0].isupper()
    assert cls.__doc__
    assert json.loads(json.dumps(cls("a sentence").to_json()))["message"] == "a sentence"


def test_reasons_are_unique() -> None:
    assert len({cls.reason for cls in CLASSES}) == len(CLASSES)


def test_an_errno_is_spelled_out() -> None:
    error = SandboxError("cannot mount /x", operation="mount", subject="/x", errno=errno.ENOENT, hint="make it")
    assert str(error) == "cannot mount /x: ENOENT (no such file or directory)"
    assert error.to_json() == {
        "reason": "InternalError",
        "message": str(error),
        "operation": "mount",
        "subject": "/x",
        "errno": 2,
        "hint": "make it",
        "exitCode": 1,
    }


def test_a_manifest_error_has_its_place() -> None:
    assert str(ManifestError("unknown field", file="a.yaml", line=3, column=7)) == "a.yaml:3:7: unknown field"
    assert str(ManifestError("too large", file="a.yaml")) == "a.yaml: too large"
    assert str(ManifestError("empty")) == "empty"
    assert isinstance(ManifestError("x"), InvalidInput)


def test_a_network_error_keeps_the_plugin_code() -> None:
    assert NetworkError("no address left", code=11, operation="ADD").code == 11
