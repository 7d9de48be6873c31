"""The API's own decisions: which container, which attempt, what is refused, how errors become responses."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from sandbox.daemon.api.app import SERVICES, errors_to_responses, flag, integer, number
from sandbox.daemon.api.apply import parse_apply, parse_files
from sandbox.daemon.api.exec import status_json
from sandbox.daemon.api.logs import choose_attempt, parse_since
from sandbox.daemon.api.targets import log_directory, target_of
from sandbox.daemon.config import Config
from sandbox.errors import Conflict, InvalidInput, ManifestError, ManifestErrors, NotFound, SandboxError


def pod(*, policy: str = "Always", phase: str = "Running", status: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {
            "restartPolicy": policy,
            "initContainers": [{"name": "init"}, {"name": "sidecar", "restartPolicy": "Always"}],
            "containers": [{"name": "main"}, {"name": "second"}],
        },
        "status": {"phase": phase, "containerStatuses": [{"name": "main", **(status or {})}]},
    }


def test_the_container_is_chosen_as_kubectl_does() -> None:
    assert target_of(pod()).name == "main"
    assert target_of(pod(), "second").name == "second"
    assert target_of(pod(), "init").is_init
    annotated = pod()
    annotated["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "second"}
    assert target_of(annotated).name == "second"
    with pytest.raises(NotFound) as caught:
        target_of(pod(), "thrid")
    assert "main, second, init, sidecar" in caught.value.hint


@pytest.mark.parametrize(
    ("policy", "phase", "state", "expected"),
    [
        ("Always", "Running", {"running": {}}, False),
        ("Always", "Running", {"terminated": {"exitCode": 1}}, False),
        ("Always", "Running", {"waiting": {"reason": "CrashLoopBackOff"}}, False),
        ("OnFailure", "Running", {"terminated": {"exitCode": 1}}, False),
        ("OnFailure", "Running", {"terminated": {"exitCode": 0}}, True),
        ("Never", "Running", {"terminated": {"exitCode": 1}}, True),
        ("Always", "Failed", {"terminated": {"exitCode": 1}}, True),
        ("Always", "Succeeded", {}, True),
    ],
)
def test_when_a_container_has_ended_for_good(policy: str, phase: str, state: dict[str, Any], expected: bool) -> None:
    assert target_of(pod(policy=policy, phase=phase, status={"state": state})).ended_for_good is expected


def test_an_init_container_ends_for_good_but_a_sidecar_does_not() -> None:
    body = pod()
    ended = {"state": {"terminated": {"exitCode": 0}}}
    body["status"]["initContainerStatuses"] = [{"name": "init", **ended}, {"name": "sidecar", **ended}]
    assert target_of(body, "init").ended_for_good
    assert not target_of(body, "sidecar").ended_for_good


def test_running_id() -> None:
    status = {"state": {"running": {}}, "containerID": "sandbox://abc"}
    assert target_of(pod(status=status)).running_id() == "abc"
    with pytest.raises(Conflict, match=r"'main' is not running \(waiting: CrashLoopBackOff\)"):
        target_of(pod(status={"state": {"waiting": {"reason": "CrashLoopBackOff"}}})).running_id()


RUNNING = {"state": {"running": {}}, "restartCount": 2, "containerID": "sandbox://2"}
LAST = {"terminated": {"exitCode": 1, "containerID": "sandbox://1"}}


def test_the_attempt_is_chosen_as_kubectl_does() -> None:
    target = target_of(pod(status={**RUNNING, "lastState": LAST}))
    assert choose_attempt(target, [1, 2], previous=False) == 2
    assert choose_attempt(target, [1, 2], previous=True) == 1
    # The next instance is being created: its log may be there already, the previous one is the one that ended.
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}, "restartCount": 2, "lastState": LAST}
    assert choose_attempt(target_of(pod(status=creating)), [1, 2], previous=True) == 1
    assert choose_attempt(target_of(pod(status=creating)), [0, 1], previous=False) == 1
    backing_off = {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "restartCount": 1,
        "lastState": LAST,
        "containerID": "sandbox://1",
    }
    assert choose_attempt(target_of(pod(status=backing_off)), [0, 1], previous=True) == 1
    assert choose_attempt(target_of(pod(status=backing_off)), [0, 1], previous=False) == 1


def test_no_log_to_show() -> None:
    with pytest.raises(NotFound, match="no previous instance"):
        choose_attempt(target_of(pod(status={**RUNNING, "restartCount": 0})), [0], previous=True)
    with pytest.raises(NotFound, match="no previous instance"):  # it was there, its file is not
        choose_attempt(target_of(pod(status={**RUNNING, "lastState": LAST})), [2], previous=True)
    with pytest.raises(Conflict, match="no log yet: ContainerCreating"):
        waiting = {"state": {"waiting": {"reason": "ContainerCreating"}}}
        choose_attempt(target_of(pod(status=waiting)), [], previous=False)


def test_log_directory() -> None:
    assert log_directory(Path("/r"), pod(), "main") == Path("/r/logs/default_web_u/main")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("45s", 45), ("1h30m", 5400), ("2d", 172800), ("1.5", 1.5), ("1m1s", 61)]
)
def test_since_as_a_duration(text: str, seconds: float) -> None:
    found = datetime.fromisoformat(parse_since(text))
    assert abs(datetime.now(UTC) - timedelta(seconds=seconds) - found) < timedelta(seconds=5)


def test_since_as_a_time() -> None:
    assert parse_since("") == ""
    assert parse_since("2026-01-31T12:00:00+02:00") == "2026-01-31T10:00:00.000000Z"
    assert parse_since("2026-01-31T12:00:00.25Z") == "2026-01-31T12:00:00.250000Z"
    for wrong in ("soon", "2026-01-31T12:00:00", "-5", "1x", "1h-"):
        with pytest.raises(InvalidInput):
            parse_since(wrong)


def test_apply_bodies() -> None:
    wanted = parse_apply({"files": [{"name": "a", "content": "x"}], "timeoutSeconds": 2, "rm": True, "wait": "done"})
    assert (wanted.files, wanted.timeout_s, wanted.remove, wanted.wait) == ((("a", b"x"),), 2.0, True, "done")
    assert parse_files({"files": [{"content": "x"}]}) == (("-", b"x"),)
    for wrong in (
        {},
        {"files": "x"},
        {"files": [{"content": 1}]},
        {"files": [{"content": "x", "more": 1}]},
        {"files": [{"content": "x"}] * 1001},
        {"files": [{"content": "x"}], "wait": True},
        {"files": [{"content": "x"}], "dryRun": "yes"},
        {"files": [{"content": "x"}], "timeoutSeconds": True},
        {"files": [{"content": "x"}], "timeoutSeconds": "nan"},
        {"files": [{"content": "x"}], "rm": True},
        {"files": [{"content": "x"}], "namespace": 3},
    ):
        with pytest.raises(InvalidInput):
            parse_apply(wrong)


def test_numbers_and_flags() -> None:
    assert (number(None, "n"), number("2.5", "n"), integer("7", "n"), integer(None, "n")) == (None, 2.5, 7, None)
    for function, value in ((number, "x"), (number, "inf"), (number, -1), (integer, "1.5"), (integer, True)):
        with pytest.raises(InvalidInput):
            function(value, "n")
    request = make_mocked_request("GET", "/?a&b=1&c=false&d=x")
    assert (flag(request, "a"), flag(request, "b"), flag(request, "c"), flag(request, "e")) == (
        True,
        True,
        False,
        False,
    )
    with pytest.raises(InvalidInput):
        flag(request, "d")


def test_the_status_of_an_exit_code() -> None:
    assert status_json(0)["status"] == "Success"
    assert status_json(7)["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


class _Services:
    config = Config()


def respond(error: BaseException) -> tuple[int, dict[str, Any]]:
    """What the middleware makes of a handler that raises."""

    async def handler(_request: web.Request) -> web.StreamResponse:
        raise error

    app = web.Application()
    app[SERVICES] = cast(Any, _Services())
    response = asyncio.run(errors_to_responses(make_mocked_request("GET", "/v1/x", app=app), handler))
    assert isinstance(response, web.Response) and response.text is not None
    return response.status, json.loads(response.text)


@pytest.mark.parametrize("cls", [SandboxError, *SandboxError.__subclasses__()])
def test_every_error_becomes_its_status_and_body(cls: type[SandboxError]) -> None:
    error = cls("it is wrong", operation="try", subject="x", hint="do not")
    status, body = respond(error)
    assert status == cls.http_status
    assert body == {"error": error.to_json()}


def test_all_errors_of_a_manifest_are_told() -> None:
    first, second = ManifestError("one", file="a", line=1, column=2), ManifestError("two", file="b", line=3, column=4)
    status, body = respond(ManifestErrors([first, second]))
    assert status == 400
    assert body["error"] == body["errors"][0] == first.to_json()
    assert body["errors"][1] == second.to_json()


def test_what_nobody_expected_is_an_internal_error_without_a_traceback() -> None:
    status, body = respond(ZeroDivisionError("division by zero"))
    assert status == 500
    assert body["error"]["message"] == "internal error: ZeroDivisionError('division by zero')"


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        (web.HTTPNotFound(), 404, "no such path '/v1/x'"),
        (web.HTTPMethodNotAllowed("PUT", ["GET"]), 405, "method not allowed"),
        (web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2), 413, "larger than 16777216 bytes"),
    ],
)
def test_refusals_of_the_library_speak_our_words(error: web.HTTPException, status: int, part: str) -> None:
    found, body = respond(error)
    assert found == status
    assert part in body["error"]["message"]


def test_a_connection_that_is_gone_is_nobodys_error() -> None:
    with pytest.raises(ConnectionResetError):
        respond(ConnectionResetError())
