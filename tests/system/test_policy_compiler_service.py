"""The policy compiler on a real nats-server: what it writes, what it keeps, and who writes when one replica dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
import structlog

from bus_schemas.resources import NetworkPolicy
from bus_schemas.subjects import ATTACHMENT, EVENT, Fact, Stream
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.feed import Interest
from chassis.health import Health
from chassis.heartbeat import Heartbeat
from chassis.runner import Context
from services.policy_compiler.core import WRITES
from services.policy_compiler.service import NOTHING_DESIRED, UNREADABLE, serve
from services.policy_compiler.settings import Settings
from tests.support.compiled_policy import CompiledPolicy, Packet
from tests.support.expanders import gone
from tests.support.policy_worlds import desired, endpoint, manifests, namespace, pod

PATIENCE_S = 20.0

WEB_KEY = ("node1", "shop", "web")
PACKET = Packet("10.0.0.2", "10.0.0.1", 6, 80)
CLUSTER = [
    namespace("shop"),
    pod("shop/web", {"app": "web"}),
    pod("shop/client", {"app": "client"}),
    endpoint("shop/web", "10.0.0.1"),
    endpoint("shop/client", "10.0.0.2"),
]
POLICIES = manifests("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {access: granted}}}]}]
""")


class Replica:
    """The service in a task of its own, with a connection of its own."""

    def __init__(self, url: str, instance: str, tasks: asyncio.TaskGroup) -> None:
        self._settings = Settings(nats_url=url, instance=instance, health_listen="")
        self.health = Health()
        self._stopping = asyncio.Event()
        self._task = tasks.create_task(self._live())

    async def _live(self) -> None:
        async with Bus.connect(self._settings, name="policy_compiler", health=self.health) as bus:
            await serve(
                Context(
                    name="policy_compiler",
                    settings=self._settings,
                    bus=bus,
                    health=self.health,
                    log=structlog.get_logger(),
                    stopping=self._stopping,
                    heartbeat=Heartbeat(bus, "policy_compiler", "test", self.health, started=0.0),
                )
            )

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.wait([self._task])

    async def kill(self) -> None:
        """At once, wherever it stands."""
        self._task.cancel()
        await asyncio.wait([self._task])


class Client:
    """Puts facts, and holds what the compiler wrote as an agent would."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.written = CompiledPolicy()
        self.events: list[Any] = []
        self._changed = asyncio.Event()

    async def put(self, *facts: Fact) -> None:
        for fact in facts:
            if fact.value is None:
                await self.bus.delete(fact.family, fact.key)
            else:
                await self.bus.put(fact.family, fact.key, fact.value)

    async def follow(self) -> None:
        async with self.bus.follow(*map(Interest, (*WRITES, EVENT))) as feed:
            while True:
                for fact in (await feed.next()).facts:
                    self._take(fact)
                self._changed.set()

    def _take(self, fact: Fact) -> None:
        if fact.family == EVENT:
            self.events.append(fact.value)
        else:
            self.written.learn(fact)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Looks again after every change of what is written."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def attached(self) -> bool:
        return len(self.written.attachments) == 2 and not self.written.complaints()

    def allowed(self) -> bool:
        return not self.written.complaints() and self.written.allows("ingress", WEB_KEY, PACKET)

    def denied(self) -> bool:
        return self.attached() and not self.allowed()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path) as server:
        yield server


@asynccontextmanager
async def clients(server: EmbeddedNats, *facts: Fact) -> AsyncIterator[tuple[Client, asyncio.TaskGroup]]:
    async with (
        Bus.connect(Settings(nats_url=server.url, instance="test"), name="test", health=Health()) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        await bus.connected()
        client = Client(bus)
        await client.put(*facts)
        following = tasks.create_task(client.follow())
        yield client, tasks
        following.cancel()


async def settled(condition: Callable[[], bool]) -> None:
    """For what shows in no message, only in the replica's health."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_policies_and_labels_take_effect(server: EmbeddedNats) -> None:
    async with clients(server, *CLUSTER) as (client, tasks):
        replica = Replica(server.url, "one", tasks)
        await client.until(client.allowed)
        await client.put(*POLICIES)
        await client.until(client.denied)
        await client.put(pod("shop/client", {"access": "granted"}))
        await client.until(client.allowed)
        await client.put(*CLUSTER)
        await client.until(client.denied)
        await client.put(gone(POLICIES[0]))
        await client.until(client.allowed)
        await client.until(lambda: not client.written.groups and not client.written.rules)
        await client.put(gone(CLUSTER[1]))
        await client.until(lambda: WEB_KEY not in client.written.attachments)
        await replica.stop()


async def test_a_restart_changes_nothing_and_catches_up(server: EmbeddedNats) -> None:
    async with clients(server, *CLUSTER, *POLICIES) as (client, tasks):
        first = Replica(server.url, "one", tasks)
        await client.until(client.denied)
        before = await client.bus.get(ATTACHMENT, WEB_KEY)
        await first.kill()
        await client.put(pod("shop/client", {"access": "granted"}))
        second = Replica(server.url, "one", tasks)
        await client.until(client.allowed)
        assert (await client.bus.get(ATTACHMENT, WEB_KEY)).sequence == before.sequence
        await second.stop()


async def test_another_replica_takes_over(server: EmbeddedNats) -> None:
    async with clients(server, *CLUSTER, *POLICIES) as (client, tasks):
        replicas = [Replica(server.url, name, tasks) for name in ("one", "two")]
        await client.until(client.denied)
        await replicas[0].kill()
        await client.put(pod("shop/client", {"access": "granted"}))
        await client.until(client.allowed)
        await replicas[1].stop()


async def test_policy_is_kept_when_everything_desired_was_wiped(server: EmbeddedNats) -> None:
    async with clients(server, *CLUSTER, *POLICIES) as (client, tasks):
        first = Replica(server.url, "one", tasks)
        await client.until(client.denied)
        await first.stop()
        connection = await nats.connect(server.url)
        await connection.jetstream().purge_stream(Stream.DESIRED)
        await connection.close()
        second = Replica(server.url, "one", tasks)
        await settled(lambda: NOTHING_DESIRED in second.health.notes)
        assert client.denied()
        await client.put(*CLUSTER, *POLICIES, pod("shop/client", {"access": "granted"}))
        await client.until(client.allowed)
        await settled(lambda: NOTHING_DESIRED not in second.health.notes)
        await second.stop()


@pytest.mark.parametrize("repaired", [True, False], ids=["repaired", "removed"])
async def test_a_policy_that_cannot_be_read_is_not_one_that_is_gone(server: EmbeddedNats, repaired: bool) -> None:
    """Whoever ran keeps the last good value; whoever starts does not begin without it."""
    (policy,) = POLICIES
    async with clients(server, *CLUSTER, *POLICIES) as (client, tasks):
        first = Replica(server.url, "one", tasks)
        await client.until(client.denied)
        session = await client.bus.session()
        await session.publish(policy.family.subject(*policy.key), b"garbage")
        await settled(lambda: "malformed" in first.health.notes)
        assert client.denied()
        await first.kill()
        second = Replica(server.url, "one", tasks)
        await settled(lambda: UNREADABLE in second.health.causes)
        assert policy.family.subject(*policy.key) in second.health.causes[UNREADABLE]
        assert client.denied()
        if repaired:
            await client.put(policy)
            await settled(lambda: UNREADABLE not in second.health.causes)
            assert client.denied()
        await client.put(gone(policy))
        await client.until(client.allowed)
        assert UNREADABLE not in second.health.causes
        await second.stop()


async def test_what_cannot_be_compiled_is_named(server: EmbeddedNats) -> None:
    broken = desired(
        msgspec.convert(
            {
                "type": "networkpolicy/1",
                "metadata": {"name": "broken", "namespace": "shop"},
                "spec": {"ingress": [{"action": "Deny", "source": {"selector": "app =="}}, {"action": "Allow"}]},
            },
            NetworkPolicy,
        )
    )
    async with clients(server, *CLUSTER) as (client, tasks):
        replica = Replica(server.url, "one", tasks)
        await client.until(client.allowed)
        await client.put(broken)
        await client.until(client.denied)
        await client.until(lambda: any(e.what == "not_compiled" for e in client.events))
        assert "networkpolicy/shop/broken: spec.ingress[0].source" in replica.health.notes["not compiled"]
        await client.until(lambda: ("networkpolicy", "shop", "broken") in client.written.statuses)
        (status,) = client.written.statuses.values()
        assert status.policy == "NetworkPolicy/shop/broken"
        assert status.faults[0].startswith("spec.ingress[0].source.selector: ")
        await client.put(gone(broken))
        await client.until(client.allowed)
        await client.until(lambda: any(e.what == "resolved" for e in client.events))
        await client.until(lambda: not client.written.statuses)
        await settled(lambda: "not compiled" not in replica.health.notes)
        await replica.stop()
