"""Trees that a container made are removed whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.linux.trees import remove_tree


def deep(top: Path, levels: int, name: str = "d") -> None:
    """Directories one in the other, made as a process that changes into each makes them: deeper than a path can say."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "victim").mkdir()
    return tmp_path / "victim"


@pytest.mark.parametrize(("levels", "name"), [(5000, "d"), (300, "n" * 255)])
def test_deeper_than_any_path_or_stack(victim: Path, levels: int, name: str) -> None:
    deep(victim, levels, name)
    before = len(list(Path("/proc/self/fd").iterdir()))
    remove_tree(victim)
    assert not victim.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    remove_tree(victim)


def test_wide_and_nested_with_names_that_the_removal_itself_uses(victim: Path) -> None:
    for number in range(30):
        place = victim / f".removed-{number}" / f".removed-{number}" / ".removed-0"
        place.mkdir(parents=True)
        (place / "file").touch()
        (victim / "other" / str(number) / "x").mkdir(parents=True)
        (victim / "other" / str(number) / "x" / ".removed-1").touch()
    remove_tree(victim)
    assert not victim.exists()


def test_links_pipes_and_sockets_are_removed_not_followed(victim: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (victim / "in").mkdir()
    (victim / "in" / "directory").symlink_to(outside)
    (victim / "in" / "up").symlink_to("../..")
    os.mkfifo(victim / "in" / "pipe")
    remove_tree(victim)
    assert not victim.exists() and (outside / "precious").exists()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        remove_tree(tmp_path / "link")
    assert (tmp_path / "real").is_dir()


def test_relative_to_a_descriptor(victim: Path) -> None:
    (victim / "a" / "b").mkdir(parents=True)
    fd = os.open(victim, os.O_RDONLY)
    remove_tree("a", dir_fd=fd)
    os.close(fd)
    assert list(victim.iterdir()) == []
