"""The shell of the api: the mirror, and the listeners, for as long as the service runs.

It listens at once, so that whoever asks before the bus is there is told so (503) instead of being turned away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
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
            running = [
                tasks.create_task(store.mirror(), name="mirror"),
                tasks.create_task(store.restore(), name="restore"),
            ]
            await context.stopping.wait()
            store.wake()
            for task in running:
                task.cancel()


@asynccontextmanager
async def listening(app: web.Application, listen: str) -> AsyncIterator[str]:
    """The application at `host:port` or `unix:/path`; gives the address as it is (port 0 chooses one). Raises OSError,
    and ValueError for what is no address."""
    path = Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None
    host, _, port = listen.rpartition(":")
    if path is None and not (host and port.isdecimal()):
        raise ValueError(f"api_listen: {listen!r} is neither host:port nor unix:/path")
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        if path is not None:
            if path.is_socket():
                path.unlink()  # a former process left it; anything else at this path is not ours to remove
            await web.UnixSite(runner, str(path)).start()
            path.chmod(0o660)
            yield listen
        else:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
            bound = runner.addresses[0]
            yield f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()
        if path is not None and path.is_socket():
            path.unlink()
