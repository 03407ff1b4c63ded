"""The uplink of a node changes while its pods talk: address, MTU, device; and what it says of itself then."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.node_facts import FACTS_FILE
from bus_schemas.resources import Node
from bus_schemas.resources.metadata import Metadata
from bus_schemas.subjects import EVENT, NODE_ADDRESSES, NODE_FACTS, ROUTE
from chassis.feed import Interest
from services.node_dataplane import offload
from tests.support import netns
from tests.support.agent import AgentProcess, environment
from tests.support.conversation import Conversation, conversation
from tests.support.two_nodes import HUB, WEB, Cluster, Spaces, cluster_of, two_nodes

pytestmark = pytest.mark.root

DEADLINE_S = 90.0


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with two_nodes() as made:
        yield made


@pytest.fixture
async def cluster(spaces: Spaces, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Whose Node resources say no address: the agents find them."""
    async with cluster_of(tmp_path, *spaces) as made:
        for name in ("node1", "node2"):
            await made.apply(Node(metadata=Metadata(name=name)))
        await made.pool("Always")
        yield made


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(netns.wait_for, condition, what, DEADLINE_S)


async def told(cluster: Cluster, family: Any, key: tuple[str, ...], right: Callable[[Any], bool]) -> Any:
    """The value of a key once it is right."""
    async with asyncio.timeout(DEADLINE_S), cluster.bus.follow(Interest(family, key)) as feed:
        while True:
            for fact in (await feed.next()).facts:
                if fact.value is not None and right(fact.value):
                    return fact.value


def link(node: netns.Namespace, name: str) -> dict[str, Any]:
    rows = [row for row in json.loads(node.ip("-j", "-d", "link") or "[]") if row.get("ifname") == name]
    return rows[0] if rows else {}


def facts(cluster: Cluster, node: str) -> dict[str, Any]:
    path = cluster.directory / node / FACTS_FILE
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def own(cluster: Cluster, node: str, family: int = 4) -> dict[str, Any]:
    found: dict[str, Any] = next(a for a in facts(cluster, node)["addresses"] if a["family"] == family)
    return found


def explained(cluster: Cluster, node: str, *options: str) -> str:
    command = [
        sys.executable,
        "-m",
        "tortie",
        "node",
        "explain",
        "--state-dir",
        str(cluster.directory / node),
        *options,
    ]
    settings = {"cni_socket": str(cluster.directory / f"{node}.sock")}
    done = subprocess.run(command, env=environment(**settings), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def readdress(node: netns.Namespace, before: str, after: str) -> None:
    """As a DHCP server does that gives another one: the old one goes first, with every route over the device."""
    node.ip("address", "del", f"{before}/24", "dev", "up0")
    node.ip("address", "add", f"{after}/24", "dev", "up0")
    node.ip("route", "add", "default", "via", HUB)


async def exchange(talk: Conversation) -> None:
    await asyncio.to_thread(talk.exchange, DEADLINE_S)


async def test_the_uplink_changes_while_pods_talk(cluster: Cluster) -> None:
    web, _ = await cluster.both()
    node = cluster.nodes[0]
    first = await told(cluster, NODE_ADDRESSES, ("node1",), lambda said: said.ipv4 is not None)
    assert first.ipv4.address == "10.0.0.1/24"
    with conversation(cluster.pods[1].path, cluster.pods[0].path, web) as talk:
        await exchange(talk)
        async with cluster.bus.follow(Interest(EVENT, ("node", "address_changed"))) as events:
            readdress(node, "10.0.0.1", "10.0.0.101")
            moved = await told(cluster, NODE_ADDRESSES, ("node1",), lambda said: said.ipv4.address == "10.0.0.101/24")
            async with asyncio.timeout(DEADLINE_S):
                while not (heard := [fact.value.message for fact in (await events.next()).facts]):
                    pass
        assert moved.ipv4.since > first.ipv4.since
        assert "The node's address is 10.0.0.101/24, no longer 10.0.0.1/24." in heard
        block = next(
            str(row["dst"])
            for row in json.loads(cluster.nodes[1].ip("-j", "route"))
            if row.get("dev") == "vxlan.tortie"
        )
        await told(cluster, ROUTE, (block,), lambda route: route.address == "10.0.0.101/24")
        assert link(node, "vxlan.tortie")["linkinfo"]["info_data"]["local"] == "10.0.0.101"
        await exchange(talk)

        node.ip("link", "set", "up0", "mtu", "1400")
        await until(lambda: link(node, "vxlan.tortie").get("mtu") == 1350, "the tunnel has the MTU of the new uplink")
        await until(lambda: facts(cluster, "node1")["mtu"]["pods"] == 1350, "so have pods that start")
        await exchange(talk)

        for change in (("down",), ("name", "wan0"), ("up",)):
            node.ip("link", "set", "wan0" if change == ("up",) else "up0", *change)
        node.ip("route", "replace", "default", "via", HUB)
        await until(lambda: own(cluster, "node1")["device"] == "wan0", "the same address on another device")
        await exchange(talk)
    assert own(cluster, "node1")["since"] == moved.ipv4.since
    code, answer = await asyncio.to_thread(cluster.agents[0].cni, "DEL", WEB.name, cluster.pods[0], WEB)
    assert code == 0, answer
    await cluster.add(0, WEB)
    assert link(cluster.pods[0], "eth0")["mtu"] == 1350, "a pod that starts now"
    said = await told(cluster, NODE_FACTS, ("node1",), lambda said: said.mtu.pods == 1350)
    assert [(term.what, term.mtu, term.how) for term in said.mtu.terms][-1] == ("VXLAN over IPv4", 1350, "1400 - 50")


async def test_an_address_that_is_gone_for_a_moment_and_one_that_never_comes_back(cluster: Cluster) -> None:
    web, client = await cluster.both()
    node = cluster.nodes[0]
    await until(lambda: own(cluster, "node1")["address"] == "10.0.0.1/24", "the address is told")
    since = own(cluster, "node1")["since"]
    node.ip("address", "del", "10.0.0.1/24", "dev", "up0")
    await until(lambda: "lost its address 10.0.0.1" in own(cluster, "node1")["problem"], "it is said to be gone")
    assert own(cluster, "node1")["address"] == "10.0.0.1/24", "the last good one stays"
    assert link(node, "vxlan.tortie")["linkinfo"]["info_data"]["local"] == "10.0.0.1"
    node.ip("address", "add", "10.0.0.1/24", "dev", "up0")
    node.ip("route", "add", "default", "via", HUB)
    await until(lambda: not own(cluster, "node1")["problem"], "it is back")
    assert own(cluster, "node1")["since"] == since
    await cluster.reach(1, web)
    await cluster.reach(0, client)
    # And across a life of the agent that begins without it.
    cluster.agents[0].kill()
    node.ip("link", "set", "up0", "down")
    cluster.agents[0].start()
    node.ip("link", "set", "up0", "up")
    node.ip("route", "replace", "default", "via", HUB)
    await cluster.reach(1, web)
    await until(lambda: own(cluster, "node1")["problem"] == "", "nothing is wrong")
    assert own(cluster, "node1")["since"] == since


async def test_two_nodes_with_one_address(cluster: Cluster) -> None:
    await cluster.both()
    await told(cluster, NODE_ADDRESSES, ("node2",), lambda said: said.ipv4 is not None)
    async with cluster.bus.follow(Interest(EVENT, ("route", "duplicate"))) as events:
        cluster.nodes[1].ip("address", "add", "10.0.0.1/32", "dev", "lo")
        cluster.nodes[1].ip("address", "del", "10.0.0.2/24", "dev", "up0")
        cluster.nodes[1].ip("address", "del", "10.0.0.1/32", "dev", "lo")
        cluster.nodes[1].ip("address", "add", "10.0.0.1/24", "dev", "up0")
        cluster.nodes[1].ip("route", "add", "default", "via", HUB)
        cluster.nodes[1].sysctl("net.ipv4.conf.all.arp_ignore", 0)
        async with asyncio.timeout(DEADLINE_S):
            while not (heard := [fact.value for fact in (await events.next()).facts]):
                pass
    assert heard[0].object == "node2"
    assert "node node2 says that its address is 10.0.0.1, which node node1 has had for longer" in heard[0].message


async def test_what_explain_says_on_the_node(cluster: Cluster) -> None:
    await cluster.both()
    await until(lambda: bool(facts(cluster, "node1").get("offload")), "the tunnel is told of")
    await until(lambda: facts(cluster, "node1")["offload"][0]["check"] != "", "it was tried out")
    text = explained(cluster, "node1")
    assert "IPv4 address 10.0.0.1/24 on up0, since " in text
    assert "*   up0" in text
    assert "1450  VXLAN over IPv4: 1500 - 50" in text
    assert "MTU of pods that start now: 1450" in text
    assert "vxlan.tortie: on (read back), " in text
    assert "does not answer" not in text
    said = json.loads(explained(cluster, "node1", "-o", "json"))
    assert said["mtu"]["pods"] == 1450
    assert said["configured"]["TORTIE_IP"] == "autodetect"
    cluster.agents[0].stop()
    assert "Its agent does not answer: this is what it found last." in explained(cluster, "node1")


async def test_offload_that_is_to_be_off_is_kept_off_and_named(spaces: Spaces, tmp_path: Path) -> None:
    async with cluster_of(tmp_path, *spaces) as made, AsyncExitStack() as stack:
        await made.pool("Always")
        node = made.nodes[0]
        made.agents[0].stop()
        agent = AgentProcess("node1", node, made.nats.url, tmp_path, vxlan_checksum_offload="off")
        agent.start()
        stack.callback(agent.stop)
        await until(Path(agent.socket).exists, "the other agent listens")

        def state() -> bool:
            return not link(node, "vxlan.tortie") or node.call(lambda: offload.state("vxlan.tortie"))

        await until(lambda: not state(), "it is off")
        async with made.bus.follow(Interest(EVENT, ("node", "repaired"))) as events:
            heard: list[str] = []
            async with asyncio.timeout(DEADLINE_S):
                while not heard:  # while the node still settles what it is to be, nobody's doing is told
                    node.call(lambda: offload.switch("vxlan.tortie", on=True))
                    await until(lambda: not state(), "it is off again")
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            heard += [fact.value.message for fact in (await events.next()).facts]
        assert "checksum offload of vxlan.tortie had been changed or deleted; it was put right." in heard
        assert facts(made, "node1")["offload"][0]["reason"] == "TORTIE_VXLAN_CHECKSUM_OFFLOAD is off"
