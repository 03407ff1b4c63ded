"""Duties run at whoever holds their lease, and only there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import time

from bus_schemas.status import Lease as LeaseMessage
from bus_schemas.subjects import LEASE
from chassis.bus import Bus
from services.ipam import duties
from services.ipam.duties import Duties
from tests.support.nats import Nats
from tests.support.waiting import eventually


class Diary:
    """A duty that notes when it begins and ends."""

    def __init__(self) -> None:
        self.began = 0
        self.ended = 0

    @property
    def at_work(self) -> bool:
        return self.began > self.ended

    async def run(self) -> None:
        self.began += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1


async def usurp(bus: Bus) -> None:
    """Somebody else writes himself into the lease, whoever renews it meanwhile."""
    message = LeaseMessage(service=duties.LEASE, holder="usurper", until=time() + 60)
    await bus.put(LEASE, (duties.LEASE,), message)


async def test_a_lost_lease_ends_the_duties_and_they_begin_anew(nats: Nats) -> None:
    diary, fit = Diary(), False
    async with nats.bus() as bus, asyncio.TaskGroup() as tasks:
        one = Duties(bus, "one", {"diary": diary.run, "another": diary.run}, fit=lambda: fit)
        running = tasks.create_task(one.run())
        other = Diary()
        standby = tasks.create_task(Duties(bus, "two", {"diary": other.run}, fit=lambda: False).run())
        fit = True
        one.became_fit()
        await eventually(lambda: diary.began == 2)
        await usurp(bus)
        await eventually(lambda: diary.ended == 2)
        await bus.delete(LEASE, (duties.LEASE,))
        await eventually(lambda: diary.began == 4)
        running.cancel()
        standby.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert not diary.at_work
        assert other.began == 0
