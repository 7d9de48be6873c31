"""The systemd units and their installation."""

from __future__ import annotations

from pathlib import Path

UNIT_DIRECTORY = Path("/etc/systemd/system")
UNITS = ("sandbox.service", "sandbox.socket")


def render(name: str, executable: Path) -> str:
    """The text of a unit that runs `executable` (an absolute path of the `sandbox` command)."""
    assert name in UNITS and executable.is_absolute(), (name, executable)
    template = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return template.replace("@SANDBOX@", str(executable))


def install(executable: Path, directory: Path = UNIT_DIRECTORY) -> list[Path]:
    """Writes the units (idempotent) and returns their paths. `systemctl daemon-reload` is the caller's."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name in UNITS:
        path = directory / name
        path.write_text(render(name, executable), encoding="utf-8")
        path.chmod(0o644)
        written.append(path)
    return written


def uninstall(directory: Path = UNIT_DIRECTORY) -> list[Path]:
    """Removes the units that are there (idempotent) and returns their paths."""
    removed = [directory / name for name in UNITS if (directory / name).exists()]
    for path in removed:
        path.unlink()
    return removed
