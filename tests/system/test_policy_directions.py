"""Long directions from the compiler's process over a real nats-server into a node's table, without a gap."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import structlog

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import PodKey
from bus_schemas.resources import GlobalNetworkPolicy
from bus_schemas.shared_directions import rules_named
from bus_schemas.subjects import ATTACHMENT, Fact
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.health import Health
from chassis.heartbeat import Heartbeat
from chassis.runner import Context
from services.api import compiled
from services.node_dataplane.enforcement import Enforcement
from services.node_dataplane.nft.table import NodeRules
from services.node_dataplane.nft.transaction import Transaction
from services.policy_compiler.directions import LONGEST
from services.policy_compiler.service import serve
from services.policy_compiler.settings import Settings
from tests.support.nft_evaluator import Nftables, Packet
from tests.support.policy_changes import absent, stored
from tests.support.policy_worlds import endpoint, namespace, pod
from tests.support.waiting import eventually

POD = PodKey("shop", "web")
KEY = ("node1", *POD)
REQUEST = Packet("10.0.0.2", "10.0.0.1", 6, 80, out_link="torweb")


class Driver:
    """The model of the kernel, asked after each commit."""

    def __init__(self) -> None:
        self.kernel = Nftables()
        self.seen: list[bool] = []

    def commit(self, transaction: Transaction) -> None:
        self.kernel.run(str(transaction))
        self.seen.append(self.kernel.send(REQUEST).accepted)

    def adopt(self, transaction: Transaction) -> None:
        raise AssertionError("nothing was there to adopt")

    def exists(self) -> bool:
        return False

    def verify(self, expected: Any) -> list[str] | None:
        return []

    def strangers(self) -> list[str]:
        return []


def policy(n: int, action: str = "Pass") -> Fact:
    spec = {"selector": "all()", "types": ["Ingress"], "ingress": [{"action": action}], "order": n}
    return stored(GlobalNetworkPolicy, f"p{n:03}", spec)


async def test_from_the_compiler_to_the_kernel(tmp_path: Path) -> None:
    web = endpoint("shop/web", "10.0.0.1")
    assert isinstance(web.value, Endpoint)
    world = [namespace("shop"), pod("shop/web", {"app": "web"}), web, *(policy(n) for n in range(LONGEST + 1))]
    driver, health = Driver(), Health()
    made = Enforcement(web.value.node, driver, health, lambda *_: None)
    made.plug(web.value)
    made.set_node(NodeRules())
    settings = Settings(instance="one", health_listen="")
    async with (
        EmbeddedNats(tmp_path) as server,
        Bus.connect(Settings(nats_url=server.url, instance="test"), name="test", health=health) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        await bus.connected()
        for fact in world:
            await bus.put(fact.family, fact.key, fact.value)
        context = Context(
            name="policy_compiler",
            settings=settings,
            bus=bus,
            health=health,
            log=structlog.get_logger(),
            stopping=asyncio.Event(),
            heartbeat=Heartbeat(bus, "policy_compiler", "test", health, started=0.0),
        )
        jobs = [tasks.create_task(job) for job in (serve(context), made.follow(bus), made.run())]
        await enforced(made, LONGEST + 1)
        assert await shared(bus)
        assert driver.kernel.send(REQUEST).accepted, "whatever passes is allowed by the profile in the end"

        driver.seen.clear()
        await put(bus, policy(LONGEST + 1))
        await enforced(made, LONGEST + 2)
        await put(bus, absent(GlobalNetworkPolicy, "p000"), absent(GlobalNetworkPolicy, "p001"))
        await enforced(made, LONGEST)
        assert not await shared(bus)
        assert driver.seen
        assert all(driver.seen), "no change of the direction takes away what is allowed before and after"

        await put(bus, policy(0, "Deny"), policy(1))
        await enforced(made, LONGEST + 2)
        await eventually(lambda: not driver.kernel.send(REQUEST).accepted)
        assert await shared(bus)
        read = await compiled.read(bus, [KEY], [])
        found = read.attachments[KEY]
        assert found is not None
        assert len([id for id in rules_named(found.ingress) if read.world.rules(id)]) == LONGEST + 2
        context.stopping.set()
        for job in jobs[1:]:
            job.cancel()


async def put(bus: Bus, *facts: Fact) -> None:
    for fact in facts:
        if fact.value is None:
            await bus.delete(fact.family, fact.key)
        else:
            await bus.put(fact.family, fact.key, fact.value)


async def shared(bus: Bus) -> bool:
    return bool((await bus.get(ATTACHMENT, KEY)).value.ingress.shared)


async def enforced(made: Enforcement, policies: int) -> None:
    """So many govern the pod, and the kernel has them."""

    def there() -> bool:
        attachment = made.table.attachments.get(POD)
        known = attachment is not None and len(list(rules_named(attachment.ingress))) == policies
        return known and made.table.expected() is not None and not made.obstacle(POD)

    await eventually(there)
