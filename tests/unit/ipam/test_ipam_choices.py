"""What operators and requests choose: the configuration, a request's own limit, uses, tunnels, a node's own ranges."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import (
    LOAD_BALANCER,
    Assigned,
    PoolExhausted,
    Refused,
    ReleaseRequest,
    load_balancer_handle,
    tunnel_handles,
)
from bus_schemas.subjects import BLOCK, HANDLE, Fact
from services.ipam.core import Reply
from services.ipam.limits import Limits
from services.ipam.settings import Settings
from tests.support.ipam import (
    START,
    Replica,
    Store,
    affinities,
    ask,
    check_store,
    cluster,
    configuration,
    give_back,
    namespace,
    node,
    owners,
    pool,
    ranged,
    without,
)

N1, N2 = node("n1"), node("n2")
FOUR = pool("four", "10.0.0.0/24", block_size=30)
ONE_BLOCK = pool("one", "10.0.0.0/30", block_size=30)
SIX = pool("six", "fd00::/64", block_size=126)


def told(store: Store, ipam: Replica, *facts: Fact) -> None:
    for fact in facts:
        store.put(fact)
    ipam.catch_up()


def given(ipam: Replica, *handles: str, on: str = "n1", **fields: Any) -> list[str]:
    replies = ipam.answer(*(ask(handle, on, **fields) for handle in handles))
    assert all(isinstance(reply, Assigned) for reply in replies), replies
    return [address for reply in replies if isinstance(reply, Assigned) for address in reply.addresses]


def no(reply: Reply) -> str:
    assert isinstance(reply, PoolExhausted | Refused), reply
    return reply.reason


def test_a_pool_in_the_list_of_the_other_family_is_refused() -> None:
    _, [ipam] = cluster(FOUR, SIX, N1)
    assert given(ipam, "a", pools=("four", "six"), pools_of=(4, 6))[0].startswith("10.0.0.")
    for name in ("four", "10.0.0.0/24"):
        for families in ((), (6,)):
            text = no(ipam.answer(ask("b", pools=(name,), pools_of=(6,), families=families))[0])
            assert text == "IPPool four (10.0.0.0/24) is named in ipv6pools (ipv6_pools), and is of IPv4"


# --- IPAMConfiguration


def test_what_the_configuration_leaves_open_the_settings_decide() -> None:
    settings = Settings(strict_affinity=True, max_blocks_per_node=7, ip_cooldown_s=1.5)
    store, [ipam] = cluster(limits=settings.limits)
    assert ipam.core.limits == settings.limits
    assert (
        ipam.core.limits.told
        == settings.told
        == {
            "strictAffinity": "true",
            "AutoAllocateBlocks": "true",
            "MaxBlocksPerHost": "7",
            "IPCooldownSeconds": "1.5",
        }
    )
    told(store, ipam, configuration())
    assert ipam.core.limits == settings.limits
    everything = {"strict_affinity": False, "auto_allocate_blocks": False, "max_blocks_per_host": 0}
    told(store, ipam, configuration(**everything, ip_cooldown_seconds=0))
    assert ipam.core.limits.told == {
        "strictAffinity": "false",
        "AutoAllocateBlocks": "false",
        "MaxBlocksPerHost": "unlimited",
        "IPCooldownSeconds": "0",
    }
    told(store, ipam, without(configuration()))
    assert ipam.core.limits == settings.limits


def test_strict_affinity_is_switched_while_it_runs() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, N2)
    given(ipam, "a")
    given(ipam, "b", on="n2")
    told(store, ipam, configuration(strict_affinity=True))
    text = no(ipam.answer(ask("c", "n2"))[0])
    assert "2 free in blocks of other nodes (2 of n1); strict affinity forbids to borrow" in text
    assert "strictAffinity: false in IPAMConfiguration default" in text
    assert "strictAffinity" in no(ipam.answer(ask("c", "n2", addresses=("10.0.0.3",)))[0])
    told(store, ipam, configuration(strict_affinity=False))
    given(ipam, "c", on="n2")


def test_no_further_block_is_claimed() -> None:
    store, [ipam] = cluster(FOUR, N1, N2)
    given(ipam, "a")
    told(store, ipam, configuration(auto_allocate_blocks=False))
    given(ipam, "b", "c", "d")
    assert len(owners(store)) == 1
    for request in (ask("e"), ask("e", addresses=("10.0.0.255",))):
        text = no(ipam.answer(request)[0])
        assert "autoAllocateBlocks is false in IPAMConfiguration default, so no node claims a further block" in text
    ipam.answer(give_back("a"))
    given(ipam, "f", on="n2")
    assert len(owners(store)) == 1, "n2 borrows"
    told(store, ipam, without(configuration()))
    given(ipam, "e")
    assert len(owners(store)) == 2


@pytest.mark.parametrize(
    ("spec", "asked", "most", "by"),
    [
        (None, None, 3, "TORTIE_MAX_BLOCKS_PER_NODE=3"),
        (None, 2, 2, "the request's own limit=2"),
        (None, 5, 3, "TORTIE_MAX_BLOCKS_PER_NODE=3"),
        ({"max_blocks_per_host": 1}, None, 1, "maxBlocksPerHost of IPAMConfiguration default=1"),
        ({"max_blocks_per_host": 1}, 2, 1, "maxBlocksPerHost of IPAMConfiguration default=1"),
        ({"max_blocks_per_host": 0}, 2, 2, "the request's own limit=2"),
        ({"max_blocks_per_host": 4}, 0, 4, "maxBlocksPerHost of IPAMConfiguration default=4"),
    ],
)
def test_the_lowest_limit_of_blocks_counts_and_is_named(
    spec: dict[str, int] | None, asked: int | None, most: int, by: str
) -> None:
    facts = [] if spec is None else [configuration(**spec)]
    _, [ipam] = cluster(FOUR, N1, *facts, limits=Limits(max_blocks_per_node=3))
    given(ipam, *(f"h{i}" for i in range(4 * most)), max_blocks_per_node=asked)
    text = no(ipam.answer(ask("one more", max_blocks_per_node=asked))[0])
    assert f"it has {most} block{'s' * (most != 1)}, the most that {by} allows" in text
    named = no(ipam.answer(ask("named", addresses=("10.0.0.128",), max_blocks_per_node=asked))[0])
    assert by in named


# --- pools by request


def test_who_names_pools_of_one_family_chose_nothing_for_the_other() -> None:
    edge = pool("edge", "10.9.0.0/24", assignment_mode="Manual")
    _, [ipam] = cluster(FOUR, edge, SIX, N1)
    assert [a[:5] for a in given(ipam, "a", pools=("edge",), families=(4, 6))] == ["10.9.", "fd00:"]
    assert [a[:5] for a in given(ipam, "b", pools=("edge",))] == ["10.9."]
    text = no(ipam.answer(ask("c", pools=("nowhere",)))[0])
    assert "no IPPool is called or covers exactly nowhere; there are: edge (10.9.0.0/24), four (10.0.0.0/24)" in text


@pytest.mark.parametrize("use", ["warm", "floating"])
def test_what_is_for_pods_comes_from_pools_for_pods(use: str) -> None:
    store, [ipam] = cluster(FOUR, pool("lb", "10.9.0.0/24", allowed_uses=("LoadBalancer",)), N1)
    assert given(ipam, "h", use=use, addresses=("10.0.0.7",)) == ["10.0.0.7"]
    assert store.get(HANDLE, ("h",)).value.use == use
    assert "has no Workload in allowedUses" in no(ipam.answer(ask("i", use=use, addresses=("10.9.0.7",)))[0])


def test_a_floating_address_has_a_name() -> None:
    _, [ipam] = cluster(FOUR, N1)
    assert "by name" in no(ipam.answer(ask("h", use="floating"))[0])


def test_a_pool_for_load_balancers_is_for_nobody_else() -> None:
    _, [ipam] = cluster(pool("lb", "10.9.0.0/24", allowed_uses=("LoadBalancer",)), N1)
    assert "has no Workload in allowedUses" in no(ipam.answer(ask("h"))[0])
    handle = load_balancer_handle("web", "shop")
    assert given(ipam, handle, on=LOAD_BALANCER, use="loadbalancer")


# --- tunnels


@pytest.mark.parametrize(
    ("handle", "pools"),
    [
        ("vxlan-tunnel-addr-n1", ["vxlan"]),
        ("vxlan-v6-tunnel-addr-n1", ["vxlan"]),
        ("ipip-tunnel-addr-n1", ["ipip"]),
        ("wireguard-tunnel-addr-n1", ["ipip", "plain", "vxlan"]),
        ("wireguard-v6-tunnel-addr-n1", ["ipip", "plain", "vxlan"]),
        ("vxlan-tunnel-addr-n2", ["ipip", "vxlan"]),
    ],
)
def test_a_tunnels_address_comes_from_pools_with_that_tunnel(handle: str, pools: list[str]) -> None:
    net = {"ipip": "10.1.0.0/24", "plain": "10.2.0.0/24", "vxlan": "10.3.0.0/24"}
    facts = [
        pool("ipip", net["ipip"], ipip_mode="Always"),
        pool("plain", net["plain"]),
        pool("vxlan", net["vxlan"], vxlan_mode="CrossSubnet"),
    ]
    for name in pools:
        _, [ipam] = cluster(*facts, N1)
        [address] = given(ipam, handle, use="tunnel")
        assert address.rpartition(".")[0] == net[name].rpartition(".")[0]
        facts = [fact for fact in facts if fact.key[1] != name]
    _, [ipam] = cluster(*facts, N1)
    assert isinstance(ipam.answer(ask(handle, use="tunnel"))[0], PoolExhausted)


def test_a_deleted_node_has_no_tunnel_address_left() -> None:
    store, [ipam] = cluster(pool("p", "10.0.0.0/24", vxlan_mode="Always", ipip_mode="Always"), N1, N2)
    given(ipam, *tunnel_handles(NodeName("n1")), use="tunnel")
    kept = given(ipam, *tunnel_handles(NodeName("n2")), on="n2", use="tunnel")
    told(store, ipam, without(N1))
    ipam.repair()
    assert sorted(check_store(store)) == sorted(kept)
    assert len(kept) == 5


# --- a node's own ranges

RANGED = ranged("n1", "10.8.1.0/24", "fd08:1::/64")


def test_addresses_of_a_nodes_own_range() -> None:
    store, [ipam] = cluster(RANGED, N2, FOUR)
    assert [a[:7] for a in given(ipam, "a", from_pod_cidr=True)] == ["10.8.1.", "fd08:1:"]
    assert given(ipam, "b", from_pod_cidr=True, addresses=("10.8.1.200",)) == ["10.8.1.200"]
    blocks = {block.cidr: block.pool for block in store.values(BLOCK)}
    assert set(blocks.values()) == {"podcidr-n1"}
    assert {cidr.split("/")[1] for cidr in blocks} == {"26", "122"}
    text = no(ipam.answer(ask("c", "n2", from_pod_cidr=True))[0])
    assert "its spec.podCIDRs has no range" in text
    assert "in no podCIDR of node n1" in no(ipam.answer(ask("d", from_pod_cidr=True, addresses=("10.0.0.1",)))[0])
    assert "is for pods" in no(ipam.answer(ask("e", from_pod_cidr=True, use="tunnel"))[0])
    assert given(ipam, "plain")[0].startswith("10.0.0."), "without the word it is no pool"


def test_a_small_range_is_one_block_and_knows_no_limit_of_blocks() -> None:
    limits = Limits(max_blocks_per_node=1, auto_allocate_blocks=False)
    store, [ipam] = cluster(ranged("n1", "10.8.1.0/30", "10.8.2.0/25"), limits=limits)
    assert len(given(ipam, *(f"h{i}" for i in range(132)), from_pod_cidr=True)) == 132
    assert sorted(owners(store)) == ["10.8.1.0/30", "10.8.2.0/26", "10.8.2.64/26"]
    text = no(ipam.answer(ask("i", from_pod_cidr=True))[0])
    assert "pod CIDR 10.8.1.0/30 of node n1: 4 of 4 addresses in use, 1 of 1 blocks claimed" in text
    assert "Give the node a larger podCIDR" in text


def test_ranges_that_move_to_another_node() -> None:
    store, [ipam] = cluster(ranged("n1", "10.8.1.0/30"), N2)
    given(ipam, "a", "b", from_pod_cidr=True)
    told(store, ipam, ranged("n1", "10.8.2.0/30"), ranged("n2", "10.8.1.0/30"))
    ipam.repair()
    assert owners(store) == {"10.8.1.0/30": "n1"}, "pods are there"
    text = no(ipam.answer(ask("c", "n2", from_pod_cidr=True))[0])
    assert "2 free in blocks of other nodes (2 of n1); nothing is borrowed there" in text
    given(ipam, "d", from_pod_cidr=True)
    ipam.answer(give_back("a"), give_back("b"))
    ipam.repair()
    given(ipam, "c", on="n2", from_pod_cidr=True)
    assert owners(store) == {"10.8.1.0/30": "n2", "10.8.2.0/30": "n1"}


def test_a_range_inside_a_pool() -> None:
    """As kubeadm has it: the pool is the cluster's network, and every node has a part of it."""
    store, [ipam] = cluster(pool("all", "10.8.0.0/16"), ranged("n1", "10.8.1.0/24"), N2)
    given(ipam, "a", from_pod_cidr=True)
    told(store, ipam, pool("all", "10.8.0.0/16", disabled=True))
    ipam.repair()
    assert [block.pool for block in store.values(BLOCK)] == ["podcidr-n1"]
    told(store, ipam, N1)
    ipam.repair()
    assert [block.pool for block in store.values(BLOCK)] == ["all"], "the range is gone, its addresses are used"
    assert "10.8.1." in next(iter(check_store(store)))


def test_a_range_inside_a_pool_is_cut_as_the_pool_is() -> None:
    """Of blocks of different sizes one could come to lie in the other, while both nodes ask at once."""
    store, [one, two] = cluster(pool("all", "10.8.1.0/26", block_size=28), ranged("n1", "10.8.1.0/26"), N2, replicas=2)
    asked = [(one, ask("a", "n1", from_pod_cidr=True)), (two, ask("b", "n2")), (one, ask("c", "n2"))]
    for _ in range(5):
        for replica, decision in [(r, r.core.decide([q], START)) for r, q in asked]:
            replica.commit(decision)
    assert set(check_store(store).values()) == {"a", "b", "c"}
    assert {cidr.split("/")[1] for cidr in owners(store)} == {"28"}


def test_a_range_smaller_than_a_block_of_the_pool_around_it_is_not_used() -> None:
    _, [ipam] = cluster(pool("all", "10.8.0.0/16"), ranged("n1", "10.8.1.0/28"))
    assert (
        "pod CIDR 10.8.1.0/28 of node n1 is smaller than one block of IPPool all (10.8.0.0/16), which is a /26"
        in no(ipam.answer(ask("a", from_pod_cidr=True))[0])
    )


def test_a_range_that_is_none_is_named() -> None:
    _, [ipam] = cluster(ranged("n1", "nonsense"))
    assert "podCIDRs of node n1" in str(ipam.core.faults)
    assert "has no range" in no(ipam.answer(ask("a", from_pod_cidr=True))[0])


# --- pools that are split, enlarged, renamed


def test_blocks_belong_to_the_pool_that_holds_them() -> None:
    store, [ipam] = cluster(FOUR, N1)
    before = given(ipam, *(f"h{i}" for i in range(9)))
    halves = [pool(f"split-four-{i}", f"10.0.0.{128 * i}/25", block_size=30) for i in range(2)]
    told(store, ipam, without(FOUR), *halves)
    ipam.repair()
    assert sorted(check_store(store)) == sorted(before)
    for block in store.values(BLOCK):
        half = int(block.cidr.split("/")[0].rpartition(".")[2]) // 128
        assert block.pool == f"split-four-{half}"
    assert set(affinities(store).values()) == {"confirmed"}
    assert sum(ipam.core.ledger.used.values()) == 9
    told(store, ipam, *map(without, halves), pool("four", "10.0.0.0/23", block_size=30))
    ipam.repair()
    assert {block.pool for block in store.values(BLOCK)} == {"four"}
    given(ipam, "more")
    assert ipam.answer(give_back("h0"), ReleaseRequest(handle=HandleId("h1")))


def test_a_pool_of_another_namespace_is_for_its_own() -> None:
    only = pool("only", "10.5.0.0/24", namespace_selector="team == 'x'")
    _, [ipam] = cluster(only, N1, namespace("web", team="x"), namespace("other"))
    assert given(ipam, "a", namespace="web")
    assert "does not select namespace 'other'" in no(ipam.answer(ask("b", namespace="other"))[0])
