"""Images that other tools made: umoci builds, skopeo converts, the store loads every form to the same image."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox.images.store import ImageStore
from sandbox.store.database import Database

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="unpacking needs root"),
    pytest.mark.skipif(
        not shutil.which("umoci") or not shutil.which("skopeo"), reason="umoci and skopeo are not installed"
    ),
]


def run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An OCI layout of two layers: umoci's own whiteouts, modes and links among them."""
    path, bundle = tmp_path / "layout", tmp_path / "bundle"
    run("umoci", "init", "--layout", path)
    run("umoci", "new", "--image", f"{path}:v1")
    run("umoci", "unpack", "--image", f"{path}:v1", bundle)
    root = bundle / "rootfs"
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("app:x:7:8::/app:/bin/sh\n")
    (root / "bin").mkdir()
    (root / "bin/su").write_text("x")
    os.chown(root / "bin/su", 3, 4)
    (root / "bin/su").chmod(0o4755)
    os.link(root / "bin/su", root / "bin/hard")
    (root / "bin/soft").symlink_to("su")
    (root / "gone").write_text("x")
    run("umoci", "repack", "--refresh-bundle", "--image", f"{path}:v1", bundle)
    (root / "gone").unlink()
    (root / "second").write_text("two")
    run("umoci", "repack", "--image", f"{path}:v1", bundle)
    run("umoci", "config", "--image", f"{path}:v1", "--config.cmd", "/bin/su", "--config.user", "app")
    return path


async def test_every_form_is_the_same_image(layout: Path, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images", Database(tmp_path / "state.db"))
    policy = ("--insecure-policy",)
    run("skopeo", *policy, "copy", f"oci:{layout}:v1", f"docker-archive:{tmp_path}/docker.tar:localhost/made:v1")
    run("skopeo", *policy, "copy", f"oci:{layout}:v1", f"oci-archive:{tmp_path}/oci.tar:localhost/made:v2")
    (image,) = await store.load(layout, name="localhost/made")
    assert image.names == ("localhost/made:latest",)
    assert (image.config.cmd, image.config.user) == (("/bin/su",), "app")
    assert store.read_file(image, "/second", 100) == b"two"
    assert store.read_file(image, "/gone", 100) is None
    low = Path(image.layers[0])
    assert (low / "gone").exists()
    status = (low / "bin/su").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_nlink) == (0o4755, 3, 4, 2)
    (oci,) = await store.load(tmp_path / "oci.tar")
    assert oci.id == image.id
    (docker,) = await store.load(tmp_path / "docker.tar")
    assert docker.layers == image.layers
    assert store.resolve("localhost/made:v1").id == docker.id
    assert store.resolve("localhost/made:v2").id == image.id
