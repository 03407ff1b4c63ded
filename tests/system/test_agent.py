"""Two agents with the real services: pods that reach each other, through crashes, outages and other people's hands."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.resources import FelixConfiguration, IPPool, Node
from bus_schemas.resources.configuration import FelixConfigurationSpec
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.subjects import ENDPOINT, EVENT
from chassis.feed import Interest
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from tests.support import netns
from tests.support.agent import AgentProcess
from tests.support.conversation import conversation
from tests.support.netns import links, ping
from tests.support.two_nodes import CLIENT, HUB, WEB, Cluster, Spaces, cluster_of, two_nodes, until

pytestmark = pytest.mark.root


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with two_nodes() as made:
        yield made


@pytest.fixture
async def cluster(spaces: Spaces, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_of(tmp_path, *spaces) as made:
        await made.pool()
        yield made


def ip_json(namespace: netns.Namespace, *arguments: str) -> list[dict[str, Any]]:
    return [row for row in json.loads(namespace.ip("-j", *arguments) or "[]") if row]


def table_of(namespace: netns.Namespace) -> str:
    with namespace.inside():
        done = subprocess.run(["nft", "list", "table", "inet", "tortie"], capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize("mode", ["Never", "Always"])
async def test_pods_of_two_nodes_reach_each_other(cluster: Cluster, mode: str) -> None:
    await cluster.pool(mode)
    web, _ = await cluster.both()
    routes = ip_json(cluster.nodes[1], "route", "get", web)
    assert routes[0]["dev"] == ("vxlan.tortie" if mode == "Always" else "up0")


async def test_a_tunnel_comes_moves_and_goes_live(cluster: Cluster) -> None:
    web, client = await cluster.both()
    node = cluster.nodes[1]
    await cluster.pool("Always")
    await until(lambda: ip_json(node, "route", "get", web)[0]["dev"] == "vxlan.tortie", "the tunnel is used")
    await cluster.reach(1, web)
    felix = FelixConfiguration(metadata=Metadata(name="default"), spec=FelixConfigurationSpec(vxlan_port=8472))
    await cluster.apply(felix)

    def port() -> int:
        rows = [row for row in ip_json(node, "-d", "link") if row["ifname"] == "vxlan.tortie"]
        return int(rows[0]["linkinfo"]["info_data"]["port"]) if rows else 0

    await until(lambda: port() == 8472, "the port changed")
    await cluster.reach(1, web)
    await cluster.reach(0, client)
    await cluster.pool("Never")
    await until(lambda: "vxlan.tortie" not in links(node), "the tunnel is gone")
    await cluster.reach(1, web)


async def test_an_agent_that_lost_its_notes_reads_them_back_from_the_bus(cluster: Cluster) -> None:
    web, client = await cluster.both()
    agent = cluster.agents[0]
    notes = cluster.directory / "node1" / "endpoints.json"
    async with cluster.bus.follow(Interest(EVENT, ("node", "recollected"))) as events:
        agent.kill()
        notes.unlink()
        agent.start()
        async with asyncio.timeout(15):
            told: list[Any] = []
            while not told:
                told += (await events.next()).facts
    assert told[0].value.message == "The notes of this node were gone: 1 pods are known again."
    again = await asyncio.to_thread(_answered, agent, cluster.pods[0])
    assert again["ips"][0]["address"] == f"{web}/32"
    await cluster.reach(1, web)
    await cluster.reach(0, client)
    fact = await cluster.bus.get(ENDPOINT, ("node1", *WEB))
    assert fact.value.addresses == (web,)
    code, answer = await asyncio.to_thread(agent.cni, "DEL", WEB.name, cluster.pods[0], WEB)
    assert code == 0, answer
    await until(lambda: not [name for name in links(cluster.nodes[0]) if name.startswith("tor")], "the link is gone")


async def test_a_killed_agent_costs_no_packet_and_comes_back_to_its_pods(cluster: Cluster) -> None:
    web, client = await cluster.both()
    agent = cluster.agents[0]
    before = [row["ifname"] for row in ip_json(cluster.nodes[0], "link")]
    table = _table_handle(cluster.nodes[0])
    agent.kill()
    assert await asyncio.to_thread(ping, cluster.pods[1], web)
    code, answer = await asyncio.to_thread(agent.cni, "ADD", "other", cluster.pods[0])
    assert (code, answer["code"]) == (1, 11)

    lost: list[str] = []

    async def watch(stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await asyncio.to_thread(ping, cluster.pods[1], web):
                lost.append(web)

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch(stop))
        agent.start()
        again = await asyncio.to_thread(_answered, agent, cluster.pods[0])
        stop.set()
    assert lost == []
    assert again["ips"][0]["address"] == f"{web}/32"
    assert [row["ifname"] for row in ip_json(cluster.nodes[0], "link")] == before
    assert _table_handle(cluster.nodes[0]) == table, "the table was replaced, not adopted"
    await cluster.reach(0, client)
    facts = await cluster.bus.get(ENDPOINT, ("node1", *WEB))
    assert facts.value.addresses == (web,)


def _table_handle(node: netns.Namespace) -> int:
    """The kernel's number of the policy table: another one after every replacement."""
    listed = json.loads(node.run("nft", "-j", "list", "tables", "inet"))["nftables"]
    return next(int(row["table"]["handle"]) for row in listed if "table" in row and row["table"]["name"] == "tortie")


def _answered(agent: AgentProcess, pod: netns.Namespace) -> dict[str, Any]:
    """The repeated ADD, as soon as the agent listens."""
    answer: dict[str, Any] = {}

    def ok() -> bool:
        code, found = agent.cni("ADD", WEB.name, pod, WEB)
        answer.update(found)
        return code == 0

    netns.wait_for(ok, "the agent answers", 20.0)
    return answer


async def test_del_without_a_bus_gives_the_address_back_later(cluster: Cluster) -> None:
    await cluster.both()
    await cluster.nats.stop()
    code, answer = await asyncio.to_thread(cluster.agents[0].cni, "DEL", WEB.name, cluster.pods[0], WEB)
    assert (code, answer) == (0, {})
    assert [name for name in links(cluster.nodes[0]) if name.startswith("tor")] == []
    cluster.agents[0].kill()
    cluster.agents[0].start()
    await cluster.nats.start()
    await cluster.bus.connected()
    key = ("node1", *WEB)
    async with asyncio.timeout(20), cluster.bus.follow(Interest(ENDPOINT, key)) as endpoints:
        published = (await cluster.bus.get(ENDPOINT, key)).value
        while published is not None:
            published = (await endpoints.next()).facts[-1].value
    store = cluster.directory / "node1" / "endpoints.json"
    await until(lambda: json.loads(store.read_text())["owed"] == [], "the address was given back")


@pytest.mark.parametrize(
    ("damage", "object_"),
    [
        (lambda c, w: c.nodes[1].run("nft", "delete", "table", "inet", "tortie"), "table inet tortie"),
        (lambda c, w: c.nodes[1].run("nft", "flush", "ruleset"), "table inet tortie"),
        (lambda c, w: c.nodes[1].ip("route", "flush", "proto", "84"), "10.244."),
        (lambda c, w: c.nodes[1].ip("link", "delete", "vxlan.tortie"), "vxlan.tortie"),
        (lambda c, w: c.nodes[1].ip("neigh", "flush", "dev", "vxlan.tortie", "nud", "permanent"), "vxlan.tortie"),
        (lambda c, w: c.nodes[1].ip("link", "set", _link(c, 1), "down"), "tor"),
        (lambda c, w: c.nodes[1].sysctl("net.ipv4.ip_forward", 0), "net.ipv4.ip_forward"),
    ],
    ids=["table", "ruleset", "routes", "device", "neighbours", "link", "forwarding"],
)
async def test_what_others_break_is_put_right_and_told(
    cluster: Cluster, damage: Callable[[Cluster, str], object], object_: str
) -> None:
    await cluster.pool("Always")
    web, client = await cluster.both()
    table = table_of(cluster.nodes[1])
    async with cluster.bus.follow(Interest(EVENT, ("node",))) as events:
        damage(cluster, web)
        async with asyncio.timeout(15):
            told = []
            while not any(event.object.startswith(object_) for event in told):
                told += [fact.value for fact in (await events.next()).facts if fact.value.what == "repaired"]
    await cluster.reach(1, web)
    await cluster.reach(0, client)
    assert table_of(cluster.nodes[1]).count("chain ") == table.count("chain ")


async def test_a_link_that_vanished_is_named_and_its_pod_kept(cluster: Cluster) -> None:
    web, _ = await cluster.both()
    async with cluster.bus.follow(Interest(EVENT, ("node", "link_gone"))) as events:
        cluster.nodes[0].ip("link", "delete", _link(cluster, 0))
        async with asyncio.timeout(15):
            told: list[Any] = []
            while not told:
                told += (await events.next()).facts
    assert told[0].value.object == str(WEB)
    assert (await cluster.bus.get(ENDPOINT, ("node1", *WEB))).value.addresses == (web,)
    code, _ = await asyncio.to_thread(cluster.agents[0].cni, "DEL", WEB.name, cluster.pods[0], WEB)
    assert code == 0


async def test_both_families_through_every_mode_with_open_connections(cluster: Cluster) -> None:
    for number, node in enumerate(cluster.nodes, 1):
        node.ip("-6", "address", "add", f"fd00::{number}/64", "dev", "up0", "nodad")
        bgp = NodeBgp(ipv4_address=f"10.0.0.{number}/24", ipv6_address=f"fd00::{number}/64")
        await cluster.apply(Node(metadata=Metadata(name=f"node{number}"), spec=NodeSpec(bgp=bgp)))

    async def pools(mode: str) -> None:
        await cluster.pool(mode)
        spec = IPPoolSpec(cidr="fd00:10:244::/64", nat_outgoing=True, vxlan_mode=mode)  # type: ignore[arg-type]
        await cluster.apply(IPPool(metadata=Metadata(name="six"), spec=spec))

    def pooled() -> bool:
        code, answer = cluster.agents[0].cni("ADD", WEB.name, cluster.pods[0], WEB)
        assert code == 0, answer
        if len(answer["ips"]) == 2:
            addresses.extend(row["address"].partition("/")[0] for row in answer["ips"])
            return True
        cluster.agents[0].cni("DEL", WEB.name, cluster.pods[0], WEB)
        return False

    addresses: list[str] = []
    await pools("Always")
    await until(pooled, "the second pool is known")
    await cluster.add(1, CLIENT)
    with ExitStack() as stack:
        for address in addresses:
            await cluster.reach(1, address)
        ends = [pod.path for pod in (cluster.pods[1], cluster.pods[0])]
        open_ones = [stack.enter_context(conversation(*ends, address)) for address in addresses]
        heard = stack.enter_context(cluster.nodes[1].call(lambda: NetlinkSocket(NETLINK_ROUTE, groups=0x40 | 0x400)))
        for mode, tunnelled in (("Always", True), ("Never", False), ("Always", True), ("CrossSubnet", False)):
            await pools(mode)
            for address in addresses:

                def switched(address: str = address, tunnelled: bool = tunnelled) -> bool:
                    [way] = ip_json(cluster.nodes[1], "route", "get", address)
                    return str(way["dev"]).startswith("vxlan") == tunnelled

                await until(switched, f"{mode}: the way to {address}")
            for one in open_ones:
                await asyncio.to_thread(one.exchange, 60.0)
        ways: Counter[tuple[bytes, int]] = Counter()
        for type_, body in heard.notifications():
            row = readback.route(bytes(body))
            where = (row.destination, row.prefix)
            if row.protocol != rtnl.PROTOCOL or row.prefix in (32, 128):
                continue
            ways[where] += 1 if type_ == rtnl.RTM_NEWROUTE else -1
            assert ways[where] >= 0, f"no way to {where} for a moment"
        assert len(ways) == 2


def _link(cluster: Cluster, number: int) -> str:
    return next(name for name in links(cluster.nodes[number]) if name.startswith("tor"))


async def test_others_things_are_left_alone(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    node.ip("route", "add", "10.99.0.0/16", "via", HUB, "proto", "static")
    node.run("nft", "add", "table", "inet", "somebody")
    await cluster.both()
    cluster.agents[0].kill()
    cluster.agents[0].start()
    await asyncio.to_thread(_answered, cluster.agents[0], cluster.pods[0])
    assert ip_json(node, "route", "show", "10.99.0.0/16")
    assert "somebody" in node.run("nft", "list", "tables")
