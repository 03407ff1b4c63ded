"""The shell of route distribution: the feed into the core, what the core wants onto the bus.

    feed (blocks, nodes, pools) --> Core.apply --> pacer --> Core.flush --> Publication (routes)

Every replica computes; the one that holds the lease writes. Nothing is written before the feed is in sync: a core that
has seen half of the world would take away the other half's routes.
"""

from __future__ import annotations

import asyncio
import time

from bus_schemas.events import Event
from bus_schemas.subjects import ROUTE
from chassis.feed import Interest
from chassis.lease import Lease
from chassis.pacing import Pacer
from chassis.publication import Publication
from chassis.runner import Context
from services.route_distribution.core import READS, Changes, Core, Withheld
from services.route_distribution.settings import Settings

SERVICE = "route_distribution"


async def serve(context: Context[Settings]) -> None:
    settings = context.settings
    core = Core()
    lease = Lease(context.bus, SERVICE, settings.instance)
    pacer = Pacer(settings.flush_min_s, settings.flush_max_s, settings.retry_s)
    async with Publication(context.bus, [Interest(ROUTE)], lease=lease) as publication:

        async def read() -> None:
            async with context.bus.follow(*map(Interest, READS)) as feed:
                while True:
                    batch = await feed.next()
                    for fact in batch.facts:
                        core.apply(fact)
                    if batch.in_sync:
                        pacer.mark()

        async def flush() -> None:
            changes = core.flush()
            for cidr, route in changes.routes.items():
                publication.want(ROUTE, (cidr,), route)
            publication.complete()
            report(context, changes, speak=lease.held)
            await publication.flush()

        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(lease.run(), name="lease"),
                tasks.create_task(publication.run(), name="publication"),
                tasks.create_task(read(), name="feed"),
                tasks.create_task(pacer.run(flush), name="flush"),
            ]
            await context.stopping.wait()
            for task in running:
                task.cancel()


def report(context: Context[Settings], changes: Changes, *, speak: bool) -> None:
    """Troubles to health, and, from the replica that leads, to the events."""
    for trouble in changes.cleared:
        context.health.note(_cause(trouble), None)
        if speak:
            context.bus.emit(_event("resolved", trouble, f"no longer: {trouble.message}"))
    for trouble in changes.raised:
        context.health.note(_cause(trouble), trouble.message)
        context.log.warning("route withheld", what=trouble.what, object=trouble.object)
        if speak:
            context.bus.emit(_event(trouble.what, trouble, trouble.message))


def _cause(trouble: Withheld) -> str:
    return f"{trouble.what} {trouble.object}"


def _event(what: str, trouble: Withheld, message: str) -> Event:
    return Event(time=time.time(), domain="route", what=what, object=trouble.object, message=message)
