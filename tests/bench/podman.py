"""The peer: podman from Debian's packages, made to work on this host and in folders of its own.

A host that refuses to raise rlimits needs `default_ulimits`; crun refuses a cgroup2 mount that carries a controller
beside v1 hierarchies, so hugetlb is mounted as v1 while the comparison runs. Both are undone by `close`.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

HUGETLB = Path("/sys/fs/cgroup/hugetlb")
UNIFIED = Path("/sys/fs/cgroup/unified/cgroup.controllers")


class Podman:
    """One podman with its own storage below `folder`; `image` is a single-layer busybox."""

    image = "localhost/bench:latest"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mounted = False
        folder.mkdir(parents=True, exist_ok=True)
        files = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        processes = min(1024, resource.getrlimit(resource.RLIMIT_NPROC)[1])
        (folder / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\n'
            '[engine]\nruntime = "crun"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n'
        )
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        self._mount_hugetlb()
        self._import_image()

    def command(self, *arguments: str) -> list[str]:
        return ["podman", *arguments]

    def run(self, *arguments: str) -> str:
        """Runs podman; its standard output. Raises CalledProcessError with what it said."""
        done = subprocess.run(self.command(*arguments), env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"podman {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _mount_hugetlb(self) -> None:
        if UNIFIED.exists() and "hugetlb" in UNIFIED.read_text().split() and not HUGETLB.exists():
            HUGETLB.mkdir()
            subprocess.run(["mount", "-t", "cgroup", "-o", "hugetlb", "cgroup", str(HUGETLB)], check=True)
            self._mounted = True

    def _import_image(self) -> None:
        root = self._folder / "rootfs"
        for name in ("bin", "tmp", "etc", "proc", "sys", "dev"):
            (root / name).mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/busybox", root / "bin" / "busybox")
        for applet in ("sh", "sleep", "true", "echo"):
            link = root / "bin" / applet
            if not link.is_symlink():
                link.symlink_to("busybox")
        archive = self._folder / "rootfs.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
        self.run("import", "--change", "ENV PATH=/bin", str(archive), self.image)

    def close(self) -> None:
        """Removes everything it made. Idempotent."""
        subprocess.run(self.command("pod", "rm", "-af", "-t", "0"), env=self.environment, capture_output=True)
        subprocess.run(self.command("network", "prune", "-f"), env=self.environment, capture_output=True)
        if self._mounted:
            # The hierarchy goes back to cgroup2 only when no cgroup is left in it.
            for directory in sorted(HUGETLB.glob("libpod_parent/**/"), reverse=True):
                directory.rmdir()
            subprocess.run(["umount", str(HUGETLB)], check=True)
            HUGETLB.rmdir()
            self._mounted = False
        graph = self._folder / "graph" / "overlay"
        subprocess.run(["umount", str(graph)], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)
