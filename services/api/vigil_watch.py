"""The shell of the vigil: looks at the mirror every second; of several replicas the one with the lease tells."""

from __future__ import annotations

import asyncio
import time

from bus_schemas.events import Event
from bus_schemas.ids import NodeName
from bus_schemas.resources import Node
from chassis.bus import Bus
from chassis.lease import Lease
from services.api.store import Store
from services.api.vigil import Turn, Vigil, sentence

LEASE = "api_vigil"
AGENT = "node_dataplane"
INTERVAL_S = 1.0


async def watch(bus: Bus, store: Store, instance: str) -> None:
    """For ever: nodes that are lost and found become events."""
    lease = Lease(bus, LEASE, instance)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(lease.run())
        vigil = Vigil()
        while True:
            await asyncio.sleep(INTERVAL_S)
            statuses = store.core.statuses.values()
            speaking = {status.node for status in statuses if status.component == AGENT and status.node}
            desired = {stored.resource.metadata.name for stored in store.core.resources(Node)}
            now = time.time()
            for turn in vigil.look(speaking, desired, bus=store.current, now=now):
                if lease.held:
                    bus.emit(_event(turn, len(speaking & desired), len(desired), now))


def _event(turn: Turn, speaking: int, desired: int, now: float) -> Event:
    silent = {} if turn.silent_s is None else {"silent_s": f"{turn.silent_s:.0f}"}
    return Event(
        time=now,
        domain="node",
        what=turn.what,
        node=NodeName(turn.node),
        object=turn.node,
        message=sentence(turn, speaking, desired),
        detail=silent,
    )
