"""The way between nodes is changed under connections that go on: every kind of tunnel that this kernel has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from bus_schemas.ids import PodKey
from services.node_dataplane.lingering import LINGER_S
from tests.support.conversation import Conversation, conversation
from tests.support.kernels import has
from tests.support.lab import lab_name
from tortie.lab import kernel, ownership, probes, wire
from tortie.lab.cluster import Cluster
from tortie.lab.pace import SLOWNESS
from tortie.lab.scenario import NodeSpec, Place, PodSpec
from tortie.lab.topology import UPLINK

pytestmark = [pytest.mark.root, pytest.mark.lab]

NODES = {
    "n1": NodeSpec(address="10.0.0.15/24"),
    "n2": NodeSpec(address="10.0.0.16/24"),
    "far": NodeSpec(address="10.0.9.21/24"),
}
A, B, C = (PodKey("default", name) for name in "abc")
PODS = {A: PodSpec(node="n1"), B: PodSpec(node="n2"), C: PodSpec(node="far")}
POOL = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {{name: pool}}
spec: {{cidr: 10.244.0.0/16, blockSize: 26, natOutgoing: true, vxlanMode: {vxlan}, ipipMode: {ipip}}}
"""
FELIX = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {{name: default}}
spec: {{wireguardEnabled: {on}}}
"""
DEADLINE_S = 20.0 * SLOWNESS


class Lab:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def pool(self, vxlan: str = "Never", ipip: str = "Never") -> None:
        await self.cluster.apply(POOL.format(vxlan=vxlan, ipip=ipip))

    async def wireguard(self, on: bool) -> None:
        await self.cluster.apply(FELIX.format(on=str(on).lower()))

    def place(self, pod: PodKey) -> Place:
        return Place("pod", f"{pod.namespace}/{pod.name}")

    def address(self, pod: PodKey) -> str:
        return self.cluster.address(self.place(pod))

    def conversation(self, one: PodKey, other: PodKey) -> ExitStack:
        ends = (self.cluster.netns(self.place(pod)) for pod in (one, other))
        return conversation(*ends, self.address(other))  # type: ignore[return-value]

    async def form(self, one: PodKey, other: PodKey) -> set[str]:
        """What a ping looks like on the uplink of the first node."""
        ends = (self.address(one), self.address(other))
        async with wire.capture(self.cluster.netns(Place("node", "n1")), UPLINK, *ends) as capture:
            await probes.probe(self.cluster.netns(self.place(one)), ends[1], "icmp", 0)
        return capture.seen

    async def until_seen(self, one: PodKey, other: PodKey, form: str) -> None:
        seen: set[str] = set()
        try:
            async with asyncio.timeout(DEADLINE_S):
                while seen != {form}:
                    seen = await self.form(one, other)
        except TimeoutError:
            raise AssertionError(f"{one.name} -> {other.name}: {seen}, not {form}") from None

    async def until_devices(self, wanted: set[str]) -> None:
        """A tunnel that nobody wants any more lingers."""
        found: set[str] = set()
        try:
            async with asyncio.timeout(LINGER_S + DEADLINE_S):
                while (found := await self.devices()) != wanted:
                    pass
        except TimeoutError:
            raise AssertionError(f"{found}, not {wanted}") from None

    async def devices(self) -> set[str]:
        """Tunnel devices that are up on the first node."""
        netns = self.cluster.netns(Place("node", "n1"))
        found = [await kernel.link(netns, name) for name in ("vxlan.tortie", "tunl0", "wg.tortie")]
        return {str(link["ifname"]) for link in found if link is not None and "UP" in link["flags"]}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    with ownership.owned(lab_name()) as directory:
        cluster = Cluster(directory.name, NODES, directory)
        try:
            await cluster.up(POOL.format(vxlan="CrossSubnet", ipip="Never"), {}, PODS, lambda text: None)
            yield Lab(cluster)
        finally:
            await cluster.down()


async def test_connections_outlive_every_switch(lab: Lab) -> None:
    """Pods that started with the MTU of the first way keep it: large packets are told on the way that they must be
    smaller, and pass."""
    with lab.conversation(A, B) as near, lab.conversation(A, C) as far:

        async def both(kind: str, near_form: str, far_form: str) -> None:
            await lab.until_seen(A, B, near_form)
            await lab.until_seen(A, C, far_form)
            await talk(near, far)
            print(kind, await lab.devices())

        await both("vxlan CrossSubnet", "plain", "vxlan/4789")
        await lab.pool(vxlan="Always")
        await both("vxlan Always", "vxlan/4789", "vxlan/4789")
        if has("ipip"):
            await lab.pool(ipip="Always")
            await both("ipip Always", "ipip", "ipip")
            await lab.until_devices({"tunl0"})
            await lab.pool(ipip="CrossSubnet")
            await both("ipip CrossSubnet", "plain", "ipip")
        if has("wireguard"):
            await lab.wireguard(True)
            await both("wireguard", "wireguard/51820", "wireguard/51820")
            await lab.wireguard(False)
            await both("without", "plain", "ipip" if has("ipip") else "vxlan/4789")
        await lab.pool()
        await lab.until_seen(A, B, "plain")
        await talk(near)
        await lab.until_devices(set())
        await lab.pool(vxlan="CrossSubnet")
        await both("vxlan again", "plain", "vxlan/4789")


async def talk(*conversations: Conversation) -> None:
    for one in conversations:
        await asyncio.to_thread(one.exchange, DEADLINE_S)
