"""Images: list, load from a tar stream, remove."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from typing import IO, Any, BinaryIO, cast

from aiohttp import web

from sandbox.daemon.api.app import SERVICES, protect
from sandbox.daemon.wiring import Services
from sandbox.errors import ImageNotFound, InvalidInput, StateError
from sandbox.images.model import Image

routes = web.RouteTableDef()


def image_json(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "names": list(image.names),
        "digests": list(image.digests),
        "sizeBytes": image.size_bytes,
        "created": image.created,
        "layers": list(image.layers),
    }


@routes.get("/v1/images")
async def list_images(request: web.Request) -> web.Response:
    return web.json_response({"items": [image_json(i) for i in request.app[SERVICES].images.list_images()]})


@routes.post("/v1/images/load")
async def load(request: web.Request) -> web.Response:
    """The body is spooled to an unnamed file first: a client that stalls or breaks off holds up nobody."""
    services = request.app[SERVICES]
    spool = tempfile.TemporaryFile(dir=services.config.root)  # noqa: SIM115 - `_load` closes it, maybe after us
    try:
        await _spool(request, spool, services.config.image_max_bytes)
    except BaseException:
        spool.close()
        raise
    images = await protect(request, _load(services, spool, request.query.get("name", "")))
    return web.json_response({"loaded": [image_json(image) for image in images]})


async def _load(services: Services, spool: IO[bytes], name: str) -> list[Image]:
    """Owns `spool`."""
    with spool:
        images = await services.images.load(cast("BinaryIO", spool), name=name)
    for image in images:
        label = image.names[0] if image.names else image.id
        services.events.record("Loaded", f"loaded image {image.id}", kind="Image", name=label)
    return images


async def _spool(request: web.Request, spool: IO[bytes], limit: int) -> None:
    size = 0
    try:
        async for block in request.content.iter_chunked(1 << 20):
            size += len(block)
            if size > limit:
                raise InvalidInput(
                    f"the image archive is larger than {limit} bytes",
                    operation="load image",
                    hint="raise images.max_bytes in the daemon's configuration",
                )
            await asyncio.to_thread(spool.write, block)
        spool.flush()
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        raise StateError(
            "the image archive cannot be stored", operation="load image", errno=error.errno or 0
        ) from error
    if size == 0:
        raise InvalidInput("the request body is empty: an image archive was expected", operation="load image")
    spool.seek(0, os.SEEK_SET)


@routes.delete("/v1/images")
async def remove(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    reference = request.query.get("reference", "")
    if not reference:
        raise InvalidInput("query parameter reference is missing", operation="remove image")
    removed = await protect(request, services.images.remove(reference, in_use=_in_use(services)))
    services.events.record("Removed", f"removed {', '.join(removed)}", kind="Image", name=reference)
    return web.json_response({"removed": removed})


def _in_use(services: Services) -> set[str]:
    """Ids of the images of every container, and of pods that may make one yet."""
    used = {status.image_id for status in services.runtime.list_containers()}
    for reference in services.controller.images_in_use():
        with suppress(ImageNotFound):
            used.add(services.images.resolve(reference).id)
    return used
