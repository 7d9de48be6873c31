"""What pods and containers use now."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sandbox.cgroups.driver import CgroupStats
from sandbox.daemon.api.app import SERVICES
from sandbox.errors import NotFound, SandboxError

routes = web.RouteTableDef()
