"""A bus that lost the address records, in every way that it can, while ipam and the agents are real: what the agents
hold comes back, nobody is given it meanwhile, and a new bus does not wait for anybody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from bus_schemas.events import Event
from bus_schemas.ids import HandleId, NodeName, PodKey
from bus_schemas.ipam import Assigned, Busy, Held
from bus_schemas.subjects import BLOCK, EVENT, HANDLE, Stream
from chassis.feed import Interest
from tests.support.ipam import ask
from tests.support.ipam_world import IpamWorld, ipam_world
from tests.support.waiting import within

SOON = {"recovery_settle_s": "0.5"}


async def populate(world: IpamWorld, nodes: int = 3, pods: int = 4) -> set[str]:
    """Nodes with pods and a tunnel address each; all of the addresses."""
    for i in range(nodes):
        await world.add_node(f"n{i}")
    await world.opened()
    given = await asyncio.gather(
        *(
            world.add(f"n{i}", f"p{i}-{j}", families=(4, 6) if j % 2 else (4,))
            for i in range(nodes)
            for j in range(pods)
        )
    )
    held = {address for addresses in given for address in addresses}
    assert len(held) == sum(map(len, given)), "an address was given twice"
    return held


async def recovered(world: IpamWorld, before: str) -> None:
    async def ready() -> bool:
        epoch = await world.epoch()
        return epoch is not None and epoch.id != before and epoch.state == "ready"

    await within(ready, "the records were read back", 40.0)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("how", ["purged", "deleted", "store lost", "store lost, ipam restarted"])
async def test_what_agents_hold_comes_back(how: str, replicas: int, tmp_path: Path) -> None:
    async with ipam_world(tmp_path, replicas=replicas, **SOON) as world:
        held = await populate(world)
        before = (await world.epoch()).id
        handles = (await world.snapshot(HANDLE))[HANDLE]
        if how == "purged":
            await world.wipe(Stream.BLOCKS)
        elif how == "deleted":
            await world.wipe(Stream.BLOCKS, operation="DELETE")
        else:
            if "restarted" in how:
                for name in list(world.replicas):
                    await world.kill_ipam(name)
            await world.lose_the_store()
            if "restarted" in how:
                for i in range(replicas):
                    await world.start_ipam(f"ipam-{i}")
        # requests arrive all the time
        coming = await asyncio.gather(*(world.add(f"n{i % 3}", f"new-{i}") for i in range(12)))
        await recovered(world, before)
        fresh = [address for addresses in coming for address in addresses]
        assert len(set(fresh)) == len(fresh)
        assert held.isdisjoint(fresh), "an address of a living pod was given again"
        await world.books_agree()
        now = (await world.snapshot(HANDLE))[HANDLE]
        for key, handle in handles.items():
            assert set(now[key].addresses) == set(handle.addresses)
            assert (now[key].node, now[key].pod) == (handle.node, handle.pod)


async def test_a_silent_agent_is_awaited_until_it_speaks(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, **SOON) as world:
        held = await populate(world)
        await world.kill_agent("n2")
        await world.wipe(Stream.BLOCKS)

        async def awaited() -> bool:
            epoch = await world.epoch()
            return epoch is not None and epoch.state == "recovering" and epoch.missing == ("n2",)

        await within(awaited, "n2 is awaited")
        reply = await world.agents["n0"].ask(ask("new", "n0"))
        assert isinstance(reply, Busy)
        assert "have not said yet what they hold: n2" in reply.reason
        await world.start_agent("n2")
        await world.opened()
        [address] = await world.add("n0", "new", families=(4,))
        assert address not in held
        await world.books_agree()


async def test_a_silent_node_that_is_deleted_is_awaited_no_longer(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, **SOON) as world:
        await populate(world)
        await world.kill_agent("n2")
        before = (await world.epoch()).id
        await world.wipe(Stream.BLOCKS)

        async def awaited() -> bool:
            epoch = await world.epoch()
            return epoch is not None and epoch.missing == ("n2",)

        await within(awaited, "n2 is awaited")
        await world.remove_node("n2")
        await recovered(world, before)
        await world.add("n0", "new")
        await world.books_agree()


async def test_what_is_held_beside_pods_comes_back(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, **SOON) as world:
        made = await world.add_node("n0")
        await world.opened()
        reply = await made.ask(ask("warm.n0.1", "n0", use="warm", families=(4,)))
        assert isinstance(reply, Assigned)
        made.beside.append(Held(handle=HandleId("warm.n0.1"), addresses=reply.addresses))
        made.holding.mark()
        before = (await world.epoch()).id
        for name in list(world.replicas):
            await world.kill_ipam(name)
        await world.lose_the_store()
        await world.start_ipam("ipam-0")
        await recovered(world, before)
        assert (await world.bus.get(HANDLE, ("warm.n0.1",))).value.use == "warm"
        assert (await made.ask(ask("warm.n0.1", "n0", use="warm", families=(4,)))) == Assigned(
            addresses=reply.addresses, repeated=True
        )


async def test_an_address_that_two_nodes_list_is_told(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, **SOON) as world:
        first = await world.add_node("n0")
        second = await world.add_node("n1")
        await world.opened()
        [address] = await world.add("n0", "web", families=(4,))
        plugin = first.store.get(PodKey("default", "web"))
        assert plugin is not None
        copied = msgspec.structs.replace(plugin.endpoint, node=second.node, name="copy", handle=HandleId("net.copy"))
        async with world.bus.follow(Interest(EVENT, ("ipam", "duplicate"))) as events, asyncio.timeout(60):
            second.announcements.announce(copied)
            told: list[Event] = []
            while not told:
                told += [fact.value for fact in (await events.next()).facts if fact.value is not None]
        assert told[0].object == address
        assert f"{address} is default/web's on n0 by the records, and n1 (default/copy) lists it" in told[0].message


async def test_a_new_bus_waits_for_nobody(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, recovery_settle_s="600") as world:
        await world.opened()
        made = await world.add_node("n0")
        await world.add_node("n1")
        await world.kill_agent("n1")
        assert made.node == NodeName("n0")
        await world.add("n0", "web")
        await world.books_agree()


async def test_wiped_again_while_it_is_read_back(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, replicas=2, **SOON) as world:
        held = await populate(world)
        for operation in ("PURGE", "DELETE", "PURGE"):
            before = (await world.epoch()).id
            await world.wipe(Stream.BLOCKS, operation=operation)

            async def another(before: str = before) -> bool:
                epoch = await world.epoch()
                return epoch is not None and epoch.id != before

            await within(another, "another life begins")
        await world.opened()
        [address] = await world.add("n0", "new", families=(4,))
        assert address not in held
        await world.books_agree()


async def test_endpoints_that_are_lost_block_nothing(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, **SOON) as world:
        await populate(world)
        before = await world.epoch()
        await world.wipe(Stream.ENDPOINTS)
        await world.add("n0", "new")
        await world.books_agree()
        assert await world.epoch() == before
        assert (await world.snapshot(BLOCK))[BLOCK]
