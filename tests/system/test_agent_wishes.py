"""What pods ask for by annotation and configuration, from the resource to the packets, by the real services."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.ids import HandleId, PodKey
from bus_schemas.resources import FelixConfiguration, IPPool, KubernetesNetworkPolicy, Node
from bus_schemas.resources.configuration import FelixConfigurationSpec
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.subjects import ENDPOINT, HANDLE
from tests.support.netns import bind_udp, listen, ping, tcp, udp
from tests.support.two_nodes import CLIENT, HUB, WEB, Cluster, Spaces, address_of, cluster_of, two_nodes, until
from tests.support.waiting import within

pytestmark = pytest.mark.root

FLOATING = "10.244.200.7"
FEATURES = {"ip_addrs_no_ipam": True, "floating_ips": True}
MAC = "02:00:00:00:00:07"


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with two_nodes() as made:
        yield made


@pytest.fixture
async def cluster(spaces: Spaces, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_of(tmp_path, *spaces) as made:
        await made.pool()
        for number, agent in enumerate(made.agents):
            await until(lambda n=number: Path(made.agents[n].socket).exists(), agent.node)  # type: ignore[misc]
        yield made


async def felix(cluster: Cluster, **spec: Any) -> None:
    await cluster.apply(FelixConfiguration(metadata=Metadata(name="default"), spec=FelixConfigurationSpec(**spec)))


async def refused(cluster: Cluster, said: str, **conf: Any) -> None:
    code, answer = await cluster.asks(0, WEB, **conf)
    assert (code, answer["code"]) == (1, 7), answer
    assert said in answer["msg"], answer


async def until_taken(cluster: Cluster, **conf: Any) -> dict[str, Any]:
    """ADD of the first pod, once its configuration has arrived at the agent."""
    answers: list[dict[str, Any]] = []

    def taken() -> bool:
        code, answer = cluster.agents[0].cni("ADD", WEB.name, cluster.pods[0], WEB, **conf)
        answers.append(answer)
        return code == 0

    await until(taken, "the pod is taken")
    return answers[-1]


async def test_a_mac(cluster: Cluster) -> None:
    await cluster.annotate(WEB, {"hwAddr": MAC})
    answer = await cluster.adds(0, WEB)
    assert answer["interfaces"][1]["mac"] == MAC
    assert json.loads(cluster.pods[0].ip("-j", "link", "show", "eth0"))[0]["address"] == MAC
    assert (await cluster.adds(0, WEB))["interfaces"][1]["mac"] == MAC
    client = await cluster.add(1, CLIENT)
    await cluster.reach(0, client)
    neighbours = json.loads(cluster.nodes[0].ip("-j", "neigh", "show", address_of(answer)))
    assert [row["lladdr"] for row in neighbours] == [MAC]


async def test_addresses_that_nobody_assigns(cluster: Cluster) -> None:
    await cluster.annotate(WEB, {"ipAddrsNoIpam": '["192.0.2.9"]'})
    await refused(cluster, "cni.projectcalico.org/ipAddrsNoIpam")
    assert await cluster.add(0, WEB, feature_control=FEATURES) == "192.0.2.9"
    assert await asyncio.to_thread(ping, cluster.nodes[0], "192.0.2.9")
    endpoint = (await cluster.bus.get(ENDPOINT, ("node1", *WEB))).value
    assert (endpoint.handle, endpoint.addresses) == ("", ("192.0.2.9",))
    assert (await cluster.bus.get(HANDLE, (f"k8s-pod-network.{WEB.name}",))).value is None
    twin = PodKey("default", "twin")
    await cluster.annotate(twin, {"ipAddrsNoIpam": '["192.0.2.9"]'})
    code, answer = await cluster.asks(0, twin, feature_control=FEATURES)
    assert (code, "default/web" in answer["msg"]) == (1, True)


async def test_requested_addresses(cluster: Cluster) -> None:
    await cluster.annotate(WEB, {"ipAddrs": '["10.244.77.7"]'})
    assert await cluster.add(0, WEB) == "10.244.77.7"
    await cluster.annotate(CLIENT, {"ipAddrs": '["10.244.77.7"]'})
    code, answer = await cluster.asks(1, CLIENT)
    assert (code, answer["code"]) == (1, 7)
    assert "10.244.77.7" in answer["msg"]


async def test_pools_of_the_pod_go_before_those_of_the_configuration(cluster: Cluster) -> None:
    for name, cidr in (("one", "10.50.0.0/24"), ("two", "10.60.0.0/24")):
        await cluster.apply(IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr, node_selector="!all()")))
    await cluster.annotate(WEB, {"ipv4pools": '["one"]'})
    answer = await until_taken(cluster, ipam={"type": "calico-ipam", "ipv4_pools": ["10.60.0.0/24"]})
    assert address_of(answer).startswith("10.50.0.")
    client = await cluster.add(1, CLIENT, ipam={"type": "calico-ipam", "ipv4_pools": ["10.60.0.0/24"]})
    assert client.startswith("10.60.0.")
    await cluster.reach(0, client)


async def test_a_nodes_own_range(cluster: Cluster) -> None:
    for number in (1, 2):
        spec = NodeSpec(bgp=NodeBgp(ipv4_address=f"10.0.0.{number}/24"), pod_cidrs=(f"10.70.{number}.0/24",))
        await cluster.apply(Node(metadata=Metadata(name=f"node{number}"), spec=spec))
    answer = await until_taken(cluster, ipam={"type": "host-local", "subnet": "usePodCidr"})
    assert address_of(answer).startswith("10.70.1.")
    client = await cluster.add(1, CLIENT, ipam={"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]]})
    assert client.startswith("10.70.2.")
    await cluster.reach(0, client)
    await cluster.reach(1, address_of(answer))


async def test_a_pod_that_routes(cluster: Cluster) -> None:
    await cluster.add(0, WEB, container_settings={"allow_ip_forwarding": True})
    assert cluster.pods[0].run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"


async def test_sources_that_are_not_its_own(cluster: Cluster) -> None:
    await cluster.annotate(WEB, {"allowedSourcePrefixes": '["198.51.100.0/24"]'})
    await refused(cluster, "cni.projectcalico.org/allowedSourcePrefixes")
    await felix(cluster, workload_source_spoofing="Any")
    await until_taken(cluster)
    client = await cluster.add(1, CLIENT)
    await cluster.reach(0, client)
    pod = cluster.pods[0]
    pod.ip("address", "add", "198.51.100.5/32", "dev", "eth0")
    pod.ip("address", "add", "203.0.113.5/32", "dev", "eth0")
    with bind_udp(cluster.pods[1], client, 53) as receiver:
        assert udp(pod, receiver, client, 53, source="198.51.100.5") == "198.51.100.5"
        assert udp(pod, receiver, client, 53, source="203.0.113.5", wait_s=0.2) is None
    cluster.agents[0].kill()
    cluster.agents[0].start()
    await until(Path(cluster.agents[0].socket).exists, "the agent listens again")
    with bind_udp(cluster.pods[1], client, 53) as receiver:
        assert udp(pod, receiver, client, 53, source="198.51.100.5") == "198.51.100.5", "after a restart, too"


async def test_floating_addresses(cluster: Cluster) -> None:
    await cluster.annotate(WEB, {"floatingIPs": f'["{FLOATING}"]'}, app="web")
    await refused(cluster, "feature_control")
    await refused(cluster, "FelixConfiguration", feature_control=FEATURES)
    await felix(cluster, floating_ips="Enabled")
    web = address_of(await until_taken(cluster, feature_control=FEATURES))
    client = await cluster.add(1, CLIENT)
    endpoint = (await cluster.bus.get(ENDPOINT, ("node1", *WEB))).value
    assert endpoint.floating == ((FLOATING, web),)
    floating = (await cluster.bus.get(HANDLE, (f"k8s-pod-network.{WEB.name}.floating",))).value
    assert (floating.addresses, floating.use) == ((FLOATING,), "floating")

    await cluster.reach(1, FLOATING)  # A pod of another node.
    assert await asyncio.to_thread(ping, cluster.nodes[0], FLOATING), "its node"
    assert await asyncio.to_thread(ping, cluster.pods[0], FLOATING), "itself"
    with listen(cluster.pods[0], web, 80):
        assert await asyncio.to_thread(tcp, cluster.pods[1], FLOATING, 80)
        with bind_udp(cluster.pods[1], client, 53) as receiver:
            assert udp(cluster.pods[0], receiver, client, 53) == web, "pods see its own address"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind((HUB, 53))
            assert udp(cluster.pods[0], receiver, HUB, 53) == FLOATING, "the world sees the floating one"
        # Policy stands behind the translation: it closes the floating address with the pod's own.
        closed = KubernetesNetworkPolicy(metadata=Metadata(name="closed", namespace="default"))
        await cluster.apply(closed)
        await until(lambda: not tcp(cluster.pods[1], FLOATING, 80, wait_s=0.2), "it is closed by policy")

    await asyncio.to_thread(cluster.agents[0].cni, "DEL", WEB.name, cluster.pods[0], WEB)
    assert not json.loads(cluster.nodes[0].ip("-j", "route", "show", FLOATING) or "[]")
    key = (HandleId(f"k8s-pod-network.{WEB.name}.floating"),)

    async def given_back() -> bool:
        return (await cluster.bus.get(HANDLE, key)).value is None

    await within(given_back, "the floating address is given back")
    table = cluster.nodes[0].run("nft", "list", "table", "inet", "tortie")
    assert "floating_in" not in table


async def test_a_floating_address_of_both_families_or_of_none(cluster: Cluster) -> None:
    await felix(cluster, floating_ips="Enabled")
    await cluster.annotate(WEB, {"floatingIPs": '["fd00::7"]'})
    conf = {"feature_control": FEATURES}

    def said() -> bool:
        code, answer = cluster.agents[0].cni("ADD", WEB.name, cluster.pods[0], WEB, **conf)
        return code == 1 and "no address of that family" in answer["msg"]

    await until(said, "it is refused, and why is told")
