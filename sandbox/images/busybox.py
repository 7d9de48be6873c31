"""The embedded default image: localhost/busybox, made from Debian's busybox-static, the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

from sandbox.errors import ImageNotFound, InvalidInput, UnsupportedByHost
from sandbox.images.manifest import OCI_CONFIG_TYPE, OCI_LAYER_TYPE, OCI_MANIFEST_TYPE
from sandbox.images.model import Image, host_architectures
from sandbox.images.store import ImageStore

DEFAULT_IMAGE = "localhost/busybox:latest"
BUSYBOX = Path("/bin/busybox")
MAX_BUSYBOX_BYTES = 64 << 20
_PT_INTERP = 3

_ACCOUNTS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUPS = """\
root:x:0:
daemon:x:1:
bin:x:2:
tty:x:5:
www-data:x:33:
users:x:100:
nogroup:x:65534:
"""
_DIRECTORIES = (
    ("bin", 0o755), ("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("lib", 0o755), ("mnt", 0o755), ("opt", 0o755),
    ("proc", 0o555), ("root", 0o700), ("run", 0o755), ("srv", 0o755), ("sys", 0o555), ("tmp", 0o1777), ("usr", 0o755),
    ("usr/lib", 0o755), ("usr/local", 0o755), ("usr/local/bin", 0o755), ("usr/share", 0o755), ("var", 0o755),
    ("var/log", 0o755), ("var/spool", 0o755), ("var/tmp", 0o1777), ("var/www", 0o755),
)  # fmt: skip
_SYMLINKS = (
    ("lib64", "lib"),
    ("sbin", "bin"),
    ("usr/bin", "../bin"),
    ("usr/sbin", "../bin"),
    ("var/run", "../run"),
    ("var/lock", "../run"),
)
_FILES = (
    ("etc/passwd", _ACCOUNTS, 0o644),
    ("etc/group", _GROUPS, 0o644),
    ("etc/shadow", "root:*:::::::\n", 0o600),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644),
    ("etc/profile", "export PATH=${PATH:-/usr/local/bin:/bin:/sbin}\n", 0o644),
)


async def ensure_default_image(store: ImageStore, busybox: Path = BUSYBOX) -> Image:
    """localhost/busybox:latest, made and loaded unless it is there. Raises UnsupportedByHost without busybox-static."""
    try:
        return store.resolve(DEFAULT_IMAGE)
    except ImageNotFound:
        images = await store.load(io.BytesIO(build_busybox(busybox)))
        return images[0]


def build_busybox(busybox: Path = BUSYBOX) -> bytes:
    """An OCI archive (uncompressed tar) of one layer: every applet is a hard link in /bin, and /usr/bin leads there."""
    program = _static_program(busybox)
    layer = _layer(program, _applets(busybox))
    diff_id = _digest(layer)
    config = _json(
        {
            "architecture": host_architectures()[0],
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Cmd": ["sh"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Labels": {"org.opencontainers.image.title": "busybox"},
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created_by": "sandbox: busybox-static of the host"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST_TYPE,
            "config": {"mediaType": OCI_CONFIG_TYPE, "digest": _digest(config), "size": len(config)},
            "layers": [{"mediaType": OCI_LAYER_TYPE, "digest": diff_id, "size": len(layer)}],
        }
    )
    descriptor = {
        "mediaType": OCI_MANIFEST_TYPE,
        "digest": _digest(manifest),
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": DEFAULT_IMAGE},
    }
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add_file(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add_file(tar, "index.json", _json({"schemaVersion": 2, "manifests": [descriptor]}))
        for blob in (manifest, config, layer):
            _add_file(tar, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob)
    return output.getvalue()


def _layer(program: bytes, applets: list[str]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, mode in _DIRECTORIES:
            _add(tar, name, tarfile.DIRTYPE, mode)
        _add_file(tar, "bin/busybox", program, 0o755)
        for applet in applets:
            _add(tar, f"bin/{applet}", tarfile.LNKTYPE, 0o755, "bin/busybox")
        for name, target in _SYMLINKS:
            _add(tar, name, tarfile.SYMTYPE, 0o777, target)
        for name, content, mode in _FILES:
            _add_file(tar, name, content.encode(), mode)
    return output.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname = kind, mode, target
    tar.addfile(member)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.size = mode, len(content)
    tar.addfile(member, io.BytesIO(content))


def _applets(busybox: Path) -> list[str]:
    """What this busybox can do, as it says itself."""
    result = subprocess.run([busybox, "--list"], capture_output=True, check=False, timeout=10, text=True)
    names = sorted(set(result.stdout.split()) - {"busybox"})
    if result.returncode != 0 or "sh" not in names or any("/" in name for name in names):
        raise InvalidInput(f"{busybox} --list does not list applets", operation="make image", subject=str(busybox))
    return names


def _static_program(busybox: Path) -> bytes:
    """The program's bytes. Raises UnsupportedByHost when it is missing or needs shared libraries."""
    try:
        status = busybox.stat()
        content = busybox.read_bytes() if status.st_size <= MAX_BUSYBOX_BYTES and stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise _no_busybox(f"{busybox} cannot be read", error.errno or 0) from error
    if content[:5] != b"\x7fELF\x02":
        raise _no_busybox(f"{busybox} is no 64-bit program")
    (table,) = struct.unpack_from("=Q", content, 32)
    entry_size, count = struct.unpack_from("=HH", content, 54)
    if any(struct.unpack_from("=I", content, table + i * entry_size)[0] == _PT_INTERP for i in range(count)):
        raise _no_busybox(f"{busybox} needs shared libraries")
    return content


def _no_busybox(message: str, errno: int = 0) -> UnsupportedByHost:
    return UnsupportedByHost(
        message,
        operation=f"make image {DEFAULT_IMAGE}",
        subject=DEFAULT_IMAGE,
        errno=errno,
        hint="apt-get install busybox-static",
    )


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
