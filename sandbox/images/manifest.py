"""From an archive to the images in it: OCI layouts (index, manifest, platform choice) and docker-archives.

Source: OCI image-spec `image-layout.md`, `image-index.md`, `manifest.md`; Docker's image specification v1.2 for
`manifest.json`. A document that is a manifest and an index at once is refused (CVE-2021-41190).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from sandbox.errors import InvalidInput, UnsupportedByHost
from sandbox.images.archive import Archive, read_document, read_object
from sandbox.images.blobs import StagedBlob
from sandbox.images.model import ParsedConfig, host_architectures, parse_image_config
from sandbox.images.reference import check_digest

INDEX_TYPES = frozenset(
    ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
)
MANIFEST_TYPES = frozenset(
    ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
)
OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPES = frozenset((OCI_CONFIG_TYPE, "application/vnd.docker.container.image.v1+json"))
LAYER_TYPES = frozenset(
    f"{base}{compression}"
    for base in (OCI_LAYER_TYPE, "application/vnd.oci.image.layer.nondistributable.v1.tar")
    for compression in ("", "+gzip", "+zstd")
) | frozenset(
    f"application/vnd.docker.image.rootfs.{base}.tar{compression}"
    for base in ("diff", "foreign.diff")
    for compression in ("", ".gzip", ".zstd")
)
MAX_LAYERS = 127
"""What the fallback mount(2) of an overlay holds in one page of options."""
MAX_MANIFESTS = 1000
MAX_INDEX_DEPTH = 4
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True)
class LayerBlob:
    diff_id: str
    blob: StagedBlob


@dataclass(frozen=True)
class FoundImage:
    """An image of an archive, every document checked; the layers are hashed but not unpacked yet.

    `manifest` is None for a docker-archive; `made_manifest` then is one made for it, always the same bytes.
    """

    config_blob: StagedBlob
    parsed: ParsedConfig
    layers: tuple[LayerBlob, ...]
    names: tuple[str, ...]
    manifest: StagedBlob | None
    made_manifest: bytes = b""


def find_images(archive: Archive) -> list[FoundImage]:
    """Every image for this host's platform. Raises InvalidInput where there is none."""
    if archive.get("index.json") is not None:
        names = _docker_names(archive)
        return [
            replace(image, names=tuple(dict.fromkeys((*image.names, *names.get(image.config_blob.digest, ())))))
            for image in _OciLayout(archive).images()
        ]
    if archive.get("manifest.json") is not None:
        return _docker_images(archive)
    raise InvalidInput(
        "the archive is no image: it has neither index.json (OCI layout) nor manifest.json (docker-archive)",
        operation="load image",
        hint="make one with `docker save`, `podman save` or `skopeo copy … oci-archive:FILE`",
    )


def _invalid(what: str, why: str) -> InvalidInput:
    return InvalidInput(f"{what} {why}", operation="load image", subject=what)


class _OciLayout:
    """index.json and the blobs it leads to."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def images(self) -> list[FoundImage]:
        index = self._archive.get("index.json")
        assert index is not None
        entries = _entries(read_object(index, "index.json"), "index.json")
        chosen = _best_of_each_name(entries)
        if not chosen:
            raise _no_platform("index.json", entries)
        found: dict[str, FoundImage] = {}
        for entry in chosen:
            image = self._image(entry, 1)
            digest = image.config_blob.digest
            names = (*(found[digest].names if digest in found else ()), *_entry_names(entry))
            found[digest] = replace(image, names=tuple(dict.fromkeys(names)))
        return list(found.values())

    def _image(self, descriptor: dict[str, Any], depth: int) -> FoundImage:
        digest = check_digest(descriptor.get("digest"), "a descriptor of the index")
        if depth > MAX_INDEX_DEPTH:
            raise _invalid(f"index {digest}", f"is nested more than {MAX_INDEX_DEPTH} deep")
        blob = self._blob(descriptor, f"manifest {digest}")
        document = read_object(blob, f"manifest {digest}")
        media_type = check_manifest_type(document, str(descriptor.get("mediaType") or ""), f"manifest {digest}")
        if media_type in INDEX_TYPES:
            entries = _entries(document, f"index {digest}")
            ranked = [(rank, entry) for entry in entries if (rank := _platform_rank(entry)) is not None]
            if not ranked:
                raise _no_platform(f"index {digest}", entries)
            return self._image(min(ranked, key=lambda pair: pair[0])[1], depth + 1)
        return self._manifest(document, blob)

    def _manifest(self, document: dict[str, Any], blob: StagedBlob) -> FoundImage:
        what = f"manifest {blob.digest}"
        config, layers = document.get("config"), document.get("layers")
        if not isinstance(config, dict) or not isinstance(layers, list):
            raise _invalid(what, "has no config or no layers")
        if config.get("mediaType") not in CONFIG_TYPES:
            raise _invalid(what, f"is no container image: its configuration is {str(config.get('mediaType'))[:80]!r}")
        config_blob = self._blob(config, f"the configuration of {what}")
        blobs = []
        for layer in layers:
            if not isinstance(layer, dict) or layer.get("mediaType") not in LAYER_TYPES:
                shown = layer.get("mediaType") if isinstance(layer, dict) else layer
                raise _invalid(what, f"has a layer that is no container layer: {str(shown)[:80]!r}")
            blobs.append(self._blob(layer, f"a layer of {what}"))
        parsed = parse_image_config(read_object(config_blob, f"the configuration of {what}"), config_blob.digest)
        return FoundImage(config_blob, parsed, _pair(parsed, blobs, what), (), blob)

    def _blob(self, descriptor: dict[str, Any], what: str) -> StagedBlob:
        """The blob of a descriptor, its digest and size as the descriptor says."""
        digest = check_digest(descriptor.get("digest"), what)
        blob = self._archive.get(f"blobs/sha256/{digest.removeprefix('sha256:')}")
        if blob is None:
            raise _invalid(what, f"is not in the archive ({digest})")
        if blob.digest != digest:
            raise _invalid(what, f"does not match its digest: expected {digest}, got {blob.digest}")
        if descriptor.get("size") != blob.size_bytes:
            raise _invalid(what, f"has {blob.size_bytes} bytes, its descriptor says {descriptor.get('size')!r}")
        return blob


def check_manifest_type(document: dict[str, Any], expected: str, what: str) -> str:
    """The media type of a manifest or index, when what it holds agrees with what it says it is. Raises InvalidInput."""
    own = document.get("mediaType") or expected
    if not isinstance(own, str) or (expected and own != expected):
        raise _invalid(what, f"says it is {str(own)[:80]!r}, its descriptor says {expected[:80]!r}")
    if own not in INDEX_TYPES | MANIFEST_TYPES:
        raise _invalid(what, f"has the unknown media type {own[:80]!r}")
    index_keys, manifest_keys = {"manifests"} & document.keys(), {"config", "layers", "fsLayers"} & document.keys()
    if (
        (index_keys and manifest_keys)
        or (index_keys and own in MANIFEST_TYPES)
        or (manifest_keys and own in INDEX_TYPES)
    ):
        raise _invalid(what, "is a manifest and an index at once")
    if document.get("schemaVersion") != 2:
        raise _invalid(what, f"has schema version {document.get('schemaVersion')!r}, only 2 is spoken")
    return own


def _entries(index: dict[str, Any], what: str) -> list[dict[str, Any]]:
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _invalid(what, "has no list of manifests")
    if "layers" in index or "config" in index:
        raise _invalid(what, "is a manifest and an index at once")
    if len(entries) > MAX_MANIFESTS:
        raise _invalid(what, f"lists more than {MAX_MANIFESTS} manifests")
    return entries


def _platform(entry: dict[str, Any]) -> tuple[str, str]:
    platform = entry.get("platform")
    if not isinstance(platform, dict):
        return "", ""
    return str(platform.get("os", "")), str(platform.get("architecture", ""))


def _platform_rank(entry: dict[str, Any]) -> int | None:
    """0 is best; None: not for this host. An entry that names no platform may be for it."""
    system, architecture = _platform(entry)
    known = host_architectures()
    if not system and not architecture:
        return len(known)
    return known.index(architecture) if system == "linux" and architecture in known else None


def _no_platform(what: str, entries: list[dict[str, Any]]) -> UnsupportedByHost:
    offered = ", ".join(sorted({"/".join(_platform(entry)) for entry in entries})[:20]) or "nothing"
    return UnsupportedByHost(
        f"{what} has no image for linux/{host_architectures()[0]}, it offers {offered}", operation="load image"
    )


def _entry_names(entry: dict[str, Any]) -> tuple[str, ...]:
    """Full names among the annotations. A lone tag (`latest`) is no name: the caller has to give one."""
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        return ()
    names = [annotations.get(key) for key in NAME_ANNOTATIONS]
    return tuple(n for n in names if isinstance(n, str) and ("/" in n or ":" in n))


def _best_of_each_name(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """index.json lists images; entries of one name that say their platforms are variants of one of them."""
    best: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
    for entry in entries:
        rank = _platform_rank(entry)
        if rank is None:
            continue
        annotations = entry.get("annotations")
        key = (str(annotations), "") if any(_platform(entry)) else (str(annotations), str(entry.get("digest")))
        if key not in best or rank < best[key][0]:
            best[key] = (rank, entry)
    return [entry for _, entry in best.values()]


def _pair(parsed: ParsedConfig, blobs: list[StagedBlob], what: str) -> tuple[LayerBlob, ...]:
    if len(parsed.diff_ids) != len(blobs):
        raise _invalid(what, f"has {len(blobs)} layers, its configuration lists {len(parsed.diff_ids)}")
    if not 0 < len(blobs) <= MAX_LAYERS:
        raise _invalid(what, f"has {len(blobs)} layers, expected 1 to {MAX_LAYERS}")
    return tuple(
        LayerBlob(check_digest(diff_id, f"a layer of {what}"), blob)
        for diff_id, blob in zip(parsed.diff_ids, blobs, strict=True)
    )


# docker-archive


def _docker_entries(archive: Archive) -> list[dict[str, Any]]:
    blob = archive.get("manifest.json")
    entries = [] if blob is None else read_document(blob, "manifest.json")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _invalid("manifest.json", "is not a list of images")
    if len(entries) > MAX_MANIFESTS:
        raise _invalid("manifest.json", f"lists more than {MAX_MANIFESTS} images")
    return entries


def _docker_file(archive: Archive, name: object, what: str) -> StagedBlob:
    """A file that manifest.json names; where the name holds a digest, the content has to match it."""
    blob = archive.get(name) if isinstance(name, str) else None
    if blob is None or not isinstance(name, str):
        raise _invalid(what, f"is not in the archive ({str(name)[:100]!r})")
    stem = name.removeprefix("blobs/sha256/").removesuffix(".json").removesuffix(".tar")
    digest = f"sha256:{stem}"
    if len(stem) == 64 and "/" not in stem and digest != blob.digest:
        raise _invalid(what, f"does not match its digest: expected {digest}, got {blob.digest}")
    return blob


def _repo_tags(entry: dict[str, Any]) -> tuple[str, ...]:
    tags = entry.get("RepoTags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise _invalid("manifest.json", f"has bad RepoTags {str(tags)[:80]!r}")
    return tuple(tags)


def _docker_names(archive: Archive) -> dict[str, tuple[str, ...]]:
    """What manifest.json adds to an OCI layout (`docker save` writes both): config digest → names."""
    names = {}
    for entry in _docker_entries(archive):
        config = archive.get(entry["Config"]) if isinstance(entry.get("Config"), str) else None
        if config is not None:
            names[config.digest] = _repo_tags(entry)
    return names


def _docker_images(archive: Archive) -> list[FoundImage]:
    images = []
    for entry in _docker_entries(archive):
        config_blob = _docker_file(archive, entry.get("Config"), "the configuration of an image")
        what = f"image {config_blob.digest}"
        parsed = parse_image_config(read_object(config_blob, f"the configuration of {what}"), config_blob.digest)
        layers = entry.get("Layers")
        if not isinstance(layers, list):
            raise _invalid("manifest.json", "has an image without layers")
        blobs = [_docker_file(archive, layer, f"a layer of {what}") for layer in layers]
        paired = _pair(parsed, blobs, what)
        images.append(
            FoundImage(config_blob, parsed, paired, _repo_tags(entry), None, _made_manifest(config_blob, blobs))
        )
    if not images:
        raise _invalid("manifest.json", "lists no image")
    return images


def _made_manifest(config: StagedBlob, layers: list[StagedBlob]) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST_TYPE,
        "config": {"mediaType": OCI_CONFIG_TYPE, "digest": config.digest, "size": config.size_bytes},
        "layers": [{"mediaType": OCI_LAYER_TYPE, "digest": layer.digest, "size": layer.size_bytes} for layer in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()
