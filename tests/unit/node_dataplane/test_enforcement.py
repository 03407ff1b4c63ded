"""What the enforcement says of a pod is said of the incarnation that is plugged in now."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName, RulesId
from bus_schemas.policy import rules_id
from bus_schemas.subjects import Fact
from chassis.feed import Batch
from chassis.health import Health
from services.node_dataplane.enforcement import Enforcement
from services.node_dataplane.nft.frame import NodeRules
from services.node_dataplane.nft.transaction import Transaction
from services.node_dataplane.service_proxy.core import ServiceProxy
from tests.support.nft_worlds import attach, link, pod
from tests.support.service_worlds import port, service
from tests.support.waiting import eventually

POD = pod("a")


def endpoint(container: str = "c1") -> Endpoint:
    return Endpoint(
        node=NodeName("node1"),
        namespace=POD.namespace,
        name=POD.name,
        container=container,
        link=link("a"),
        addresses=("10.244.0.5",),
    )


class Driver:
    """Takes everything, when it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.let.set()
        self.asked = threading.Event()

    def commit(self, transaction: Transaction) -> None:
        self.asked.set()
        assert self.let.wait(10)

    def adopt(self, transaction: Transaction) -> None:
        raise AssertionError("nothing was there to adopt")

    def exists(self) -> bool:
        return self.asked.is_set()

    def verify(self, expected: Any) -> list[str] | None:
        return []

    def strangers(self) -> list[str]:
        return ["ip filter FORWARD"]


class PlayedFeed:
    """One batch, and then silence."""

    in_sync = True

    def __init__(self, *facts: Fact) -> None:
        self._batches = [Batch(list(facts), frozenset(), True)]

    async def next(self) -> Batch:
        if self._batches:
            return self._batches.pop()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    def add(self, *interests: Any) -> None: ...

    def discard(self, *interests: Any) -> None: ...


class PlayedBus:
    def __init__(self, *facts: Fact) -> None:
        self._feed = PlayedFeed(*facts)

    @asynccontextmanager
    async def follow(self, *interests: Any) -> AsyncIterator[PlayedFeed]:
        yield self._feed


@asynccontextmanager
async def running(made: Enforcement, *facts: Fact) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        jobs = [tasks.create_task(made.follow(PlayedBus(*facts))), tasks.create_task(made.run())]  # type: ignore[arg-type]
        try:
            yield
        finally:
            for job in jobs:
                job.cancel()


def made_with(driver: Driver, health: Health | None = None) -> Enforcement:
    return Enforcement(NodeName("node1"), driver, health or Health(), lambda *_: None)


async def test_a_pod_that_came_anew_during_a_commit_is_not_in_place_by_the_old_one() -> None:
    driver = Driver()
    driver.let.clear()
    made = made_with(driver)
    made.plug(endpoint("c1"))
    made.set_node(NodeRules())
    async with running(made, attach("a")):
        await asyncio.to_thread(driver.asked.wait, 10)
        made.unplug(POD)
        made.plug(endpoint("c2"))
        driver.let.set()
        await made.ready()
        assert made.obstacle(POD)


async def test_nobody_is_remembered_who_waited_in_vain() -> None:
    made = made_with(Driver())
    made.plug(endpoint())
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(made.in_place(endpoint()))
        await asyncio.sleep(0)
        waiting.cancel()
    made.unplug(POD)
    made.plug(endpoint())
    made.set_node(NodeRules())
    async with running(made, attach("a")):
        await made.in_place(endpoint())
        assert not made.obstacle(POD)


async def test_services_are_told_of_once_they_are_in_the_kernel() -> None:
    health, driver, told = Health(), Driver(), list[set[str]]()
    made = Enforcement(NodeName("node1"), driver, health, lambda *_: None, proxy=ServiceProxy(NodeName("node1")))
    made.served = lambda frontends: told.append(set(map(str, frontends)))
    made.set_node(NodeRules())
    driver.let.clear()
    broken = service("b", "10.96.0.x", "10.96.0.2")
    async with running(made, service("a", "10.96.0.1", ports=(port("tcp/80", 30080),)), broken):
        await asyncio.to_thread(driver.asked.wait, 10)
        assert not told
        driver.let.set()
        await made.ready()
        assert told == [{"10.96.0.1 tcp/80", "10.96.0.2 tcp/80"}]
        assert health.notes["service addresses"] == "Service shop/b: clusterIPs: '10.96.0.x' is no address"
        made.set_node_addresses([bytes((192, 168, 0, 1))])
        await eventually(lambda: told[-1] == {"192.168.0.1 tcp/30080"})


async def test_other_filters_that_drop_by_default_are_noted() -> None:
    health = Health()
    made = made_with(Driver(), health)
    made.set_node(NodeRules())
    async with running(made):
        await made.ready()
        await made.check(deep=True)
    assert health.notes["other packet filters"].startswith("ip filter FORWARD drop by default")


def test_a_policy_that_is_gone_keeps_its_title() -> None:
    """What it denied is summed up after it went."""
    made = made_with(Driver())
    assert made.title(rules_id("globalnetworkpolicy", "", "a")) == "GlobalNetworkPolicy/a"
    assert made.title(rules_id("k8snetworkpolicy", "shop", "a")) == "NetworkPolicy/shop/a"
    assert made.title(RulesId("unheard/a")) == "unheard/a"
