"""For all tests: files are made with the daemon's umask, so that a mode that was left to chance is seen."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def the_daemons_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)
