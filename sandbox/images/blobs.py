"""The content store: blobs by digest, hashed while they are written, visible only when whole.

`blobs/sha256/<hex>` holds blobs; `staging/` what is on its way. A rename is the only way from one to the other, so a
crash leaves staging directories, which the next start removes, and never half a blob. Nothing is fsync'ed: after a
power cut the store is checked against the database, and what is missing is loaded again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import StateError
from sandbox.images.reference import is_digest


@dataclass(frozen=True)
class StagedBlob:
    """A file in a staging directory, with the digest and size that were counted while it was written."""

    path: Path
    digest: str
    size_bytes: int


class BlobStore:
    """Owns `root`/blobs and `root`/staging. Its methods may be called from threads."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._staging = root / "staging"
        for directory in (self._blobs, self._staging):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        assert is_digest(digest), digest
        return self._blobs / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def digests(self) -> Iterator[str]:
        """Every blob that is whole."""
        with os.scandir(self._blobs) as entries:
            for entry in entries:
                if is_digest(f"sha256:{entry.name}"):
                    yield f"sha256:{entry.name}"

    def delete(self, digest: str) -> None:
        """Idempotent."""
        self.path(digest).unlink(missing_ok=True)

    def adopt(self, staged: StagedBlob) -> None:
        """Makes a staged blob visible under its digest. Idempotent: the same content may be there already."""
        if not self.has(staged.digest):
            staged.path.rename(self.path(staged.digest))

    def put(self, content: bytes) -> str:
        """Stores `content` made here (a manifest for an archive that had none); returns its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        with self.staging() as directory:
            path = directory / "blob"
            path.write_bytes(content)
            self.adopt(StagedBlob(path, digest, len(content)))
        return digest

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty directory on the same file system, gone afterwards with all that was not adopted."""
        directory = self._staging / secrets.token_hex(8)
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def sweep_staging(self) -> None:
        """At start only: removes what a killed daemon left."""
        for entry in self._staging.iterdir():
            shutil.rmtree(entry, ignore_errors=True)


class BlobWriter:
    """Writes a new file while hashing it. Use `finish` once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Raises StateError when the disk refuses."""
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise StateError(
                f"the image store cannot be written at {self._path.parent}",
                operation="write blob",
                subject=str(self._path),
                errno=error.errno or 0,
                hint="make room on the file system of the state directory",
            ) from error
        self._hash.update(data)
        self._size += len(data)

    def finish(self) -> StagedBlob:
        self._file.close()
        return StagedBlob(self._path, f"sha256:{self._hash.hexdigest()}", self._size)

    def close(self) -> None:
        """For when it is not finished. Idempotent."""
        self._file.close()
