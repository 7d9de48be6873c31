"""A stream that fails half way: an error line where it has a form for one, else a cut connection; never two answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientSession, web
from aiohttp.test_utils import TestServer

from sandbox.daemon.api.app import errors_to_responses, stream_ndjson
from sandbox.daemon.api.apply import _last_words
from sandbox.errors import Conflict


async def _items(failure: Exception) -> AsyncIterator[dict[str, Any]]:
    yield {"first": 1}
    raise failure


def _server(failure: Exception, **options: Any) -> TestServer:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await stream_ndjson(request, _items(failure), **options)

    app = web.Application(middlewares=[errors_to_responses])
    app.router.add_get("/", handler)
    return TestServer(app)


@pytest.mark.parametrize(("failure", "code"), [(Conflict("busy"), 4), (ValueError("oh"), 1)])
async def test_the_error_and_the_end_are_lines(failure: Exception, code: int) -> None:
    async with (
        _server(failure, last_words=_last_words) as server,
        ClientSession() as session,
        session.get(server.make_url("/")) as response,
    ):
        lines = [line async for line in response.content]
    assert lines[0] == b'{"first":1}\n'
    assert b'"type":"error"' in lines[1] and str(failure).encode() in lines[1]
    assert lines[2:] == [b'{"type":"end","exitCode":%d}\n' % code]


async def test_without_a_form_for_errors_the_stream_is_cut() -> None:
    async with _server(ValueError("oh")) as server, ClientSession() as session:
        with pytest.raises(ClientPayloadError):
            async with session.get(server.make_url("/")) as response:
                await response.read()
