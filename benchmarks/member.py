"""One member of a group changes: from the published segment to the element in the kernel, in a real agent.

    python -m benchmarks.member [--rounds 300]

An agent as a process in a node's namespace, with a real bus. This benchmark plays the address service and the policy
compiler: it attaches 1, 100 and 1,000 policies to a pod, each with a chain, a group of 100 members and a set of its
own, and then rewrites the segment of one group with one member more or less. The clock starts before the message is
written to the bus and stops when the kernel has committed, as it says itself (`nft_watch`).

In the same rounds: one hop over the bus alone, and the `nft` program adding one element to the same table in another
namespace. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from queue import Empty

from benchmarks.figures import p50, show, spread
from benchmarks.floors import BusFloor, NftFloor
from benchmarks.nft_member import members, policy
from benchmarks.nft_watch import NftWatch
from bus_schemas.ids import NodeName, PodKey, RulesId
from bus_schemas.ipam import Assigned, AssignRequest, Released, ReleaseRequest
from bus_schemas.policy import Attachment, Direction, TierRules
from bus_schemas.resources import IPPool, Metadata, Namespace, Node, Pod
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.subjects import ASSIGN, ATTACHMENT, DESIRED, RELEASE
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.health import Health
from chassis.settings import ServiceSettings
from services.node_dataplane.nft.frame import NODES4
from services.node_dataplane.nft.names import TABLE
from tests.support import netns
from tests.support.agent import CONF, AgentProcess, cni_env
from tests.support.netns import namespaces

HUB = "10.0.0.254"
NODE = NodeName("node1")
POD = PodKey("bench", "pod")
CONTAINER = "container"
CHAINS = (1, 100, 1000)
MEMBERS = 100
WRITES_AT_ONCE = 200
QUIET_S = 1.0
PAUSE_S = 0.005


async def assign(_: AssignRequest) -> Assigned:
    return Assigned(addresses=("10.244.0.2",))


async def release(_: ReleaseRequest) -> Released:
    return Released(addresses=())


async def desire(bus: Bus) -> None:
    for resource in (
        Namespace(metadata=Metadata(name=POD.namespace)),
        Node(metadata=Metadata(name=NODE), spec=NodeSpec(bgp=NodeBgp(ipv4_address="10.0.0.1/24"))),
        IPPool(metadata=Metadata(name="default"), spec=IPPoolSpec(cidr="10.244.0.0/16")),
        Pod(metadata=Metadata(name=POD.name, namespace=POD.namespace)),
    ):
        await bus.put(DESIRED[type(resource)], resource.key, resource)


async def attach(bus: Bus, chains: int) -> None:
    """The pod's policy is now that many policies."""
    facts = [fact for n in range(chains) for fact in (members(n, range(MEMBERS)), policy(n))]
    for at in range(0, len(facts), WRITES_AT_ONCE):
        await asyncio.gather(*(bus.put(f.family, f.key, f.value) for f in facts[at : at + WRITES_AT_ONCE]))
    tier = TierRules(tier="default", rules=tuple(RulesId(f"policy-{n}") for n in range(chains)))
    message = Attachment(
        node=NODE,
        namespace=POD.namespace,
        name=POD.name,
        container=CONTAINER,
        ingress=Direction(tiers=(tier,), default="allow"),
        egress=Direction(default="allow"),
    )
    await bus.put(ATTACHMENT, (NODE, *POD), message)


async def call_add(socket: str, pod: netns.Namespace) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)
    call = {"env": cni_env("ADD", CONTAINER, pod.path, POD), "stdin": json.dumps(CONF)}
    writer.write(json.dumps(call).encode())
    writer.write_eof()
    answer = json.loads(await reader.read())
    writer.close()
    assert answer["exit"] == 0, answer


async def quiet(watch: NftWatch) -> None:
    """Until the agent has programmed all it was told."""
    while True:
        try:
            await asyncio.to_thread(watch.next, QUIET_S)
        except Empty:
            return


async def run(rounds: int) -> None:
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hub, node, pod, other = stack.enter_context(namespaces(4))
        netns.veth(node, "up0", hub, "node1", addresses=("10.0.0.1/24", f"{HUB}/24"))
        watch = stack.enter_context(node.call(NftWatch))
        stack.enter_context(hub.inside())
        async with AsyncExitStack() as parts:
            nats = await parts.enter_async_context(EmbeddedNats(directory / "nats", host=HUB))
            settings = ServiceSettings(nats_url=nats.url, health_listen="")
            bus, reader = [
                await parts.enter_async_context(Bus.connect(settings, name="ipam", health=Health())) for _ in range(2)
            ]
            await bus.connected()
            await parts.enter_async_context(bus.serve({ASSIGN: assign, RELEASE: release}))
            await desire(bus)
            await attach(bus, CHAINS[0])
            agent = AgentProcess(NODE, node, nats.url, directory)
            agent.start()
            parts.callback(agent.stop)
            await asyncio.to_thread(netns.wait_for, Path(agent.socket).exists, "the agent listens", 20.0)
            await call_add(agent.socket, pod)
            for chains in CHAINS:
                await attach(bus, chains)
                await quiet(watch)
                copy = other if chains == CHAINS[-1] else stack.enter_context(namespaces(1))[0]
                copy.run("nft", "-f", "-", text=node.run("nft", "list", "table", "inet", TABLE))
                nft_floor = NftFloor(copy, f"inet {TABLE} {NODES4}")
                bus_floor = await parts.enter_async_context(BusFloor(bus, reader))
                times = []
                for number in range(rounds):
                    await asyncio.sleep(PAUSE_S)
                    watch.forget()
                    fact = members(0, range(MEMBERS + 1 - number % 2 * 2))
                    began = time.perf_counter()
                    await bus.put(fact.family, fact.key, fact.value)
                    committed = await asyncio.to_thread(watch.next)
                    times.append((committed - began) * 1e3)
                    await bus_floor.take()
                    if number % 4 == 0:
                        await asyncio.to_thread(nft_floor.take)
                rows += [
                    {"chains": chains, "what": "published -> element in the kernel", **spread(times)},
                    {"chains": chains, "what": "one bus hop alone", **spread(bus_floor.times)},
                    {"chains": chains, "what": "the nft program adds one element", **spread(nft_floor.times)},
                ]
                print(f"  {chains} chains: {p50(times):.2f} ms", flush=True)
    show("One member of a group changes", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    asyncio.run(run(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
