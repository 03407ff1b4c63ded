"""What is owed to the address service, and what it is told later: only what survives the agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName, PodKey
from bus_schemas.ipam import Assigned, AssignRequest, Busy, Refused, Released, ReleaseRequest
from chassis.health import Health
from services.node_dataplane.debts import Debts
from services.node_dataplane.endpoint_store import EndpointStore, Plugin
from services.node_dataplane.locks import KeyedLocks
from services.node_dataplane.take_overs import TakeOvers
from tests.support.waiting import eventually

NODE = NodeName("node1")
OWN, WARM, FLOATING = HandleId("net.c1"), HandleId("warm.node1.1"), HandleId("net.c1.floating")
POD = PodKey("default", "web")


def web(**fields: Any) -> Plugin:
    endpoint = Endpoint(
        node=NODE, namespace="default", name="web", container="c1", handle=OWN, link="tor1", addresses=("10.0.0.5",)
    )
    return Plugin(endpoint=endpoint, handle=OWN, interface="eth0", netns="/n", mac="", mtu=1500, **fields)


class PlayedBus:
    """Notes, of every request, what an agent would know that is started just now."""

    def __init__(self, directory: Path) -> None:
        self.asked: list[tuple[Any, EndpointStore]] = []
        self.busy = False
        self.held: dict[HandleId, tuple[str, ...]] = {}
        self._directory = directory

    async def request(self, rpc: object, message: Any, *, timeout_s: float) -> Any:
        self.asked.append((message, EndpointStore(self._directory)))
        await asyncio.sleep(0)
        if self.busy:
            return Busy(reason="not now")
        if isinstance(message, ReleaseRequest):
            assert message.handle is not None
            return Released(addresses=self.held.pop(message.handle, ()))
        assert isinstance(message, AssignRequest)
        if self.held.get(message.handle, message.addresses) != message.addresses:
            return Refused(reason="it holds something else")
        self.held.pop(message.takes_over or HandleId(""), None)
        self.held[message.handle] = message.addresses
        return Assigned(addresses=message.addresses)


class PlayedAnnouncements:
    async def published(self) -> None: ...


@asynccontextmanager
async def running(store: EndpointStore, bus: PlayedBus) -> AsyncIterator[None]:
    health, handles = Health(), KeyedLocks()
    debts = Debts(NODE, store, PlayedAnnouncements(), bus, health)  # type: ignore[arg-type]
    take_overs = TakeOvers(NODE, store, bus, health, lambda: None, lambda *event: None)
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(debts.run(handles)), tasks.create_task(take_overs.run(handles))]
        yield
        for task in both:
            task.cancel()


async def test_nothing_is_given_back_that_a_restarted_agent_would_still_use(tmp_path: Path) -> None:
    store, bus = EndpointStore(tmp_path), PlayedBus(tmp_path)
    store.put(web())
    await store.save()
    store.remove(POD)
    store.owe(OWN)
    async with running(store, bus):
        await eventually(lambda: not store.owed)
    ((_, reborn),) = bus.asked
    assert reborn.get(POD) is None
    assert reborn.owed == (OWN,)


async def test_nothing_is_taken_over_that_a_restarted_agent_would_give_to_another_pod(tmp_path: Path) -> None:
    store, bus = EndpointStore(tmp_path), PlayedBus(tmp_path)
    store.put(web(takes_over=WARM))
    async with running(store, bus):
        await eventually(lambda: store.get(POD) == web())
    ((_, reborn),) = bus.asked
    assert reborn.get(POD) == web(takes_over=WARM)


async def test_a_container_that_comes_again_with_a_warm_address(tmp_path: Path) -> None:
    """Its DEL was a moment ago: what it had goes back, and then only the warm address passes to its handle."""
    store, bus = EndpointStore(tmp_path), PlayedBus(tmp_path)
    bus.held = {OWN: ("10.0.0.9",), WARM: ("10.0.0.5",)}
    store.owe(OWN)
    store.put(web(takes_over=WARM))
    async with running(store, bus):
        await eventually(lambda: bus.held == {OWN: ("10.0.0.5",)})
    assert store.owed == ()


@pytest.mark.parametrize(
    ("plugin", "owed"),
    [
        (web(), (FLOATING,)),
        (web(also=(FLOATING,)), ()),
        (web(also=(FLOATING,), takes_over=WARM), (OWN,)),
        (web(unassigned=True), (OWN, FLOATING)),
    ],
)
def test_what_a_pod_asks_for_again_is_not_owed(plugin: Plugin, owed: tuple[HandleId, ...], tmp_path: Path) -> None:
    store = EndpointStore(tmp_path)
    store.owe(OWN)
    store.owe(FLOATING)
    store.put(plugin)
    assert store.owed == owed
