"""Which pools serve a request, and in which order a node tries their blocks."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from bus_schemas.ids import NodeName
from bus_schemas.ipam import Assigned, PoolExhausted, Refused
from bus_schemas.reserved import Reserved
from services.ipam.pools import MalformedPool, candidates, fnv32, read
from tests.support.ipam import ask, cluster, namespace, node, pool

RED = {"labels": {"color": "red"}}


@pytest.mark.parametrize(("text", "expected"), [("", 0x811C9DC5), ("a", 0x050C5D7E), ("foobar", 0x31F0B262)])
def test_fnv(text: str, expected: int) -> None:
    """Published vectors of FNV-1, 32 bits."""
    assert fnv32(text.encode()) == expected


@pytest.mark.parametrize(
    ("cidr", "size", "blocks"),
    [("10.0.0.0/24", 26, 4), ("10.0.0.0/26", 26, 1), ("10.0.0.5/32", 32, 1), ("fd00::/120", 122, 4)],
)
def test_candidates_are_every_block_once(cidr: str, size: int, blocks: int) -> None:
    read_pool = read(pool("p", cidr, block_size=size).value)
    for name in ("n1", "n2", "a-rather-long-name.example.org"):
        found = list(candidates(read_pool, NodeName(name), Reserved()))
        assert len(set(found)) == len(found) == blocks
        assert all(read_pool.cidr.holds(block) and block.prefix == size for block in found)
        index = found.index(min(found))
        assert found[index:] + found[:index] == sorted(found), "from a place of its own, then on, round the end"


def test_candidates_of_a_huge_pool_are_made_one_by_one() -> None:
    for fact in (pool("p", "10.0.0.0/8", block_size=32), pool("p", "fd00::/8")):
        first, second = islice(candidates(read(fact.value), NodeName("n1"), Reserved()), 2)
        assert second.first == first.last + 1


@pytest.mark.parametrize(
    ("cidr", "spec", "says"),
    [
        ("10.0.0.1/24", {}, "host bits"),
        ("nonsense", {}, "nonsense"),
        ("10.0.0.0/24", {"block_size": 19}, "not between /20 and /32"),
        ("fd00::/64", {"block_size": 64}, "not between /116 and /128"),
        ("10.0.0.0/28", {}, "does not fit"),
        ("10.0.0.0/24", {"node_selector": "a =="}, "selector"),
    ],
)
def test_a_pool_with_a_mistake_is_set_aside_and_named(cidr: str, spec: dict[str, Any], says: str) -> None:
    with pytest.raises(MalformedPool, match=says):
        read(pool("p", cidr, **spec).value)
    _, [ipam] = cluster(pool("p", cidr, **spec), pool("good", "10.9.0.0/24"), node("n1"))
    assert says in next(iter(ipam.core.faults.values()))
    [reply] = ipam.answer(ask("h"))
    assert isinstance(reply, Assigned)
    assert reply.addresses[0].startswith("10.9.0.")


@pytest.mark.parametrize(
    ("spec", "fields", "outcome"),
    [
        ({}, {}, "10.1."),
        ({"disabled": True}, {}, "is disabled"),
        ({"disabled": True}, {"pools": ("p",)}, "is disabled"),
        ({"assignment_mode": "Manual"}, {}, "assignmentMode is Manual"),
        ({"assignment_mode": "Manual"}, {"pools": ("p",)}, "10.1."),
        ({"assignment_mode": "Manual"}, {"addresses": ("10.1.0.7",)}, "10.1.0.7"),
        ({"node_selector": "zone == 'a'"}, {}, "10.1."),
        ({"node_selector": "zone == 'b'"}, {}, "does not select node n1"),
        ({"node_selector": "zone == 'b'"}, {"pools": ("10.1.0.0/16",)}, "10.1."),
        ({"node_selector": "zone == 'b'"}, {"addresses": ("10.1.0.7",)}, "10.1.0.7"),
        ({"namespace_selector": "team == 'x'"}, {"namespace": "web"}, "10.1."),
        ({"namespace_selector": "team == 'x'"}, {"namespace": "other"}, "does not select namespace 'other'"),
        ({"namespace_selector": "team == 'x'"}, {}, "does not select namespace ''"),
        ({"namespace_selector": "kubernetes.io/metadata.name == 'web'"}, {"namespace": "web"}, "10.1."),
        ({"allowed_uses": ("Tunnel",)}, {}, "has no Workload in allowedUses"),
        ({"allowed_uses": ("Tunnel",)}, {"addresses": ("10.1.0.7",)}, "has no Workload in allowedUses"),
        ({}, {"use": "tunnel"}, "has no tunnel"),
        ({"vxlan_mode": "Always"}, {"use": "tunnel"}, "10.1."),
        ({"vxlan_mode": "Always", "allowed_uses": ("Workload",)}, {"use": "tunnel"}, "has no Tunnel in allowedUses"),
        ({}, {"families": (6,)}, "there is no IPv6 IPPool: add one."),
        ({}, {"pools": ("q",)}, "no IPPool is called or covers exactly q"),
        ({}, {"addresses": ("10.2.0.1",)}, "is in no IPPool"),
        ({}, {"addresses": ("10.1.0.300",)}, "10.1.0.300"),
        ({}, {"families": (5,)}, "not among 4 and 6"),
        ({}, {"use": "coffee"}, "none of workload, tunnel"),
        ({}, {"on": "n9"}, "unknown node n9"),
    ],
)
def test_eligibility(spec: dict[str, Any], fields: dict[str, Any], outcome: str) -> None:
    facts = [pool("p", "10.1.0.0/16", **spec), node("n1", zone="a"), namespace("web", team="x"), namespace("other")]
    _, [ipam] = cluster(*facts)
    [reply] = ipam.answer(ask("h", **fields))
    match reply:
        case Assigned(addresses=(address,)):
            assert address.startswith(outcome)
        case Refused(reason=reason) | PoolExhausted(reason=reason):
            assert outcome in reason
        case _:
            raise AssertionError(reply)


def test_pools_are_taken_in_the_order_asked_for() -> None:
    facts = [pool("a", "10.1.0.0/31", block_size=31), pool("b", "10.2.0.0/31", block_size=31), node("n1")]
    _, [ipam] = cluster(*facts)
    replies = ipam.answer(*(ask(f"h{i}", pools=("b", "10.1.0.0/31")) for i in range(5)))
    assert [r.addresses[0][:5] for r in replies if isinstance(r, Assigned)] == ["10.2.", "10.2.", "10.1.", "10.1."]
    assert isinstance(replies[-1], PoolExhausted)
