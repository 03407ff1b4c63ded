"""The CNI's verbs on a real kernel, the other services played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.ids import PodKey
from services.node_dataplane.netlink.framing import NLM_F_DUMP, NLM_F_REQUEST, message
from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkSocket
from services.node_dataplane.nft.libnftables import Libnftables
from tests.support.agent import CONF, VerbsNode, attachments, cni_env, run_plugin
from tests.support.netns import Namespace, links, namespaces, ping, wait_for
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

WEB = PodKey("test", "web")


@pytest.fixture
def spaces() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """The node, in which the test itself stands, and two pods."""
    with namespaces(3) as (host, first, second), host.inside():
        host.ip("address", "add", "10.0.0.1/32", "dev", "lo")
        host.forward()
        yield host, first, second


@pytest.fixture
async def node(spaces: tuple[Namespace, ...], tmp_path: Path) -> AsyncIterator[VerbsNode]:
    made = VerbsNode(tmp_path)
    async with made.running():
        yield made


async def reached(here: Namespace, address: str) -> None:
    await asyncio.to_thread(wait_for, lambda: ping(here, address, wait_s=0.2), f"{address} is reached")


def routes(host: Namespace) -> list[str]:
    return [row["dst"] for row in json.loads(host.ip("-j", "route", "show", "proto", "84") or "[]")]


async def test_add_makes_a_pod_that_is_reached(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    host, first, second = spaces
    for container, namespace in (("c1", first), ("c2", second)):
        code, answer = await node.call("ADD", container, namespace)
        assert code == 0
    assert answer["ips"][0]["address"] == "10.244.0.3/32"
    assert answer["interfaces"][0]["name"] in links(host)
    await reached(host, "10.244.0.2")
    await reached(first, "10.244.0.3")
    await reached(first, "10.0.0.1")


async def test_add_twice_is_one_pod_and_one_answer(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    _, first, _ = spaces
    assert await node.call("ADD", "c1", first) == await node.call("ADD", "c1", first)
    assert len(node.ipam.requests) == 1


async def test_add_at_once_and_twice_is_one_pod(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    _, first, _ = spaces
    left, right = await asyncio.gather(node.call("ADD", "c1", first), node.call("ADD", "c1", first))
    assert left == right
    assert left[0] == 0


async def test_del_takes_everything_and_succeeds_again(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    host, first, _ = spaces
    await node.call("ADD", "c1", first)
    for _ in range(2):
        assert await node.call("DEL", "c1", first) == (0, {})
    assert links(host) == []
    assert routes(host) == []
    assert node.announcements.endpoints == {}
    assert node.policy.plugged == {}
    assert node.store.owed == ("k8s-pod-network.c1",)


async def test_a_start_and_a_stop_are_told_once_each(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    _, first, second = spaces
    for _ in range(2):
        await node.call("ADD", "c1", first, pod=WEB)
    await node.call("ADD", "c2", second, pod=WEB)
    for _ in range(2):
        await node.call("DEL", "c2", second, pod=WEB)
    assert [(what, pod) for what, pod, _ in node.pod_events] == [
        ("started", "test/web"),
        ("stopped", "test/web"),
        ("started", "test/web"),
        ("stopped", "test/web"),
    ]
    assert node.pod_events[1][2] == (
        "test/web is unplugged and gives 10.244.0.2 back: another container takes its place."
    )


async def test_a_start_that_fails_is_told_with_the_reason(spaces: tuple[Namespace, ...], tmp_path: Path) -> None:
    _, first, _ = spaces
    node = VerbsNode(tmp_path, deadline_s=0.2, obstacle="the bus is away")
    async with node.running():
        node.ready.clear()
        code, _ = await node.call("ADD", "c1", first, pod=WEB)
    assert code == 1
    ((what, pod, message),) = node.pod_events
    assert (what, pod) == ("start_failed", "test/web")
    assert message == (
        "test/web could not be started: not done within 0.2 s: waiting for the node to be ready: the bus is away."
    )


async def test_del_of_what_never_was_succeeds_without_a_bus(node: VerbsNode) -> None:
    node.ipam.away = True
    assert await node.call("DEL", "never") == (0, {})
    assert node.store.owed == ("k8s-pod-network.never",)


async def test_del_when_the_pods_namespace_is_gone_already(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    with namespaces(1) as (short,):
        assert (await node.call("ADD", "c1", short))[0] == 0
    assert await node.call("DEL", "c1") == (0, {})


async def test_a_late_del_of_an_older_container_hurts_nobody(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    host, first, second = spaces
    await node.call("ADD", "old", first, pod=WEB)
    code, answer = await node.call("ADD", "new", second, pod=WEB)
    assert code == 0
    assert "eth0" not in links(first)

    assert await node.call("DEL", "old", first, pod=WEB) == (0, {})
    address = answer["ips"][0]["address"].partition("/")[0]
    await reached(host, address)
    assert node.store.owed == ("k8s-pod-network.old",)
    assert node.announcements.endpoints[WEB].container == "new"


async def test_policy_that_does_not_come_undoes_the_pod(spaces: tuple[Namespace, ...], tmp_path: Path) -> None:
    host, first, _ = spaces
    node = VerbsNode(tmp_path, deadline_s=0.2)
    node.policy.blocked = "group 'app == \"x\"' is not known yet"
    async with node.running():
        code, answer = await node.call("ADD", "c1", first)
        assert (code, answer["code"]) == (1, 11)
        assert "policy not in place: group" in answer["msg"]
        assert links(host) == []
        assert routes(host) == []
        assert node.store.all() == []
        assert node.store.owed == ("k8s-pod-network.c1",)

        node.policy.blocked = ""
        assert (await node.call("ADD", "c1", first))[0] == 0


async def test_no_pod_resource_is_said(spaces: tuple[Namespace, ...], tmp_path: Path) -> None:
    node = VerbsNode(tmp_path, deadline_s=0.1)
    node.resources.missing = True
    async with node.running():
        _, answer = await node.call("ADD", "c1", spaces[1], pod=WEB)
    assert "waiting for the resource of the pod test/web" in answer["msg"]


async def test_del_does_not_wait_for_an_add_that_was_given_up(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    host, first, _ = spaces
    node.policy.blocked = "no policy yet"
    async with asyncio.TaskGroup() as tasks:
        adding = tasks.create_task(node.call("ADD", "c1", first))
        await eventually(lambda: any(name.startswith("tor") for name in links(host)))
        assert await node.call("DEL", "c1") == (0, {})
        code, answer = await adding
    assert (code, answer["code"]) == (1, 11)
    assert "DEL meanwhile" in answer["msg"]
    assert not [name for name in links(host) if name.startswith("tor")]
    assert not routes(host)


async def test_an_exhausted_pool_is_said(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    node.ipam.size = 0
    code, answer = await node.call("ADD", "c1", spaces[1])
    assert (code, answer["code"]) == (1, 11)
    assert "10.244.0.0/24" in answer["msg"]


async def test_an_absent_address_service_is_waited_for_then_said(spaces: tuple[Namespace, ...], tmp_path: Path) -> None:
    node = VerbsNode(tmp_path, deadline_s=0.3)
    node.ipam.away = True
    async with node.running():
        _, answer = await node.call("ADD", "c1", spaces[1])
    assert answer["code"] == 11
    assert "does not answer" in answer["msg"]


async def test_annotations_of_the_pod_reach_the_address_service(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    node.resources.annotations = {"cni.projectcalico.org/ipAddrs": '["10.244.0.77"]'}
    _, answer = await node.call("ADD", "c1", spaces[1], pod=WEB)
    assert answer["ips"][0]["address"] == "10.244.0.77/32"
    assert node.announcements.endpoints[WEB].labels is None


async def test_a_pod_without_a_resource_describes_itself(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    labels = {"cni": {"labels": [{"key": "app", "value": "x"}]}}
    await node.call("ADD", "c1", spaces[1], args=labels)
    assert node.announcements.endpoints[PodKey("default", "c1")].labels == {"app": "x"}


async def test_check(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    host, first, _ = spaces
    _, result = await node.call("ADD", "c1", first)
    assert await node.call("CHECK", "c1", first, prevResult=result) == (0, {})
    _, answer = await node.call("CHECK", "c2", first, prevResult=result)
    assert answer["code"] == 3
    _, answer = await node.call("CHECK", "c1", first, prevResult={"ips": [{"address": "10.9.9.9/32"}]})
    assert "10.9.9.9" in answer["msg"]
    host.ip("link", "delete", result["interfaces"][0]["name"])
    _, answer = await node.call("CHECK", "c1", first, prevResult=result)
    assert "gone from the node" in answer["msg"]


async def test_gc_keeps_what_the_runtime_knows(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    host, first, second = spaces
    await node.call("ADD", "c1", first)
    await node.call("ADD", "c2", second)
    gc: dict[str, Any] = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": attachments(["c2"])}
    assert await node.call("GC", name="another-network", **gc) == (0, {})
    assert len(node.store.all()) == 2
    assert await node.call("GC", **gc) == (0, {})
    assert [plugin.endpoint.container for plugin in node.store.all()] == ["c2"]
    await reached(host, "10.244.0.3")


async def test_status_names_the_obstacle(node: VerbsNode) -> None:
    assert await node.call("STATUS", cniVersion="1.1.0") == (0, {})
    node.obstacle = "sync: the bus has not yet told this node's state"
    _, answer = await node.call("STATUS", cniVersion="1.1.0")
    assert (answer["code"], answer["msg"]) == (50, node.obstacle)


async def test_a_second_interface_is_refused_and_the_first_lives(
    node: VerbsNode, spaces: tuple[Namespace, ...]
) -> None:
    host, first, _ = spaces
    await node.call("ADD", "c1", first)
    _, answer = await node.call("ADD", "c1", first, interface="eth1")
    assert answer["code"] == 2
    await reached(host, "10.244.0.2")


async def test_the_whole_way_through_the_plugin(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    _, first, _ = spaces
    conf = {**CONF, "socket": node.socket}
    code, result = await asyncio.to_thread(run_plugin, cni_env("ADD", "c1", first.path), conf)
    assert (code, result["ips"][0]["address"]) == (0, "10.244.0.2/32")
    code, answer = await asyncio.to_thread(run_plugin, cni_env("ADD", "c1", "/nowhere"), conf)
    assert (code, answer["code"]) == (1, 5)
    assert await asyncio.to_thread(run_plugin, cni_env("DEL", "c1", first.path), conf) == (0, {})


async def test_many_at_once(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    host, _, _ = spaces
    with namespaces(16) as pods:
        answers = await asyncio.gather(*(node.call("ADD", f"m{i}", pod) for i, pod in enumerate(pods)))
        assert [code for code, _ in answers] == [0] * 16
        assert len({answer["ips"][0]["address"] for _, answer in answers}) == 16
        await asyncio.gather(*(node.call("DEL", f"m{i}") for i in range(16)))
        assert links(host) == []


async def test_no_link_is_made_before_the_node_is_ready(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    host, first, _ = spaces
    node.ready.clear()
    async with asyncio.TaskGroup() as tasks:
        adding = tasks.create_task(node.call("ADD", "c1", first))
        await asyncio.sleep(0)
        assert not node.ipam.requests
        assert not links(host)
        node.ready.set()
    assert adding.result()[0] == 0


async def test_who_waited_for_the_node_in_vain_is_told_what_for(spaces: tuple[Namespace, ...], tmp_path: Path) -> None:
    made = VerbsNode(tmp_path, obstacle="sync: the bus is away", deadline_s=0.01)
    async with made.running():
        made.ready.clear()
        code, answer = await made.call("ADD", "c1", spaces[1])
    assert (code, answer["code"]) == (1, 11)
    assert answer["msg"] == "not done within 0.01 s: waiting for the node to be ready: sync: the bus is away"


def remembered(address: str) -> int:
    """How many connections that the kernel remembers name the address."""
    everything = message(1 << 8 | 1, NLM_F_REQUEST | NLM_F_DUMP, bytes(4))
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        return sum(ip_address(address).packed in body for _, body in netlink.dump(everything))


async def test_an_address_leaves_its_flows_behind(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    _, first, second = spaces
    with Libnftables() as nft:
        nft.run("add table inet watch\nadd chain inet watch forward { type filter hook forward priority 0; }\n")
        nft.run("add rule inet watch forward ct state established accept")
    for container, namespace in (("c1", first), ("c2", second)):
        await node.call("ADD", container, namespace)
    await reached(first, "10.244.0.3")
    assert remembered("10.244.0.3")
    await node.call("DEL", "c2")
    assert not remembered("10.244.0.3")


async def test_a_network_whose_name_begins_like_another_keeps_its_pods(
    node: VerbsNode, spaces: tuple[Namespace, ...]
) -> None:
    await node.call("ADD", "c1", spaces[1], name="net.two", cniVersion="1.1.0")
    collected: dict[str, Any] = {"name": "net", "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    assert (await node.call("GC", "", **collected))[0] == 0
    assert node.store.of_container("c1") is not None
    assert (await node.call("GC", "", **{**collected, "name": "net.two"}))[0] == 0
    assert node.store.of_container("c1") is None


async def test_a_repeated_del_takes_the_link_that_the_first_one_left(
    node: VerbsNode, spaces: tuple[Namespace, ...]
) -> None:
    host, first, _ = spaces
    await node.call("ADD", "c1", first, pod=WEB)
    node.store.remove(WEB)  # As after a crash between the note and the link.
    assert links(host)
    assert (await node.call("DEL", "c1", pod=WEB))[0] == 0
    assert not links(host)
