"""Many nodes that read routes from packs, through what happens to a cluster: all know what is so, and nothing else."""

from __future__ import annotations

from contextlib import AsyncExitStack
from ipaddress import ip_network

from bus_schemas.resources import Node
from bus_schemas.subjects import DESIRED, ROUTE, Fact
from chassis.bus import Bus, Write
from chassis.feed import Interest
from chassis.packer import Packer
from tests.support.expanders import gone, world
from tests.support.mirror import Mirror, mirror
from tests.support.nats import Nats
from tests.support.route_service import replica
from tests.support.routes import Outcome, block, node, pool
from tests.support.waiting import eventually

NODES, BLOCKS, READERS = 40, 160, 12
INTERESTS = (Interest(ROUTE), Interest(DESIRED[Node]))


def of(number: int, owner: int) -> Fact:
    return block(str(ip_network((0x0A000000 + number * 64, 26))), f"n{owner}", pool="p")


MEMBERS = [node(f"n{i}", f"172.16.0.{i + 1}/16") for i in range(NODES)]
HALF = [of(i, i // 4 % NODES if i < BLOCKS // 2 else i % NODES) for i in range(BLOCKS)]
"""Half of them side by side, and told as summaries."""
WORLD = world(pool("p", "10.0.0.0/8"), MEMBERS, HALF)


async def tell(bus: Bus, *facts: Fact) -> None:
    for family in {fact.family.name: fact.family for fact in facts}.values():
        await bus.batch([Write(f.family, f.key, f.value) for f in facts if f.family == family])


async def all_know(readers: list[Mirror], *facts: Fact) -> None:
    told = Outcome([list(facts)]).told
    nodes = {fact.key[1] for fact in facts if fact.family == DESIRED[Node]}

    def agree() -> bool:
        return all(
            {cidr: value for (cidr, *more), value in reader.values.items() if not more} == told
            and {key[1] for key in reader.values if len(key) == 2} == nodes
            for reader in readers
        )

    await eventually(agree, within_s=60)


async def test_a_cluster_starts_changes_and_loses_a_node(nats: Nats) -> None:
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(nats.bus())
        await tell(bus, *WORLD)
        await stack.enter_async_context(replica(nats.url, "a"))
        first = await stack.enter_async_context(mirror(bus, *INTERESTS))
        await all_know([first], *WORLD)
        packer = Packer(bus, [ROUTE, DESIRED[Node]], wanted=lambda: True, least=1)
        await packer.turn()
        readers = []
        for number in range(READERS):
            own = await stack.enter_async_context(nats.bus(name=f"reader-{number}"))
            readers.append(await stack.enter_async_context(mirror(own, *INTERESTS, packed=True)))
        await all_know(readers, *WORLD)

        more = of(BLOCKS, 3)
        await tell(bus, more)
        await all_know(readers, *WORLD, more)
        dead = MEMBERS[1]
        await tell(bus, gone(dead))
        without = world(WORLD, more, gone(dead))
        await all_know(readers, *without)
        moved = of(0, 7)  # a summary falls apart
        await tell(bus, moved)
        late = await stack.enter_async_context(mirror(bus, *INTERESTS, packed=True))
        await all_know([*readers, late], *world(without, moved))
        await tell(bus, dead)
        await all_know([*readers, late], *world(WORLD, more, moved))
