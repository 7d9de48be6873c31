"""`sandbox images`, `sandbox load` and `sandbox rmi`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

import click

from sandbox.cli.client import target
from sandbox.cli.complete import image_names
from sandbox.cli.context import CliContext
from sandbox.cli.options import pass_context, with_output
from sandbox.cli.output import emit, emit_object, kind_list
from sandbox.cli.style import age, is_terminal, size, table, width
from sandbox.errors import InvalidInput

BLOCK_BYTES = 256 << 10
SHORT_ID = 12


def short(identifier: str) -> str:
    """The first digits of a digest, without its algorithm."""
    return identifier.rpartition(":")[2][:SHORT_ID]


@click.command()
@with_output("wide", "json", "yaml", "name")
@pass_context
def images(context: CliContext) -> None:
    """List the images in the store.

    \b
    Examples:
      sandbox images
      sandbox images -o name
    """
    items = context.client.get(target("v1", "images"))["items"]
    if context.output in ("json", "yaml"):
        emit_object(kind_list(items), context.output)
    elif context.output == "name":
        emit([name for image in items for name in image["names"] or [image["id"]]])
    elif items:
        wide = context.output == "wide"
        header = ["NAME", "ID", "SIZE", "AGE", *(["LAYERS"] if wide else [])]
        rows = [row for image in items for row in _rows(image, wide=wide)]
        emit(table(header, rows, columns=width()))
    else:
        click.echo("no images; `sandbox load FILE` adds one", err=True)


def _rows(image: dict[str, Any], *, wide: bool) -> list[list[str]]:
    identifier = image["id"] if wide else short(image["id"])
    created = str(image.get("created") or "")
    cells = [identifier, size(image["sizeBytes"]), age(created, time.time())]
    if wide:
        cells.append(str(len(image.get("layers") or ())))
    return [[name, *cells] for name in image["names"] or ["<none>"]]


@click.command()
@click.argument("source", metavar="FILE|DIR|-", type=click.Path())
@click.option("--name", metavar="REFERENCE", default="", help="Name the image; otherwise the archive's own names.")
@with_output("json", "yaml", "name")
@pass_context
def load(context: CliContext, source: str, name: str) -> None:
    """Load an image: an OCI layout or docker archive as a tar file, an OCI layout as a directory, or `-` for a tar
    stream on standard input. Starts a daemon when none answers.

    \b
    Examples:
      sandbox load busybox.tar
      podman save alpine | sandbox load -
      sandbox load ./layout --name localhost/app:1
    """
    from sandbox.cli.start import client_with_daemon

    path = target("v1", "images", "load", query=[("name", name)] if name else [])
    blocks = _archive(source)
    first = next(blocks, b"")  # what cannot be read is said before the daemon is asked
    client = client_with_daemon(context)
    with client.request("POST", path, content=_chain(first, blocks)) as response:
        loaded = response.json()["loaded"]
    if context.output in ("json", "yaml"):
        emit_object(kind_list(loaded), context.output)
        return
    for image in loaded:
        names = image["names"] or [image["id"]]
        emit(names if context.output == "name" else [f"{', '.join(names)} loaded ({size(image['sizeBytes'])})"])


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _archive(source: str) -> Iterator[bytes]:
    """The blocks of a tar stream. Raises InvalidInput when the source cannot be read."""
    try:
        if source == "-":
            if is_terminal(sys.stdin):
                raise InvalidInput("standard input is a terminal, not an image archive", operation="load image")
            yield from _blocks(sys.stdin.buffer, 0)
        elif os.path.isdir(source):  # noqa: PTH112 - pathlib costs 4 ms of start-up
            yield from _tar_of(source)
        else:
            with open(source, "rb") as file:  # noqa: PTH123
                yield from _blocks(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        if error.filename is None:
            raise
        raise InvalidInput(f"cannot read {source!r}", operation="load image", errno=error.errno or 0) from error


def _blocks(file: IO[bytes], total: int) -> Iterator[bytes]:
    """The file's blocks; a bar on a terminal when it is large enough to take a while."""
    if total < 64 * BLOCK_BYTES or not is_terminal(sys.stderr):
        while block := file.read(BLOCK_BYTES):
            yield block
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("sending", total=total)
        while block := file.read(BLOCK_BYTES):
            yield block
            progress.advance(task, len(block))


def _tar_of(directory: str) -> Iterator[bytes]:
    """A directory as a tar stream, made by a thread that is one pipe ahead of the reader."""
    import tarfile
    import threading

    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    failures: list[OSError] = []

    def write() -> None:
        try:
            with os.fdopen(write_end, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|") as archive:
                archive.add(directory, arcname=".")
        except BrokenPipeError:
            pass  # the reader gave up and says why itself
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    with os.fdopen(read_end, "rb") as pipe:
        yield from _blocks(pipe, 0)
    thread.join()
    if failures:
        raise failures[0]


@click.command()
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True, shell_complete=image_names)
@pass_context
def rmi(context: CliContext, references: tuple[str, ...]) -> int:
    """Remove images by name or id. An image that a container uses stays.

    \b
    Examples:
      sandbox rmi localhost/app:1
      sandbox rmi 3f2a9c81d0e4
    """
    from sandbox.cli.client import ApiError
    from sandbox.cli.report import print_errors

    code = 0
    for reference in references:
        try:
            removed = context.client.call("DELETE", target("v1", "images", query=[("reference", reference)]))["removed"]
        except ApiError as error:
            print_errors(error.errors)
            code = code or error.exit_code
            continue
        emit([f"{name} removed" for name in removed])
    return code
