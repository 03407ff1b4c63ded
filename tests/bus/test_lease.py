"""Who writes: one of the replicas, fenced by sequences."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus_schemas.subjects import LEASE
from chassis.bus import Bus
from chassis.errors import Conflict
from chassis.lease import Lease
from tests.support.nats import Nats
from tests.support.waiting import eventually


@asynccontextmanager
async def running(lease: Lease) -> AsyncIterator[Lease]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(lease.run())
        try:
            yield lease
        finally:
            task.cancel()


def lease_of(bus: Bus, holder: str, ttl_s: float = 3.0) -> Lease:
    return Lease(bus, "service", holder, ttl_s=ttl_s)


async def test_one_of_two_holds_it_and_the_other_takes_over_when_it_leaves(nats: Nats) -> None:
    async with nats.bus() as bus, running(lease_of(bus, "b")) as b:
        await eventually(lambda: b.held)
        changes: list[bool] = []
        a = lease_of(bus, "a")
        a.on_change(changes.append)
        async with running(a), nats.bus() as third, running(lease_of(third, "c")) as c:
            await eventually(lambda: b.held and not a.held and not c.held)
            assert changes == []
        assert changes == []
    async with nats.bus() as bus, running(lease_of(bus, "d")) as d:
        await eventually(lambda: d.held, within_s=2)  # given back, not waited for


async def test_takeover_after_a_kill_waits_for_the_time_to_live(nats: Nats) -> None:
    async with nats.bus() as bus, nats.bus() as dying:
        a, b = lease_of(dying, "a", 1.0), lease_of(bus, "b", 1.0)
        await a._step()
        assert a.held
        async with running(b):  # `a` is never heard of again
            await eventually(lambda: b.held)
            assert not a.held
            assert a._sequence is not None
            with pytest.raises(Conflict):
                await dying.swap(LEASE, ("service",), None, expected=a._sequence)


async def test_the_same_holder_takes_it_again_at_once(nats: Nats) -> None:
    async with nats.bus() as bus, nats.bus() as again:
        killed = lease_of(bus, "a", 60.0)
        await killed._step()
        assert killed.held
        restarted = lease_of(again, "a", 60.0)
        await restarted._step()
        assert restarted.held
        other = lease_of(bus, "b", 60.0)
        await other._step()
        assert not other.held


async def test_held_ends_by_our_own_clock_while_the_bus_is_away(nats: Nats) -> None:
    async with nats.bus() as bus:
        lease = lease_of(bus, "a", 1.0)
        changes: list[bool] = []
        lease.on_change(changes.append)
        async with running(lease):
            await eventually(lambda: lease.held)
            await nats.kill()
            await eventually(lambda: not lease.held and changes == [True, False])
            await nats.start()
            await eventually(lambda: lease.held)


async def test_a_restart_of_the_bus_does_not_cost_the_lease(nats: Nats) -> None:
    async with nats.bus() as bus, nats.bus() as standby:
        a, b = lease_of(bus, "a", 6.0), lease_of(standby, "b", 6.0)
        async with running(a):
            await eventually(lambda: a.held)
            async with running(b):
                await nats.restart()
                await bus.connected()
                await standby.connected()
                believed = a._until
                await eventually(lambda: a._until > believed)  # renewed on the new server
                assert a.held
                assert not b.held


async def test_a_stale_holder_cannot_renew(nats: Nats) -> None:
    async with nats.bus() as bus:
        stale, now = lease_of(bus, "a"), lease_of(bus, "b")
        await stale._step()
        await bus.delete(LEASE, ("service",))
        await now._step()
        assert now.held
        await stale._step()
        assert not stale.held
        assert (await bus.get(LEASE, ("service",))).value.holder == "b"


async def test_who_is_not_fit_leaves_it_until_it_is(nats: Nats) -> None:
    async with nats.bus() as bus:
        fit = False
        lease = Lease(bus, "service", "a", ttl_s=60.0, fit=lambda: fit)
        await lease._step()
        assert not lease.held
        fit = True
        await lease._step()
        assert lease.held
        fit = False
        await lease._step()
        assert lease.held  # a holder is not asked


async def test_who_became_fit_takes_it_at_once(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.lease.POLL_S", 3600.0)
    async with nats.bus() as bus:
        fit = asked = False

        def is_fit() -> bool:
            nonlocal asked
            asked = True
            return fit

        lease = Lease(bus, "service", "a", ttl_s=60.0, fit=is_fit)
        async with running(lease):
            await eventually(lambda: asked)
            fit = True
            lease.became_fit()
            await eventually(lambda: lease.held)


async def test_two_replicas_of_one_name_do_not_both_lead(nats: Nats) -> None:
    async with nats.bus() as bus, nats.bus() as double:
        a, b = lease_of(bus, "same", 60.0), lease_of(double, "same", 60.0)
        await a._step()
        await b._step()  # takes itself for the former life of the first
        assert b.held
        await a._step()
        await a._step()
        assert not a.held
        assert "TORTIE_INSTANCE" in bus.health.notes["lease service"]
        await b._step()
        assert b.held
        assert "lease service" not in double.health.notes
        await b._give_back()
        await a._step()
        assert a.held
        assert "lease service" not in bus.health.notes
