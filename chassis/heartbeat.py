"""A sign of life on the bus: this process's status, renewed before it expires, so that silence is death."""

from __future__ import annotations

import asyncio

from bus_schemas import VERSION
from bus_schemas.ids import NodeName
from bus_schemas.status import STATUS_INTERVAL_S, STATUS_TTL_S, Status
from bus_schemas.subjects import STATUS
from chassis.bus import Bus
from chassis.errors import BusError
from chassis.health import Health


class Heartbeat:
    """Publishes `Status` every `interval_s`. A failed beat is not repeated: the next one says more."""

    def __init__(
        self,
        bus: Bus,
        component: str,
        instance: str,
        health: Health,
        *,
        started: float,
        node: NodeName | None = None,
        interval_s: float = STATUS_INTERVAL_S,
    ) -> None:
        self._bus = bus
        self._key = (component, instance)
        self._health = health
        self._started = started
        self.node = node
        """The node that this process speaks for; the service sets it."""
        self.detail: dict[str, str] = {}
        """Whatever else the service wants to have known about itself; it may change at any time."""
        self._interval_s = interval_s
        self.missed = 0
        """Beats that did not reach the bus; the cause `bus` of the health says why."""

    def status(self) -> Status:
        component, instance = self._key
        return Status(
            component=component,
            instance=instance,
            node=self.node,
            version=VERSION,
            started=self._started,
            ready=self._health.ready,
            causes=self._health.sentences(),
            detail=dict(self.detail),
        )

    async def run(self) -> None:
        while True:
            await self._bus.connected()
            try:
                await self._bus.put(STATUS, self._key, self.status(), ttl_s=STATUS_TTL_S)
            except BusError:
                self.missed += 1
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._health.turned()  # ready or unready is said at once
            except TimeoutError:
                continue
