"""A host of their own for tests that make pods: the test process leaves the machine's network for a new namespace.

Daemons that the tests start inherit it. Bridges, rules and forwarding therefore never touch the machine's own network.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from runtime_host import Host

from sandbox.linux.netns import unshare_network


@pytest.fixture(scope="session", autouse=True)
def own_network() -> Iterator[None]:
    """Runs the whole session in a new network namespace (root only)."""
    if os.geteuid() != 0:
        pytest.skip("needs root: these tests make namespaces, cgroups and mounts")
    unshare_network()
    os.system("ip link set lo up")
    yield


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    one = Host(tmp_path)
    yield one
    await one.close()
