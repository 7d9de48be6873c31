"""What an image is, once it is in the store."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from typing import Any

from sandbox.errors import InvalidInput, UnsupportedByHost

_GO_ARCHITECTURES = {
    "x86_64": ("amd64", "386"),
    "aarch64": ("arm64", "arm"),
    "armv7l": ("arm",),
    "ppc64le": ("ppc64le",),
    "riscv64": ("riscv64",),
    "s390x": ("s390x",),
}


def host_architectures() -> tuple[str, ...]:
    """What this host can run, in the words of the OCI (GOARCH), best first."""
    machine = platform.machine()
    return _GO_ARCHITECTURES.get(machine, (machine,))


@dataclass(frozen=True)
class ImageConfig:
    """How the image wants to be run (OCI image-spec `config.md`). `env` holds "K=V"; `labels` pairs."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """An image of the store. `layers` are absolute directories, lowest first; `id` is the configuration's digest.

    `names` are normalised (`localhost/busybox:latest`), `digests` are `repository@sha256:…`, `size_bytes` is that of
    the blobs, `created` is RFC 3339 as the image says it ("" where it does not).
    """

    id: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    created: str
    config: ImageConfig
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """`diff_id` is the digest of the uncompressed tar, `digest` and `size_bytes` are those of the blob as it came."""

    diff_id: str
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class ImageRecord:
    """What the database keeps of an image (kind "images", id = digest of the configuration)."""

    id: str
    manifests: tuple[str, ...]
    """Digests of the manifests that were loaded with this configuration; their blobs are kept."""
    layers: tuple[Layer, ...]
    config: ImageConfig
    created: str
    config_size_bytes: int
    names: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    manifest_bytes: int = field(default=0)

    @property
    def size_bytes(self) -> int:
        return self.config_size_bytes + self.manifest_bytes + sum(layer.size_bytes for layer in self.layers)

    def blobs(self) -> set[str]:
        """Digests of every blob that this record keeps alive."""
        return {self.id, *self.manifests, *(layer.digest for layer in self.layers)}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> ImageRecord:
        config = {key: _tuples(value) for key, value in body["config"].items()}
        return cls(
            id=body["id"],
            manifests=tuple(body["manifests"]),
            layers=tuple(Layer(**layer) for layer in body["layers"]),
            config=ImageConfig(**config),
            created=body["created"],
            config_size_bytes=body["config_size_bytes"],
            names=tuple(body["names"]),
            repo_digests=tuple(body["repo_digests"]),
            manifest_bytes=body["manifest_bytes"],
        )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class ParsedConfig:
    """An image configuration file: what to run, and the layers it is made of."""

    config: ImageConfig
    diff_ids: tuple[str, ...]
    created: str


def parse_image_config(document: dict[str, Any], subject: str) -> ParsedConfig:
    """Checks an OCI or Docker image configuration. Raises InvalidInput, UnsupportedByHost for another platform."""
    system, architecture = document.get("os", ""), document.get("architecture", "")
    if system not in ("", "linux") or architecture not in ("", *host_architectures()):
        wanted = f"{system or 'linux'}/{architecture}"
        raise UnsupportedByHost(
            f"image {subject} is for {wanted}, this host runs linux/{host_architectures()[0]}",
            operation="load image",
            subject=subject,
        )
    reader = _Reader(document.get("config") or {}, subject)
    rootfs = _Reader(document.get("rootfs") or {}, subject)
    if rootfs.text("type") not in ("", "layers"):
        raise rootfs.wrong("rootfs type", rootfs.text("type"))
    config = ImageConfig(
        entrypoint=reader.texts("Entrypoint"),
        cmd=reader.texts("Cmd"),
        env=reader.texts("Env"),
        user=reader.text("User"),
        working_dir=reader.text("WorkingDir"),
        stop_signal=reader.text("StopSignal"),
        volumes=reader.keys("Volumes"),
        labels=reader.pairs("Labels"),
        exposed_ports=reader.keys("ExposedPorts"),
    )
    return ParsedConfig(config, rootfs.texts("diff_ids"), _Reader(document, subject).text("created"))


class _Reader:
    """Typed access to a JSON object from outside: null and absent are empty, any other type is refused."""

    def __init__(self, body: Any, subject: str) -> None:
        self._subject = subject
        if not isinstance(body, dict):
            raise self.wrong("section", body)
        self._body: dict[str, Any] = body

    def wrong(self, key: str, value: object) -> InvalidInput:
        return InvalidInput(
            f"the configuration of image {self._subject} has a bad {key}: {str(value)[:80]!r}",
            operation="load image",
            subject=self._subject,
        )

    def text(self, key: str) -> str:
        value = self._body.get(key) or ""
        if not isinstance(value, str) or "\0" in value:
            raise self.wrong(key, value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._body.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
            raise self.wrong(key, value)
        return tuple(value)

    def keys(self, key: str) -> tuple[str, ...]:
        value = self._body.get(key) or {}
        if not isinstance(value, dict) or any("\0" in item for item in value):
            raise self.wrong(key, value)
        return tuple(sorted(value))

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        value = self._body.get(key) or {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self.wrong(key, value)
        return tuple(sorted(value.items()))
