"""A node's word about what it holds: true when it arrives, whatever the bus loses meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName, PodKey
from bus_schemas.ipam import Affinity, AffinityState, Epoch, Held, Holding
from bus_schemas.subjects import AFFINITY, ASSIGN, ENDPOINT, EPOCH, HOLDING, Rpc, Stream
from chassis import jetstream
from chassis.bus import Bus
from services.node_dataplane.holding import Asking
from tests.support.holding import FakeAgent, agent
from tests.support.nats import Nats
from tests.support.waiting import eventually, until

NODE = NodeName("n1")
WARM = Held(handle=HandleId("warm.n1.1"), addresses=("10.0.0.9",))


def plug(made: FakeAgent, name: str) -> None:
    """As after an ADD."""
    endpoint = Endpoint(
        node=NODE, namespace="default", name=name, container=name, link=f"tor{name}", addresses=("10.0.0.1",)
    )
    made.announcements.announce(endpoint)


async def epoch(bus: Bus, name: str, state: str = "ready") -> None:
    await bus.put(EPOCH, (), Epoch(id=name, state=state, began=0.0))


async def word(bus: Bus) -> Holding | None:
    value: Holding | None = (await bus.get(HOLDING, (NODE,))).value
    return value


async def says(bus: Bus, **fields: Any) -> None:
    async def said() -> bool:
        found = await word(bus)
        return found is not None and all(getattr(found, name) == value for name, value in fields.items())

    await until(said, f"the node says {fields}")


async def test_the_word_follows_the_epoch_what_is_held_and_the_blocks(nats: Nats, tmp_path: Path) -> None:
    async with nats.bus() as bus, agent(nats.url, "n1", tmp_path / "n1") as made:
        await says(bus, epoch="", held=())
        await epoch(bus, "one")
        await says(bus, epoch="one")
        made.beside.append(WARM)
        made.holding.mark()
        await says(bus, epoch="one", held=(WARM,))
        block = Affinity(node=NODE, cidr="10.0.0.0/26", state=AffinityState.CONFIRMED)  # type: ignore[arg-type]
        await bus.put(AFFINITY, (NODE, "10.0.0.0/26"), block)
        await says(bus, blocks=("10.0.0.0/26",))
        await bus.delete(AFFINITY, (NODE, "10.0.0.0/26"))
        await says(bus, blocks=())
        assert made.holding.epoch == "one"


async def test_nothing_is_said_under_a_new_epoch_before_every_endpoint_is_on_the_bus(
    nats: Nats, tmp_path: Path
) -> None:
    async with nats.bus() as bus, agent(nats.url, "n1", tmp_path / "n1") as made:
        await epoch(bus, "one")
        plug(made, "web")
        await says(bus, epoch="one")
        # somebody took it from the bus, and nobody heard of that: no deletion was published
        await jetstream.api(
            await bus.session(),
            f"STREAM.PURGE.{Stream.ENDPOINTS}",
            {"filter": ENDPOINT.subject("n1", "default", "web")},
        )
        await epoch(bus, "two", "recovering")
        await says(bus, epoch="two")
        assert (await bus.get(ENDPOINT, ("n1", "default", "web"))).value is not None


async def test_a_wiped_stream_of_endpoints_loses_the_word_until_the_endpoints_are_back(
    nats: Nats, tmp_path: Path
) -> None:
    async with nats.bus() as bus, agent(nats.url, "n1", tmp_path / "n1") as made:
        await epoch(bus, "one")
        plug(made, "web")
        await says(bus, epoch="one")
        for operation in ("PURGE", "DELETE"):
            await jetstream.api(await bus.session(), f"STREAM.{operation}.{Stream.ENDPOINTS}")

            async def back() -> bool:
                info = await jetstream.stream_info(await bus.session(), Stream.ENDPOINTS)
                if info is None or (found := await word(bus)) is None or found.epoch != "one":
                    return False
                assert (await bus.get(ENDPOINT, ("n1", "default", "web"))).value is not None
                return True

            await until(back, f"the word is back after {operation}")


async def test_an_agent_that_restarts_keeps_the_blocks_it_knew_while_they_are_read_back(
    nats: Nats, tmp_path: Path
) -> None:
    async with nats.bus() as bus:
        await epoch(bus, "one", "recovering")
        before = Holding(node=NODE, epoch="zero", blocks=("10.0.0.0/26",))  # type: ignore[arg-type]
        await bus.put(HOLDING, (NODE,), before)
        async with agent(nats.url, "n1", tmp_path / "n1"):
            await says(bus, epoch="one", blocks=("10.0.0.0/26",))
            await epoch(bus, "one", "ready")
            await says(bus, epoch="one", blocks=())


class SlowBus:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()

    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any:
        await self.answer.wait()
        return message


async def test_what_is_asked_for_is_noted_before_the_barrier_opens() -> None:
    bus = SlowBus()
    asking = Asking(bus)
    noted: list[PodKey] = []

    async def ask() -> None:
        noted.append(await asking.request(ASSIGN, PodKey("a", "b"), timeout_s=1.0))

    async def barrier() -> list[PodKey]:
        await asking.ended()
        return list(noted)

    await asking.ended()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask())
        await eventually(lambda: bool(asking._under_way))
        passed = tasks.create_task(barrier())
        await asyncio.sleep(0)
        assert not passed.done()
        bus.answer.set()
    assert passed.result() == [PodKey("a", "b")]
