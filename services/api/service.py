"""The shell of the api: the mirror, and the listeners, for as long as the service runs.

It listens at once, so that whoever asks before the bus is there is told so (503) instead of being turned away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web

from chassis.runner import Context
from services.api.http import application
from services.api.settings import Settings
from services.api.store import Store

SHUTDOWN_S = 1.0
"""How long open requests may take to end once the service stops."""


async def serve(context: Context[Settings]) -> None:
    settings = context.settings
    store = Store(context.bus, context.health)
    app = application(store, context.bus, context.stopping, max_body_bytes=settings.api_max_body_bytes)
    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(listening(app, listen.strip()))
            for listen in settings.api_listen.split(",")
            if listen.strip()
        ]
        context.log.info("listening", addresses=addresses)
        async with asyncio.TaskGroup() as tasks:
            mirror = tasks.create_task(store.mirror(), name="mirror")
            await context.stopping.wait()
            store.wake()
            mirror.cancel()


@asynccontextmanager
async def listening(app: web.Application, listen: str) -> AsyncIterator[str]:
    """The application at `host:port` or `unix:/path`; gives the address as it is (port 0 chooses one)."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    path = Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None
    try:
        if path is not None:
            with suppress(FileNotFoundError):
                path.unlink()
            await web.UnixSite(runner, str(path)).start()
            path.chmod(0o660)
            yield listen
        else:
            host, _, port = listen.rpartition(":")
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
            bound = runner.addresses[0]
            yield f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()
        if path is not None:
            path.unlink(missing_ok=True)
