"""The image store: archives loaded, names resolved, images removed.

An image becomes visible by one write to the database, after its blobs and layers are in place; it is removed by one
write before they go. What neither the database nor a load under way refers to is swept.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from sandbox.errors import Conflict, ImageNotFound, InvalidInput
from sandbox.images.archive import Archive, DirectoryArchive, TarArchive
from sandbox.images.blobs import BlobStore
from sandbox.images.layers import LayerStore, in_thread
from sandbox.images.manifest import FoundImage, find_images
from sandbox.images.model import Image, ImageConfig, ImageRecord, Layer
from sandbox.images.readfile import read_file
from sandbox.images.reference import is_digest, parse_reference
from sandbox.images.streams import UnpackLimits
from sandbox.store.database import Database

__all__ = ["Image", "ImageConfig", "ImageStore"]

KIND = "images"
MIN_ID_DIGITS = 12
_ID = re.compile(r"[0-9a-f]{64}")
_ID_PREFIX = re.compile(rf"[0-9a-f]{{{MIN_ID_DIGITS},64}}")
log = logging.getLogger(__name__)


class ImageStore:
    """Owns the directory `root` and the records of kind "images". One process, one event loop."""

    def __init__(self, root: Path, database: Database, limits: UnpackLimits | None = None) -> None:
        """Removes what a killed daemon left half done, and records whose files are gone."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = database
        self._limits = limits or UnpackLimits()
        self._blobs = BlobStore(root)
        self._layers = LayerStore(root, self._limits)
        self._pins: Counter[str] = Counter()
        self._records = {id: ImageRecord.from_json(body) for id, body in database.all(KIND)}
        self._images: dict[str, Image] = {}
        self._drop_broken()
        self._blobs.sweep_staging()
        self._layers.discard([*self._layers.temporaries(), *self._set_unreferenced_aside()])

    # Reading

    def list_images(self) -> list[Image]:
        """In the order in which they were loaded first."""
        return [self._image(record) for record in self._records.values()]

    def resolve(self, reference: str) -> Image:
        """The image of a name, `name@digest`, id, id prefix (12 digits or more) or manifest digest.

        Raises InvalidInput (no reference, or an ambiguous prefix), ImageNotFound with the nearest known names.
        """
        return self._image(self._find(reference))

    def read_file(self, image: Image, path: str, limit: int) -> bytes | None:
        """The content of a regular file in the image's root file system; see `readfile.read_file`."""
        return read_file(image.layers, path, limit)

    def _image(self, record: ImageRecord) -> Image:
        if record.id not in self._images:
            # A layer that occurs twice counts where it is topmost; overlayfs refuses it twice.
            diff_ids = list(dict.fromkeys(layer.diff_id for layer in reversed(record.layers)))[::-1]
            self._images[record.id] = Image(
                id=record.id,
                names=record.names,
                digests=record.repo_digests,
                size_bytes=record.size_bytes,
                created=record.created,
                config=record.config,
                layers=tuple(str(self._layers.path(diff_id)) for diff_id in diff_ids),
            )
        return self._images[record.id]

    def _find(self, text: str) -> ImageRecord:
        if text in self._records:
            return self._records[text]
        if is_digest(text):
            for record in self._records.values():
                if text in record.manifests:
                    return record
            raise self._not_found(text)
        found = self._find_name(text)
        if found is not None:
            return found
        if _ID_PREFIX.fullmatch(text):
            matches = [record for id, record in self._records.items() if id.startswith(f"sha256:{text}")]
            if len(matches) > 1:
                raise InvalidInput(f"image id {text} is ambiguous", operation="resolve image", subject=text)
            if matches:
                return matches[0]
        raise self._not_found(text)

    def _find_name(self, text: str) -> ImageRecord | None:
        if _ID.fullmatch(text):
            return None  # an id without its prefix; not a legal name
        wanted = parse_reference(text)
        for record in self._records.values():
            if wanted.digest:
                if f"{wanted.repository}@{wanted.digest}" in record.repo_digests:
                    return record
            elif wanted.name in record.names:
                return record
        return None

    def _not_found(self, text: str) -> ImageNotFound:
        known = [name for record in self._records.values() for name in record.names]
        short = {name.rsplit("/", 1)[-1]: name for name in reversed(known)}
        asked = text if ":" in text.rsplit("/", 1)[-1] else f"{text}:latest"
        near = difflib.get_close_matches(asked, known, 3, 0.7)
        near += [short[s] for s in difflib.get_close_matches(asked.rsplit("/", 1)[-1], short, 3, 0.7)]
        hint = "load it with `sandbox load FILE` from a docker-archive or OCI archive"
        if near:
            hint = f"did you mean {' or '.join(dict.fromkeys(near))}? Otherwise {hint}"
        return ImageNotFound(f"image {text!r} is not in the store", operation="resolve image", subject=text, hint=hint)

    # Loading

    async def load(self, source: BinaryIO | Path, name: str = "") -> list[Image]:
        """Loads every image of an OCI layout or docker-archive: a directory, a tar, or a stream read once to its end.

        `name` is an additional name for the one image that the archive then has to hold. A name that another image had
        moves to the new one. Idempotent. Raises InvalidInput, UnsupportedByHost, StateError; nothing is left then.
        """
        wanted_name = _tag_name(name) if name else ""
        stop = threading.Event()
        async with self._collecting(), self._staging() as staging:
            found = await in_thread(stop, lambda: find_images(self._open(source, staging, stop)))
            if wanted_name and len(found) != 1:
                raise InvalidInput(
                    f"the archive holds {len(found)} images, so {name} cannot be the name of each",
                    operation="load image",
                    subject=name,
                )
            names = [_names_of(image, wanted_name) for image in found]
            pinned = Counter(key for image in found for key in _keys(image))
            self._pins += pinned
            try:
                records = [await self._install(image, stop) for image in found]
                with self._database.transaction():
                    ids = [self._publish(record, more) for record, more in zip(records, names, strict=True)]
                return [self._image(self._records[id]) for id in ids]
            finally:
                self._pins -= pinned

    def _open(self, source: BinaryIO | Path, staging: Path, stop: threading.Event) -> Archive:
        if not isinstance(source, Path):
            return TarArchive(source, staging, self._limits, stop)
        try:
            if source.is_dir():
                return DirectoryArchive(source, staging, self._limits, stop)
            with source.open("rb", buffering=0) as file:
                return TarArchive(file, staging, self._limits, stop)
        except FileNotFoundError as error:
            raise InvalidInput(f"there is no {source}", operation="load image", subject=str(source)) from error
        except OSError as error:
            raise InvalidInput(
                f"{source} cannot be read", operation="load image", subject=str(source), errno=error.errno or 0
            ) from error

    async def _install(self, image: FoundImage, stop: threading.Event) -> ImageRecord:
        """Puts blobs and layers in place; not visible yet."""
        manifest = image.manifest.digest if image.manifest else self._blobs.put(image.made_manifest)
        for staged in (image.config_blob, image.manifest, *(layer.blob for layer in image.layers)):
            if staged is not None:
                self._blobs.adopt(staged)
        wanted = {layer.diff_id: self._blobs.path(layer.blob.digest) for layer in image.layers}
        tasks = [asyncio.ensure_future(self._layers.ensure(diff_id, blob, stop)) for diff_id, blob in wanted.items()]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            stop.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        return ImageRecord(
            id=image.config_blob.digest,
            manifests=(manifest,),
            layers=tuple(Layer(part.diff_id, part.blob.digest, part.blob.size_bytes) for part in image.layers),
            config=image.parsed.config,
            created=image.parsed.created,
            config_size_bytes=image.config_blob.size_bytes,
            manifest_bytes=image.manifest.size_bytes if image.manifest else len(image.made_manifest),
        )

    def _publish(self, new: ImageRecord, names: tuple[str, ...]) -> str:
        """The one write that makes it visible; what an earlier load said of the same image is kept."""
        for other in list(self._records.values()):
            if other.id != new.id and set(names) & set(other.names):
                self._put(replace(other, names=tuple(name for name in other.names if name not in names)))
        repositories = {parse_reference(name).repository for name in names}
        old = self._records.get(new.id, new)
        self._put(
            replace(
                old,
                names=tuple(dict.fromkeys((*old.names, *names))),
                manifests=tuple(dict.fromkeys((*old.manifests, *new.manifests))),
                repo_digests=tuple(
                    dict.fromkeys((*old.repo_digests, *(f"{r}@{new.manifests[0]}" for r in sorted(repositories))))
                ),
            )
        )
        return new.id

    def _put(self, record: ImageRecord) -> None:
        self._database.put(KIND, record.id, record.to_json())
        self._records[record.id] = record
        self._images.pop(record.id, None)

    # Removing

    async def remove(self, reference: str, in_use: Collection[str] = ()) -> list[str]:
        """Takes a name away, and the image with its last name; by id, the image with all its names.

        `in_use` are the ids of images that containers have. Returns what went: names, and the id when the image did.
        Raises ImageNotFound, and Conflict when the image is in use and would go.
        """
        record = self._find(reference)
        name = _named(reference, record)
        rest = tuple(n for n in record.names if n != name) if name else ()
        if rest:
            self._put(replace(record, names=rest))
            return [name]
        if record.id in in_use:
            raise Conflict(
                f"image {reference} is used by a container",
                operation="remove image",
                subject=record.id,
                hint="remove the pods that use it first (`sandbox ps`)",
            )
        async with self._collecting():
            self._database.delete(KIND, record.id)
            del self._records[record.id]
            self._images.pop(record.id, None)
        return [*record.names, record.id]

    @asynccontextmanager
    async def _collecting(self) -> AsyncIterator[None]:
        """Afterwards nothing unreferenced is left, however the block ended. The slow part runs in a thread."""
        try:
            yield
        finally:
            aside = self._set_unreferenced_aside()
            if aside:
                await asyncio.to_thread(self._layers.discard, aside)

    @asynccontextmanager
    async def _staging(self) -> AsyncIterator[Path]:
        """`BlobStore.staging`, the removal of what was not adopted in a thread."""
        context = self._blobs.staging()
        directory = context.__enter__()
        try:
            yield directory
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)

    def _set_unreferenced_aside(self) -> list[Path]:
        """Deletes blobs and renames layers that no record and no load under way refers to."""
        blobs = {digest for record in self._records.values() for digest in record.blobs()} | self._pins.keys()
        for digest in list(self._blobs.digests()):
            if digest not in blobs:
                self._blobs.delete(digest)
        diff_ids = {layer.diff_id for record in self._records.values() for layer in record.layers}
        return self._layers.set_aside(diff_ids | self._pins.keys())

    def _drop_broken(self) -> None:
        for id, record in list(self._records.items()):
            missing = [d for d in record.blobs() if not self._blobs.has(d)]
            missing += [layer.diff_id for layer in record.layers if not self._layers.has(layer.diff_id)]
            if missing:
                log.warning("image %s is dropped: %s is missing from the store", id, missing[0])
                self._database.delete(KIND, id)
                del self._records[id]


def _keys(image: FoundImage) -> set[str]:
    """Digests and diff_ids that must not be swept while the image is being loaded."""
    blobs = [image.config_blob, *([image.manifest] if image.manifest else []), *(layer.blob for layer in image.layers)]
    return {blob.digest for blob in blobs} | {layer.diff_id for layer in image.layers}


def _tag_name(text: str) -> str:
    reference = parse_reference(text)
    if reference.digest:
        raise InvalidInput(f"{text!r} has a digest, and cannot be a name to give", operation="load image", subject=text)
    return reference.name


def _names_of(image: FoundImage, more: str) -> tuple[str, ...]:
    names = [parse_reference(name) for name in image.names]
    return tuple(dict.fromkeys([*(n.name for n in names if n.name), *([more] if more else [])]))


def _named(reference: str, record: ImageRecord) -> str:
    """The one name that `reference` is, or "" where it means the image itself."""
    if is_digest(reference) or _ID.fullmatch(reference):
        return ""
    parsed = parse_reference(reference)
    return parsed.name if not parsed.digest and parsed.name in record.names else ""
