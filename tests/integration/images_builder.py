"""Images made by hand: tars entry by entry, OCI layouts and docker-archives as dictionaries of files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from sandbox.images.model import host_architectures

OCI = "application/vnd.oci.image."


def entry(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """One tar entry; `fields` are attributes of TarInfo."""
    member = tarfile.TarInfo(name)
    member.type, member.size, member.mode = kind, len(content), 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(member, key, value)
    return member, content


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.SYMTYPE, linkname=target, **fields)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.LNKTYPE, linkname=target)


def make_tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An uncompressed tar in pax format."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in entries:
            tar.addfile(member, io.BytesIO(content))
    return output.getvalue()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def to_json(document: Any) -> bytes:
    return json.dumps(document).encode()


class OciLayout:
    """The files of an OCI layout; add images, damage what you like, then take it as a tar or a directory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.entries: list[dict[str, Any]] = []

    def blob(self, content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = digest_of(content)
        self.files[f"blobs/sha256/{digest[7:]}"] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content), **more}

    def manifest(
        self, *layers: bytes, config: dict[str, Any] | None = None, compress: bool = True, **document: Any
    ) -> dict[str, Any]:
        """Adds an image's blobs; returns the descriptor of its manifest, not listed in the index yet."""
        body = {"os": "linux", "architecture": host_architectures()[0], "config": config or {}}
        body["rootfs"] = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
        suffix = "+gzip" if compress else ""
        parts = [
            self.blob(gzip.compress(layer, mtime=0) if compress else layer, f"{OCI}layer.v1.tar{suffix}")
            for layer in layers
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": self.blob(to_json({**body, **document.pop("image", {})}), f"{OCI}config.v1+json"),
            "layers": parts,
            **document,
        }
        return self.blob(to_json(manifest), str(manifest["mediaType"]))

    def add(self, *layers: bytes, name: str = "", **arguments: Any) -> str:
        """An image listed in index.json; returns the digest of its manifest."""
        descriptor = self.manifest(*layers, **arguments)
        if name:
            descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.entries.append(descriptor)
        return str(descriptor["digest"])

    def all_files(self) -> dict[str, bytes]:
        return {"index.json": to_json({"schemaVersion": 2, "manifests": self.entries}), **self.files}

    def tar(self) -> bytes:
        """The index comes last, as the worst a stream can do."""
        files = self.all_files()
        return make_tar(*(entry(name, files[name]) for name in sorted(files, reverse=True)))

    def write(self, path: Path) -> Path:
        for name, content in self.all_files().items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return path


def docker_archive(*layers: bytes, tags: tuple[str, ...] = ("app:1",), link_last_to_first: bool = False) -> bytes:
    """What `docker save` wrote before it wrote OCI layouts too."""
    config = to_json(
        {
            "os": "linux",
            "architecture": host_architectures()[0],
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    )
    names = [f"{number:064d}/layer.tar" for number in range(len(layers))]
    entries = [entry(name, layer) for name, layer in zip(names, layers, strict=True)]
    if link_last_to_first:
        entries[-1] = symlink(names[-1], f"../{names[0]}")
    config_name = f"{digest_of(config)[7:]}.json"
    manifest = to_json([{"Config": config_name, "RepoTags": list(tags), "Layers": names}])
    return make_tar(*entries, entry(config_name, config), entry("manifest.json", manifest))
