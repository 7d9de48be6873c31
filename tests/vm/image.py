"""What the machine boots: Debian's cloud kernel, a small initramfs and a root file system, made once and cached.

The root file system holds what this host already has: the Debian packages below, the Python of `.venv` with what the
product and the tests import, and every shared library those need. Nothing is installed anywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
CACHE = Path(os.environ.get("SANDBOX_VM_CACHE", "/var/cache/sandbox-vm"))

KERNEL_PACKAGE = "linux-image-cloud-amd64"
PACKAGES = (
    "base-files", "bash", "busybox-static", "coreutils", "dash", "findutils", "grep", "gzip", "hostname", "iproute2",
    "libc-bin", "libc6", "libnftables1", "libseccomp2", "mount", "netbase", "nftables", "procps", "sed", "tar",
    "util-linux",
)  # fmt: skip
DISTRIBUTIONS = ("sandbox", "pytest", "pytest-asyncio", "hypothesis")
INITRAMFS_MODULES = ("virtio_pci", "virtio_blk")
UNWANTED = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/bash-completion/")
ROOT_BYTES = 3 << 30
"""Sparse: only what is written takes room."""
KEPT = 2
"""Images; a checkout and the one before it."""


class CannotBuild(Exception):
    """The image cannot be made on this host; a sentence."""


class NoKernel(CannotBuild):
    """This distribution has no such kernel."""


@dataclass(frozen=True)
class Image:
    kernel: Path
    initramfs: Path
    root: Path


def provide() -> Image:
    """The image for this checkout and this host, made when the cache has none. Raises CannotBuild."""
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _lock():
        kernel = _kernel()
        folder = CACHE / f"image-{_key(kernel)}"
        if not folder.exists():
            _build(kernel, folder)
        os.utime(folder)
        for old in sorted(CACHE.glob("image-*"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old)
    (vmlinuz,) = (kernel / "boot").glob("vmlinuz-*")
    return Image(vmlinuz, folder / "initramfs", folder / "root.img")


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise CannotBuild(f"{' '.join(command[:6])} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return str(done.stdout)


# ---- the kernel ----


def _kernel() -> Path:
    """The unpacked package of the cached kernel, or of Debian's present one. Removing the cache gives a newer one."""
    cached = sorted(CACHE.glob("linux-image-*"))
    if cached:
        return cached[-1]
    with tempfile.TemporaryDirectory(prefix="kernel-", dir=CACHE) as folder:
        try:
            _download_kernel(folder)
        except CannotBuild:  # the lists are missing or old
            _run("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "update")
            _download_kernel(folder)
        (archive,) = Path(folder).glob("*.deb")
        unpacked = Path(folder, "unpacked")
        _run("dpkg", "-x", str(archive), str(unpacked))
        modules = _modules(unpacked)
        for module in modules.rglob("*.ko.xz"):  # as newer Debian packs them; busybox reads them plain
            module.with_suffix("").write_bytes(lzma.decompress(module.read_bytes()))
            module.unlink()
        _run("busybox", "depmod", "-b", str(unpacked), modules.name)
        target = CACHE / archive.name.rpartition("_")[0].replace(":", "-")
        unpacked.chmod(0o755)
        return unpacked.rename(target)


def _download_kernel(folder: str) -> None:
    """The package that the metapackage stands for: the name carries the kernel's version."""
    shown = subprocess.run(("apt-cache", "depends", KERNEL_PACKAGE), capture_output=True, text=True).stdout
    found = re.search(r"Depends: (linux-image-\S+)", shown)
    if found is None:
        raise NoKernel(f"no package archive has {KERNEL_PACKAGE}")
    _run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", found[1], cwd=folder)


def _modules(kernel: Path) -> Path:
    for base in ("lib/modules", "usr/lib/modules"):
        if (kernel / base).is_dir():
            return next((kernel / base).iterdir())
    raise CannotBuild(f"{kernel} has no modules")


# ---- the images ----


def _key(kernel: Path) -> str:
    digest = hashlib.sha256()
    versions = subprocess.run(("dpkg-query", "-W", *PACKAGES), capture_output=True, text=True).stdout
    distributions = [f"{d.name} {d.version}" for d in _distributions()]
    for part in (str(CHECKOUT), kernel.name, sys.version, sys.base_prefix, versions, *distributions):
        digest.update(part.encode() + b"\0")
    for file in (Path(__file__), HERE / "initramfs.sh", HERE / "init.sh"):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _build(kernel: Path, folder: Path) -> None:
    for tool in ("busybox", "mkfs.ext4", "ldd"):
        if shutil.which(tool) is None:
            raise CannotBuild(f"{tool} is missing: use scripts/install --dev")
    with tempfile.TemporaryDirectory(prefix="build-", dir=CACHE) as name:
        built = Path(name, "built")
        built.mkdir(mode=0o755)
        _build_initramfs(kernel, Path(name, "initramfs"), built / "initramfs")
        _build_root(kernel, Path(name, "root"), built / "root.img")
        built.rename(folder)


def _build_initramfs(kernel: Path, tree: Path, target: Path) -> None:
    """Loads the disk's driver and goes on to the disk's own init."""
    for directory in ("bin", "dev", "proc", "root"):
        (tree / directory).mkdir(parents=True)
    shutil.copy2("/bin/busybox", tree / "bin" / "busybox")
    shutil.copy2(HERE / "initramfs.sh", tree / "init")
    (tree / "init").chmod(0o755)
    modules = _modules(kernel)
    dependencies = dict(line.split(":", 1) for line in (modules / "modules.dep").read_text().splitlines())
    order: list[str] = []
    for wanted in INITRAMFS_MODULES:
        path = next(p for p in dependencies if Path(p).name == f"{wanted}.ko")
        order += [p for p in (*reversed(dependencies[path].split()), path) if p not in order]
    for number, path in enumerate(order):
        shutil.copy2(modules / path, tree / f"{number:02}.ko")
    names = "\n".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
    with target.open("wb") as archive:
        subprocess.run(
            ("busybox", "cpio", "-o", "-H", "newc"),
            input=names.encode(), stdout=archive, stderr=subprocess.DEVNULL, cwd=tree, check=True,
        )  # fmt: skip


def _build_root(kernel: Path, tree: Path, target: Path) -> None:
    for directory in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "dev", "proc", "sys", "run", "tmp", "var/lib"):
        (tree / directory).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "tmp").chmod(0o1777)
    files = set(_package_files()) | set(_python_files())
    files |= _libraries(files)
    for file in sorted(files):
        _copy(file, tree)
    modules = _modules(kernel)
    shutil.copytree(modules, tree / "usr/lib/modules" / modules.name, symlinks=True)
    for name in ("modprobe", "insmod", "lsmod", "poweroff", "vi", "ping", "nc", "wget"):
        if not (tree / "usr/sbin" / name).exists():
            (tree / "usr/sbin" / name).symlink_to("../bin/busybox")
    for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache", "services", "protocols"):
        if Path("/etc", name).exists():
            _copy(Path("/etc", name), tree)
    (tree / "etc/hosts").write_text("127.0.0.1 localhost sandbox-vm\n::1 localhost\n")
    (tree / "etc/hostname").write_text("sandbox-vm\n")
    shutil.copy2(HERE / "init.sh", tree / "init")
    (tree / "init").chmod(0o755)
    compile_modules(tree)
    with target.open("wb") as image:
        image.truncate(ROOT_BYTES)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-d", str(tree), str(target))


def compile_modules(tree: Path) -> None:
    """Python's compiled modules for what is below `tree`, with the names that the files have in the machine.

    In there the compiler would take minutes. The files cannot change, so nobody compares them at each import.
    """
    mode = "--invalidation-mode=unchecked-hash"
    # The exit code tells of files that are no Python, such as templates in packages.
    compiler = (sys.executable, "-m", "compileall", "-qq", "-j0", "-f", mode, "-s", str(tree), "-p", "/", str(tree))
    subprocess.run(compiler, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _package_files() -> Iterator[Path]:
    shown = subprocess.run(("dpkg", "-L", *PACKAGES), capture_output=True, text=True).stdout
    for line in shown.splitlines():
        path = Path(line)
        if not line.startswith(UNWANTED) and (path.is_symlink() or path.is_file()):
            yield path


def _distributions() -> list[metadata.Distribution]:
    """DISTRIBUTIONS and what they need, extras aside."""
    found: dict[str, metadata.Distribution] = {}
    pending = list(DISTRIBUTIONS)
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # needed on other systems or Pythons only
        for requirement in found[name].requires or ():
            wanted, _, marker = requirement.partition(";")
            if "extra ==" not in marker:
                pending.append(re.match(r"[A-Za-z0-9._-]+", wanted)[0])  # type: ignore[index]
    return [found[name] for name in sorted(found)]


def _python_files() -> Iterator[Path]:
    """The interpreter, its library without its own tests, `.venv` with what is imported."""
    venv = Path(sys.prefix)
    yield from (p for p in (venv / "bin").iterdir() if p.is_symlink() or p.name == "sandbox")
    yield venv / "pyvenv.cfg"
    wanted = {d.metadata["Name"] for d in _distributions()}
    others = [d for d in metadata.distributions() if d.metadata["Name"] not in wanted]
    # Not the files of those wanted: what an old pip installed has no list of its own.
    left_out = {os.path.normpath(d.locate_file(f)) for d in others for f in d.files or ()}
    for directory, names, files in os.walk(sysconfig.get_path("purelib")):
        names[:] = [n for n in names if n != "__pycache__"]
        yield from (Path(directory, f) for f in files if os.path.join(directory, f) not in left_out)  # noqa: PTH118
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    yield base
    yield Path(os.path.realpath(base))
    library = Path(sysconfig.get_path("stdlib"))
    unwanted = {
        "test",
        "tests",
        "site-packages",
        "dist-packages",
        "idlelib",
        "tkinter",
        "lib2to3",
        "ensurepip",
        "turtledemo",
    }
    for directory, names, files in os.walk(library):
        names[:] = [n for n in names if n not in unwanted | {"__pycache__"} and not n.startswith("config-")]
        yield from (Path(directory, f) for f in files if not f.endswith((".a", ".exe")))


def _libraries(files: Iterable[Path]) -> set[Path]:
    """Shared libraries of all ELF files among these, as the dynamic linker finds them here."""
    binaries = []
    for file in files:
        if file.is_file() and not file.is_symlink() and (os.access(file, os.X_OK) or ".so" in file.name):
            with file.open("rb") as stream:
                if stream.read(4) == b"\x7fELF":
                    binaries.append(str(file))
    shown = subprocess.run(("ldd", *binaries), capture_output=True, text=True).stdout
    return {Path(found) for found in re.findall(r"(/\S+) \(0x", shown)}


def _copy(file: Path, tree: Path) -> None:
    """The file at its place in the tree; where it is a link its target too."""
    place = Path(os.path.realpath(file.parent), file.name)  # /bin is a link to /usr/bin
    target = tree / place.relative_to("/")
    if target.exists() or target.is_symlink():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(place, target, follow_symlinks=False)
    if place.is_symlink():
        real = Path(os.path.realpath(place))
        if real.is_file():
            _copy(real, tree)
            hop = place.parent / place.readlink()
            if hop != real:
                _copy(Path(os.path.normpath(hop)), tree)
