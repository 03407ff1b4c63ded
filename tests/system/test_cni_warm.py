"""Warm addresses and outages of the bus, at the CNI's verbs: real kernel, the other services played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.ids import HandleId, PodKey
from bus_schemas.ipam import PoolExhausted
from bus_schemas.resources import IPPool
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from services.node_dataplane import warm_pool
from tests.support.agent import VerbsNode
from tests.support.netns import Namespace, links, namespaces, ping
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

WEB = PodKey("test", "web")
POOL = "10.244.0.0/16"
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"


@pytest.fixture
def spaces() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """The node, in which the test itself stands, and two pods."""
    with namespaces(3) as (host, first, second), host.inside():
        host.ip("address", "add", "10.0.0.1/32", "dev", "lo")
        host.forward()
        yield host, first, second


def pool(name: str = "default", cidr: str = POOL, **spec: Any) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr, **spec))


@asynccontextmanager
async def warmed(node: VerbsNode, *pools: IPPool) -> AsyncIterator[VerbsNode]:
    """A node that keeps two addresses, and has them."""
    node.warm_addresses = 2
    async with node.running():
        node.warm_pool.want(pools or (pool(),), {})
        await eventually(lambda: node.warm_pool.ready == 2)
        yield node


@pytest.fixture
async def node(spaces: tuple[Namespace, ...], tmp_path: Path) -> AsyncIterator[VerbsNode]:
    async with warmed(VerbsNode(tmp_path)) as made:
        yield made


def blackholes(host: Namespace) -> list[str]:
    rows = json.loads(host.ip("-j", "route", "show", "proto", "84") or "[]")
    return sorted(row["dst"] for row in rows if row.get("type") == "blackhole")


def address(answer: dict[str, Any]) -> str:
    return str(answer["ips"][0]["address"]).partition("/")[0]


async def test_a_warm_address_leads_nowhere_until_a_pod_has_it(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    host, first, _ = spaces
    assert blackholes(host) == ["10.244.0.2", "10.244.0.3"]
    assert {held.use for held in node.warm_pool.held()} == {"warm"}
    node.ipam.away = True
    code, answer = await node.call("ADD", "c1", first, pod=WEB)
    assert (code, address(answer)) == (0, "10.244.0.2")
    assert blackholes(host) == ["10.244.0.3"]
    assert await asyncio.to_thread(ping, host, "10.244.0.2")


async def test_the_address_service_is_told_later(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    node.ipam.away = True
    await node.call("ADD", "c1", spaces[1], pod=WEB)
    (held,) = node.take_overs.held()
    assert (held.addresses, held.use) == (("10.244.0.2",), "warm")
    node.ipam.away = False
    await eventually(lambda: node.ipam.held.get("k8s-pod-network.c1") == ("10.244.0.2",))
    assert not list(node.take_overs.held())
    assert held.handle not in node.ipam.held
    await eventually(lambda: len(node.store.warm) == 2)
    told = next(request for request in node.ipam.requests if request.takes_over == held.handle)
    assert (told.pod, told.namespace, told.addresses) == ("web", "test", ("10.244.0.2",))


async def test_a_pod_that_goes_before_it_was_told_owes_both_handles(
    node: VerbsNode, spaces: tuple[Namespace, ...]
) -> None:
    node.ipam.away = True
    await node.call("ADD", "c1", spaces[1])
    (held,) = node.take_overs.held()
    await node.call("DEL", "c1")
    assert set(node.store.owed) == {"k8s-pod-network.c1", held.handle}
    assert not list(node.take_overs.held())


async def test_a_restart_finds_its_warm_addresses_and_what_is_to_be_told(
    spaces: tuple[Namespace, ...], tmp_path: Path
) -> None:
    async with warmed(VerbsNode(tmp_path)) as node:
        node.ipam.away = True
        await node.call("ADD", "c1", spaces[1])
        held, warm = dict(node.ipam.held), node.store.warm
    reborn = VerbsNode(tmp_path, warm_addresses=2)
    reborn.ipam.held = held
    async with reborn.running():
        assert set(reborn.store.warm) <= set(warm)
        reborn.warm_pool.want((pool(),), {})
        await eventually(lambda: reborn.ipam.held.get("k8s-pod-network.c1") == ("10.244.0.2",))
        await eventually(lambda: len(reborn.store.warm) == 2 and all(kept.addresses for kept in reborn.store.warm))
        assert len(set(reborn.ipam.held.values())) == 3


async def test_what_it_does_not_get_again_is_given_to_no_pod(
    spaces: tuple[Namespace, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with warmed(VerbsNode(tmp_path)):
        pass
    reborn = VerbsNode(tmp_path, warm_addresses=2)
    reborn.ipam.size = 0
    monkeypatch.setattr(reborn.ipam, "assign", lambda _: PoolExhausted(pools=(), reason="the limit of blocks is met"))
    async with reborn.running():
        ready: list[int] = []
        forget = reborn.warm_pool._forget

        async def noted(addresses: Iterable[str]) -> None:
            ready.append(len(list(addresses)))
            await forget(addresses)

        monkeypatch.setattr(reborn.warm_pool, "_forget", noted)
        reborn.warm_pool.want((pool(),), {})
        await eventually(lambda: not reborn.store.warm)
        assert not ready


async def test_what_was_given_to_others_while_the_node_was_away_is_not_given_to_pods(
    spaces: tuple[Namespace, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with warmed(VerbsNode(tmp_path)) as node:
        kept = node.store.warm
    monkeypatch.setattr(warm_pool, "REFRESH_S", 1e9)  # the machine was started just now
    reborn = VerbsNode(tmp_path, warm_addresses=2)
    reborn.ipam.held = {HandleId("other"): kept[0].addresses, HandleId("another"): kept[1].addresses}
    async with reborn.running():
        reborn.warm_pool.want((pool(),), {})
        await eventually(lambda: reborn.warm_pool.ready == 2)
        given = [address for held in reborn.ipam.held.values() for address in held]
        assert sorted(set(given)) == sorted(given)
        assert len(given) == 4


@pytest.mark.parametrize(
    "annotations",
    [
        {"cni.projectcalico.org/ipAddrs": '["10.244.0.77"]'},
        {"cni.projectcalico.org/ipv4pools": '["special"]'},
        {"cni.projectcalico.org/ipFamilies": '["IPv6"]'},
    ],
)
async def test_who_asks_for_something_else_gets_no_warm_address(
    node: VerbsNode, spaces: tuple[Namespace, ...], annotations: dict[str, str]
) -> None:
    kept = node.store.warm
    node.resources.annotations = annotations
    code, _ = await node.call("ADD", "c1", spaces[1], pod=WEB)
    assert code == 0
    assert node.store.warm == kept
    assert node.ipam.requests[-1].takes_over is None
    code, _ = await node.call("ADD", "c2", spaces[2], ipam={"ipv4_pools": ["other"]})
    assert code == 0
    assert node.store.warm == kept


async def test_a_pool_that_chooses_its_namespaces_leaves_the_choice_to_the_address_service(
    spaces: tuple[Namespace, ...], tmp_path: Path
) -> None:
    choosy = pool("choosy", "10.245.0.0/16", namespace_selector="team == 'a'")
    async with warmed(VerbsNode(tmp_path), pool(), choosy) as node:
        assert not node.warm_pool.stocked, "whose namespace is not known"
        kept = node.store.warm
        await node.call("ADD", "c1", spaces[1])
        assert node.store.warm == kept


@pytest.mark.parametrize(
    "now",
    [
        (pool(disabled=True),),
        (pool(node_selector="!all()"),),
        (pool(namespace_selector="team == 'a'"),),
        (pool(assignment_mode="Manual"),),
        (pool(allowed_uses=("Tunnel",)),),
        (pool(cidr="10.250.0.0/16"),),
        (),
    ],
)
async def test_addresses_of_a_pool_that_serves_no_more_are_given_back(
    node: VerbsNode, spaces: tuple[Namespace, ...], now: tuple[IPPool, ...]
) -> None:
    before = {kept.handle for kept in node.store.warm}
    node.warm_pool.want(now, {})
    await eventually(lambda: before <= set(node.store.owed))
    assert not any(kept.handle in before for kept in node.store.warm)
    await eventually(lambda: not set(blackholes(spaces[0])) & {"10.244.0.2", "10.244.0.3"} or bool(now))


async def test_exhausted_pools_get_their_warm_addresses_back(spaces: tuple[Namespace, ...], tmp_path: Path) -> None:
    node = VerbsNode(tmp_path, warm_addresses=4)
    node.ipam.size = 2
    async with node.running():
        node.warm_pool.want((pool(),), {})
        await eventually(lambda: len(node.store.owed) == 4)
        assert node.store.warm == ()
        assert "warm addresses" not in node.health.notes


async def test_an_idle_node_keeps_none_and_begins_anew_with_the_next_pod(
    spaces: tuple[Namespace, ...], tmp_path: Path
) -> None:
    async with warmed(VerbsNode(tmp_path, warm_idle_s=0.5)) as node:
        before = {kept.handle for kept in node.store.warm}
        await eventually(lambda: before <= set(node.store.owed))
        assert node.store.warm == ()
        await eventually(lambda: blackholes(spaces[0]) == [])
        assert (await node.call("ADD", "c1", spaces[1]))[0] == 0
        assert node.ipam.requests[-1].takes_over is None
        await eventually(lambda: node.warm_pool.ready == 2)


async def test_one_that_was_released_by_hand_is_replaced(
    spaces: tuple[Namespace, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.node_dataplane.warm_pool.REFRESH_S", 0.05)
    async with warmed(VerbsNode(tmp_path)) as node:
        victim = node.store.warm[0]
        del node.ipam.held[victim.handle]
        node.ipam.held[HandleId("thief")] = victim.addresses
        await eventually(lambda: not any(kept.addresses == victim.addresses for kept in node.store.warm))
        await eventually(lambda: node.warm_pool.ready == 2)
        assert victim.addresses[0] not in blackholes(spaces[0])


async def test_a_refused_take_over_is_loud(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    from bus_schemas.ipam import AssignReply, AssignRequest, Refused

    def refuse(request: AssignRequest) -> AssignReply:
        return Refused(reason="it was released")

    node.ipam.take_over = refuse  # type: ignore[method-assign]
    await node.call("ADD", "c1", spaces[1])
    await eventually(lambda: bool(node.told))
    assert node.told[0][:2] == ("take_over_refused", "default/c1")
    assert "it was released" in node.health.notes["addresses to take over"]
    assert list(node.take_overs.held()), "it is still held"


# --- outages


async def away(node: VerbsNode) -> None:
    node.bus.leave()
    node.ipam.away = True
    node.policy.blocked = "the bus is away"
    node.resources.missing = True
    await asyncio.sleep(0)


async def test_a_pod_starts_in_an_outage_and_is_announced_when_its_resource_can_be_read(
    node: VerbsNode, spaces: tuple[Namespace, ...]
) -> None:
    await away(node)
    code, answer = await node.call("ADD", "c1", spaces[1], pod=WEB)
    assert (code, address(answer)) == (0, "10.244.0.2")
    assert WEB not in node.announcements.endpoints
    assert "test/web" in node.health.notes["pods that started closed"]
    assert node.told[0][:2] == ("started_closed", "test/web")
    assert [held.addresses for held in node.take_overs.held()] == [("10.244.0.2",)]
    assert (await node.call("ADD", "c1", spaces[1], pod=WEB))[0] == 0, "the runtime may ask twice"

    node.bus.come_back()
    node.ipam.away = False
    node.policy.blocked = ""
    node.resources.appear()
    await eventually(lambda: WEB in node.announcements.endpoints)
    await eventually(lambda: "pods that started closed" not in node.health.notes)
    assert node.told[-1][:2] == ("opened", "test/web")
    await eventually(lambda: not list(node.take_overs.held()))


async def test_a_pod_that_asked_for_something_else_stays_closed_and_is_named(
    node: VerbsNode, spaces: tuple[Namespace, ...]
) -> None:
    await away(node)
    await node.call("ADD", "c1", spaces[1], pod=WEB)
    node.resources.annotations = {"cni.projectcalico.org/ipAddrs": '["10.244.0.77"]'}
    node.bus.come_back()
    node.resources.appear()
    await eventually(lambda: node.told[-1][0] == "started_otherwise")
    assert WEB not in node.announcements.endpoints
    assert "cni.projectcalico.org/ipAddrs" in node.health.notes["pods that started closed"]
    await node.call("DEL", "c1", spaces[1], pod=WEB)
    assert "pods that started closed" not in node.health.notes


async def test_what_the_runtime_tells_of_annotations_counts_in_an_outage(
    spaces: tuple[Namespace, ...], tmp_path: Path
) -> None:
    async with warmed(VerbsNode(tmp_path, deadline_s=0.2)) as node:
        await away(node)
        told = {"cni.projectcalico.org/ipAddrs": '["10.244.0.77"]'}
        code, answer = await node.call("ADD", "c1", spaces[1], pod=WEB, runtimeConfig={ANNOTATIONS: told})
        assert (code, answer["code"]) == (1, 11)
        assert links(spaces[0]) == []
        told = {"cni.projectcalico.org/hwAddr": "02:00:00:00:00:07"}
        code, answer = await node.call("ADD", "c1", spaces[1], pod=WEB, runtimeConfig={ANNOTATIONS: told})
        assert (code, answer["interfaces"][1]["mac"]) == (0, "02:00:00:00:00:07")


async def test_a_pod_without_a_resource_starts_in_an_outage_and_is_announced(
    node: VerbsNode, spaces: tuple[Namespace, ...]
) -> None:
    await away(node)
    code, _ = await node.call("ADD", "c1", spaces[1])
    assert code == 0
    assert node.announcements.endpoints[PodKey("default", "c1")].labels == {}
    assert "default/c1" in node.health.notes["pods that started closed"]


async def test_a_bus_that_goes_while_a_pod_waits_for_it(node: VerbsNode, spaces: tuple[Namespace, ...]) -> None:
    node.policy.blocked = "no policy yet"
    async with asyncio.TaskGroup() as tasks:
        adding = tasks.create_task(node.call("ADD", "c1", spaces[1], pod=WEB))
        await eventually(lambda: any(name.startswith("tor") for name in links(spaces[0])))
        node.bus.leave()
    assert adding.result()[0] == 0
    assert "test/web" in node.health.notes["pods that started closed"]


async def test_refuse(spaces: tuple[Namespace, ...], tmp_path: Path) -> None:
    async with warmed(VerbsNode(tmp_path, outage_add="refuse", deadline_s=0.2)) as node:
        await away(node)
        code, answer = await node.call("ADD", "c1", spaces[1], pod=WEB)
        assert (code, answer["code"]) == (1, 11)
        code, answer = await node.call("ADD", "c1", spaces[1])
        assert (code, answer["code"]) == (1, 11)
        assert links(spaces[0]) == []


async def test_how_long_to_wait_for_policy_is_the_configurations(
    node: VerbsNode, spaces: tuple[Namespace, ...]
) -> None:
    node.policy.blocked = "group 'x' is not known yet"
    code, _ = await node.call("ADD", "c1", spaces[1], policy_setup_timeout_seconds=0.05)
    assert code == 0
    assert "group 'x'" in node.health.notes["pods that started closed"]
