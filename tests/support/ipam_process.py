"""A replica of ipam in a process of its own, as users run it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_RUN = """
from chassis.runner import run
from services.ipam.service import serve
from services.ipam.settings import Settings
raise SystemExit(run("ipam", Settings, serve))
"""


@asynccontextmanager
async def ipam_process(url: str, instance: str, **settings: str) -> AsyncIterator[Process]:
    """Until the body ends, or kills it. `settings`: TORTIE_<NAME> by name."""
    told = {"NATS_URL": url, "INSTANCE": instance, "HEALTH_LISTEN": ""} | settings
    environ = os.environ | {f"TORTIE_{name}": value for name, value in told.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _RUN, env=environ, cwd=Path(__file__).parents[2], stderr=DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
