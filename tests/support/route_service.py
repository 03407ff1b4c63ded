"""A replica of route distribution inside the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from chassis.bus import Bus
from chassis.health import Health
from chassis.heartbeat import Heartbeat
from chassis.runner import Context
from services.route_distribution.service import serve
from services.route_distribution.settings import Settings


@asynccontextmanager
async def replica(url: str, instance: str) -> AsyncIterator[Health]:
    settings = Settings(nats_url=url, instance=instance)
    health, stopping = Health(), asyncio.Event()
    async with (
        Bus.connect(settings, name="route_distribution", health=health) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        context = Context(
            name="route_distribution",
            settings=settings,
            bus=bus,
            health=health,
            log=structlog.get_logger(),
            stopping=stopping,
            heartbeat=Heartbeat(bus, "route_distribution", "test", health, started=0.0),
        )
        tasks.create_task(serve(context))
        try:
            yield health
        finally:
            stopping.set()
