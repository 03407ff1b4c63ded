"""The shell of the api: the mirror, and the listeners, for as long as the service runs.

It listens at once, so that whoever asks before the bus is there is told so (503) instead of being turned away.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from chassis.listening import listening
from chassis.runner import Context
from services.api.http import application
from services.api.settings import Settings
from services.api.store import Store
from services.api.vigil_watch import watch


async def serve(context: Context[Settings]) -> None:
    settings = context.settings
    store = Store(context.bus, context.health)
    app = application(store, context.bus, context.stopping, max_body_bytes=settings.api_max_body_bytes)
    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(listening(app, listen.strip(), setting="TORTIE_API_LISTEN"))
            for listen in settings.api_listen.split(",")
            if listen.strip()
        ]
        context.log.info("listening", addresses=addresses)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(store.mirror(), name="mirror"),
                tasks.create_task(store.restore(), name="restore"),
                tasks.create_task(store.stand(), name="stand"),
                tasks.create_task(watch(context.bus, store, settings.instance), name="vigil"),
            ]
            await context.stopping.wait()
            store.wake()
            for task in running:
                task.cancel()
