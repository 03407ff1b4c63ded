"""The services as people start them: `tortie serve`, each a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def serving(service: str, url: str, instance: str, log: Path, **settings: str) -> AsyncIterator[Process]:
    """Until the body ends, or kills it. `settings`: TORTIE_<NAME> by name; what it says goes to the file `log`."""
    told = {"NATS_URL": url, "INSTANCE": instance, "HEALTH_LISTEN": "", "LOG_FORMAT": "json"} | settings
    environ = os.environ | {f"TORTIE_{name}": value for name, value in told.items()}
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tortie", "serve", service, env=environ, cwd=ROOT, stderr=out, stdout=out
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
