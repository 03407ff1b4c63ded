"""What somebody creates in Kubernetes ends as compiled policy, addresses, routes: every service a process of its own.

The agent is the test: it says which pods are plugged in, and asks for addresses.
"""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Holding
from bus_schemas.subjects import ASSIGN, ENDPOINT, EPOCH, HOLDING, ROUTE
from chassis.bus import Bus
from chassis.errors import Unavailable
from chassis.feed import Interest
from services.policy_compiler.core import WRITES
from tests.support.compiled_policy import CompiledPolicy, Packet
from tests.support.kube_cluster import KubeCluster, calico, cluster, node, node_status, pod, policy
from tests.support.kube_processes import serving
from tests.support.nats import Nats
from tests.support.waiting import eventually, within

PATIENCE_S = 60.0
LEASE_S = "3"
ALLOWED = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {}}]}]}
ISOLATED = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}


class World:
    """A namespace with the pods `web` and `client` on one node, and the verdict on packets between them."""

    def __init__(self, kube: KubeCluster, bus: Bus, shop: str) -> None:
        self.kube, self.bus, self.shop = kube, bus, shop
        self.node = kube.name("node1")
        self.written = CompiledPolicy()
        self.routes: dict[str, str] = {}

    async def follow(self) -> None:
        async with self.bus.follow(*(Interest(family) for family in (*WRITES, ROUTE))) as feed:
            while True:
                for fact in (await feed.next()).facts:
                    if fact.family == ROUTE:
                        self.routes[fact.key[0]] = fact.value.address if fact.value is not None else ""
                    else:
                        self.written.learn(fact)

    async def plug(self, name: str, address: str) -> None:
        """The agent's word."""
        uid = (await self.kube.get("v1", "Pod", self.shop, name))["metadata"]["uid"]
        endpoint = Endpoint(
            node=NodeName(self.node),
            namespace=self.shop,
            name=name,
            container=name,
            link=f"tor{name}",
            addresses=(address,),
            uid=uid,
        )
        await self.bus.put(ENDPOINT, (self.node, self.shop, name), endpoint)

    async def say_what_it_holds(self) -> None:
        """The agent's word, too: nothing. A node that is older than the address records is waited for."""
        epoch = (await self.bus.get(EPOCH, ())).value
        if epoch is not None:
            await self.bus.put(HOLDING, (self.node,), Holding(node=NodeName(self.node), epoch=epoch.id))

    def attached(self) -> bool:
        ours = [key for key in self.written.attachments if key[1] == self.shop]
        return len(ours) == 2 and not self.written.complaints()

    def open(self) -> bool:
        packet = Packet("10.77.0.2", "10.77.0.1", 6, 80)
        return self.attached() and self.written.allows("ingress", (self.node, self.shop, "web"), packet)

    def closed(self) -> bool:
        return self.attached() and not self.open()

    async def until(self, condition: Callable[[], bool]) -> None:
        await eventually(condition, within_s=PATIENCE_S)


@asynccontextmanager
async def world(nats: Nats, kube: KubeCluster, *, plugged: bool = True) -> AsyncIterator[World]:
    shop = await kube.namespace("shop", team="red")
    async with nats.bus() as bus, asyncio.TaskGroup() as tasks:
        await bus.connected()
        at = World(kube, bus, shop)
        following = tasks.create_task(at.follow())
        one = node(at.node, **{"projectcalico.org/IPv4Address": "192.0.2.7/24"})
        await kube.create(one)
        await kube.patch(one, node_status("192.0.2.7"), status=True)
        for name, address in (("web", "10.77.0.1"), ("client", "10.77.0.2")):
            await kube.create(pod(shop, name, node=at.node, labels={"app": name}))
            if plugged:
                await at.plug(name, address)
        yield at
        following.cancel()


@asynccontextmanager
async def bridges(nats: Nats, kube: KubeCluster, log: Path, *names: str) -> AsyncIterator[dict[str, Process]]:
    settings = {
        "KUBECONFIG": str(kube.kubeconfig),
        "KUBE_LEASE_NAME": kube.unique,
        "KUBE_LEASE_S": LEASE_S,
        "KUBE_RETRY_MAX_S": "1",
    }
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(serving("kube-bridge", nats.url, name, log, **settings))
            for name in names
        }


async def holder(kube: KubeCluster) -> str:
    """The name of the active bridge."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{kube.unique}"
    lease = msgspec.json.decode(await kube.client.get(path, resource="test"))
    return str(lease["spec"].get("holderIdentity") or "").partition("_")[0]


async def test_a_policy_of_kubernetes_is_compiled_while_leaders_die(nats: Nats, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with (
        cluster(tmp_path) as kube,
        world(nats, kube) as at,
        serving("policy-compiler", nats.url, "compiler", log),
        bridges(nats, kube, log, "one", "two") as running,
    ):
        await at.until(at.open)
        isolating = policy(at.shop, "isolate", ISOLATED)
        await kube.create(isolating)
        await at.until(at.closed)
        await kube.delete(isolating)
        await at.until(at.open)

        leader = await holder(kube)
        running[leader].send_signal(signal.SIGKILL)
        await kube.create(isolating)  # while nobody leads
        await at.until(at.closed)
        (other,) = running.keys() - {leader}
        assert await holder(kube) == other
        await kube.patch(isolating, {"spec": ALLOWED})
        await at.until(at.open)
        await kube.patch(isolating, {"spec": {**ISOLATED, "ingress": None}})
        await at.until(at.closed)
        await kube.delete(pod(at.shop, "web"))
        await at.until(lambda: (at.node, at.shop, "web") not in at.written.attachments)
        running[other].send_signal(signal.SIGTERM)
        assert await running[other].wait() == 0


async def test_a_leader_that_was_paused_overwrites_nothing(nats: Nats, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with (
        cluster(tmp_path) as kube,
        world(nats, kube) as at,
        serving("policy-compiler", nats.url, "compiler", log),
        bridges(nats, kube, log, "one", "two") as running,
    ):
        await at.until(at.open)
        leader = await holder(kube)
        isolating = policy(at.shop, "isolate", ISOLATED)
        running[leader].send_signal(signal.SIGSTOP)
        try:
            await kube.create(isolating)
            await at.until(at.closed)
        finally:
            running[leader].send_signal(signal.SIGCONT)
        (other,) = running.keys() - {leader}
        opened: list[bool] = []
        for number in range(3):  # it is awake, and everything goes on without its hand in it
            label = {"metadata": {"labels": {"round": str(number)}}}
            await kube.patch(pod(at.shop, "client"), label)
            await kube.create(pod(at.shop, f"more{number}", node=at.node))
            opened.append(at.open())
        assert not any(opened)
        assert await holder(kube) == other
        await kube.delete(isolating)
        await at.until(at.open)


async def test_the_api_server_is_away_and_back_with_things_deleted(nats: Nats, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with (
        cluster(tmp_path) as kube,
        world(nats, kube) as at,
        serving("policy-compiler", nats.url, "compiler", log),
        bridges(nats, kube, log, "one"),
    ):
        server = kube.stand_in
        isolating = policy(at.shop, "isolate", ISOLATED)
        await kube.create(isolating)
        await at.until(at.closed)
        await server.stop()
        server.store.delete("/apis/networking.k8s.io/v1/networkpolicies", at.shop, "isolate")
        server.store.compact()
        assert at.closed()
        await server.start()
        await at.until(at.open)
        await kube.create(isolating)
        await at.until(at.closed)
        server.error("networkpolicies", 410, "too old resource version: 1 (2)")  # a gap in the watch
        server.store.delete("/apis/networking.k8s.io/v1/networkpolicies", at.shop, "isolate")
        server.store.compact()
        await at.until(at.open)


async def test_a_pool_of_kubernetes_gives_addresses_and_routes(nats: Nats, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with cluster(tmp_path) as kube:
        await kube.needs("projectcalico.org/v3", "IPPool")
        async with (
            world(nats, kube, plugged=False) as at,
            serving("ipam", nats.url, "ipam", log),
            serving("route-distribution", nats.url, "routes", log),
            bridges(nats, kube, log, "one"),
        ):
            pool = kube.name("pool")
            await kube.create(calico("IPPool", pool, {"cidr": "10.78.0.0/24"}))
            asked = AssignRequest(
                node=NodeName(at.node),
                handle=HandleId("h1"),
                families=(4,),
                namespace=at.shop,
                pod="web",
                pools=(pool,),
            )

            async def given() -> str:
                await at.say_what_it_holds()
                try:
                    answer = await at.bus.request(ASSIGN, asked, timeout_s=5)
                except Unavailable:
                    return ""
                assert isinstance(answer, Assigned), answer
                return answer.addresses[0]

            address = await within(given, "an address of the pool", PATIENCE_S)
            assert address.startswith("10.78.0.")
            await at.until(lambda: "192.0.2.7/24" in at.routes.values())
