"""One run of the machine: QEMU without hardware help, a command in it, its output and its exit code."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import prctl

from tests.vm.image import CHECKOUT, Image, compile_modules

QEMU = "qemu-system-x86_64"
PROJECT = ("sandbox", "tests", "examples", "pause/build/pause", "pause/protocol.h", "pyproject.toml")
KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable random.trust_cpu=on"
TIMED_OUT = 124
"""As timeout(1) has it."""
BROKEN = 125
"""The machine ended without an answer."""


def run(
    image: Image,
    command: Sequence[str],
    *,
    timeout_s: float,
    environment: Mapping[str, str],
    on_output: Callable[[bytes], None],
    output: Path | None = None,
) -> int:
    """Boots, runs `command`, powers off; a shell at the console without one. Its exit code, TIMED_OUT or BROKEN.

    What the command leaves in /output is unpacked in the directory `output`.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-vm-") as name:
        folder = Path(name)
        _pack(folder, command, environment)
        read_end, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                _qemu(image, folder, write_end, shell=not command),
                stdin=subprocess.DEVNULL if command else None,
                pass_fds=(write_end,),
                preexec_fn=lambda: prctl.set_pdeathsig(signal.SIGKILL),  # killed ourselves, we leave no machine behind
                env={**os.environ, "TMPDIR": name},
            )
        finally:
            os.close(write_end)
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        try:
            with os.fdopen(read_end, "rb", buffering=0) as stream:
                while block := stream.read(65536):
                    on_output(block)
            process.wait()
        finally:
            late = not timer.is_alive()
            timer.cancel()
            if process.poll() is None:
                process.kill()
            process.wait()
        answer = (folder / "status").read_text().strip() if (folder / "status").exists() else ""
        if answer.isdigit():
            if output is not None:
                output.mkdir(parents=True, exist_ok=True)
                subprocess.run(("tar", "-C", str(output), "--no-same-owner", "-xf", str(folder / "output")), check=True)
            return int(answer)
        print(_last_words(folder / "console"), file=sys.stderr)
        if late:
            print(f"the machine was stopped after {timeout_s:g} seconds", file=sys.stderr)
            return TIMED_OUT
        print("the machine ended without an answer", file=sys.stderr)
        return BROKEN


def _qemu(image: Image, folder: Path, output: int, *, shell: bool) -> list[str]:
    return [
        QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", "2", "-m", "2048",
        "-kernel", str(image.kernel), "-initrd", str(image.initramfs), "-append", KERNEL_ARGUMENTS,
        # What is written to the root goes to a temporary file that QEMU unlinks as soon as it is open.
        "-drive", f"file={image.root},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-drive", f"file={folder / 'project.tar'},format=raw,if=virtio,readonly=on",
        "-serial", "mon:stdio" if shell else f"file:{folder / 'console'}",
        "-device", "virtio-serial-pci",
        "-add-fd", f"fd={output},set=1", "-chardev", "file,id=output,path=/dev/fdset/1,append=on",
        "-device", "virtserialport,chardev=output,nr=1",
        "-chardev", f"file,id=status,path={folder / 'status'}",
        "-device", "virtserialport,chardev=status,nr=2",
        "-chardev", f"file,id=files,path={folder / 'output'}",
        "-device", "virtserialport,chardev=files,nr=3",
    ]  # fmt: skip


def _last_words(console: Path) -> str:
    return "\n".join(console.read_text(errors="replace").splitlines()[-80:]) if console.exists() else ""


def _pack(folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """project.tar: the checkout at its own path, and what to do."""
    tree = folder / "project"
    for name in PROJECT:
        source, target = CHECKOUT / name, tree / str(CHECKOUT).lstrip("/") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    compile_modules(tree)
    settings = {"VM_CHECKOUT": str(CHECKOUT), "VIRTUAL_ENV": sys.prefix, **environment}
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    (tree / ".vm").mkdir()
    (tree / ".vm" / "environment").write_text(text + 'PATH="$VIRTUAL_ENV/bin:$PATH"\n')
    if command:
        (tree / ".vm" / "command").write_text(f"exec {shlex.join(command)}\n")
    with tarfile.open(folder / "project.tar", "w") as archive:
        for path in tree.iterdir():
            archive.add(path, path.name)
