"""Gives back the addresses of pods that are gone, whenever the bus is there.

The pod's withdrawal is published first: no policy group may hold an address that is already another pod's.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Busy, Refused, Released, ReleaseReply, ReleaseRequest
from bus_schemas.subjects import RELEASE, Rpc
from chassis.errors import BusError
from chassis.health import Health
from services.node_dataplane.announcements import Announcements
from services.node_dataplane.endpoint_store import EndpointStore
from services.node_dataplane.errors import StoreError
from services.node_dataplane.locks import KeyedLocks

RETRY_S, LONGEST_RETRY_S = 1.0, 5.0
"""An address service that is busy may be so for long, and every node asks."""
REQUEST_S = 5.0


class Bus(Protocol):
    async def request(self, rpc: Rpc, message: ReleaseRequest, *, timeout_s: float) -> ReleaseReply: ...


class Debts:
    def __init__(
        self,
        node: NodeName,
        store: EndpointStore,
        announcements: Announcements,
        bus: Bus,
        health: Health,
    ) -> None:
        self._node = node
        self._store = store
        self._announcements = announcements
        self._bus = bus
        self._health = health
        self._wake = asyncio.Event()
        self._wake.set()

    def mark(self) -> None:
        """A handle is owed."""
        self._wake.set()

    async def run(self, handles: KeyedLocks) -> None:
        """For ever. `handles` are held while one is being given back, so that no ADD takes it up meanwhile."""
        retry_s = RETRY_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            left = ""
            try:
                await self._announcements.published()
                for handle in self._store.owed:
                    async with handles.of(handle):
                        if handle in self._store.owed:
                            left = await self._give_back(handle) or left
            except (BusError, StoreError) as error:  # Unwritten payments are paid again after a restart: no harm.
                left = str(error)
            if self._store.owed and left:
                self._health.note("addresses to give back", f"{len(self._store.owed)} handles, last: {left}")
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
                self._wake.set()
            else:
                retry_s = RETRY_S
                self._health.note("addresses to give back", None)

    async def _give_back(self, handle: HandleId) -> str:
        """Why it is still owed, or empty. Raises BusError, StoreError."""
        await self._store.save()  # Who is killed now and does not remember that the pod is gone takes it to be there.
        reply = await self._bus.request(RELEASE, ReleaseRequest(handle=handle, node=self._node), timeout_s=REQUEST_S)
        match reply:
            case Released():
                self._store.paid(handle)
                await self._store.save()
                return ""
            case Refused(reason=reason) | Busy(reason=reason):
                return reason
