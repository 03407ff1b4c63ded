"""The check of the address records: each row breaks a sound cluster in one way and names what must be said of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Candidate, Cooling, Epoch
from bus_schemas.ipam_check import AddressState, Kind, Records, Report, check
from bus_schemas.resources import IPPool, Node
from bus_schemas.subjects import AFFINITY, BLOCK, DESIRED, ENDPOINT, EPOCH, HANDLE, Fact
from tests.support.ipam_records import (
    NOW,
    SEQUENCE,
    World,
    affinity,
    block,
    endpoint,
    handle,
    holding,
    node,
    pool,
    reservation,
    sound,
    with_address,
)


def checked(world: World) -> Report:
    return check(world.records, NOW)


def kinds(world: World) -> list[str]:
    return [finding.kind.value for finding in checked(world).problems]


def rows(world: World) -> dict[str, AddressState]:
    return {row.ip: row.state for row in checked(world).addresses}


def test_a_sound_cluster() -> None:
    report = checked(sound())
    assert report.clean
    assert report.problems == report.notes == ()
    assert (report.counts.blocks, report.counts.allocations, report.counts.endpoints, report.counts.handles) == (
        1,
        2,
        2,
        2,
    )
    assert [(busy.node, busy.addresses) for busy in report.busiest] == [("node1", 1), ("node2", 1)]
    assert [(row.ip, row.node, row.pod, row.borrowed) for row in report.addresses] == [
        ("10.244.0.64", "node1", "a", False),
        ("10.244.0.71", "node2", "b", True),
    ]


def broken_block(**changes: object) -> World:
    world = sound()
    found = world.facts[BLOCK, ("10.244.0.64/26",)].value
    return world.put(msgspec.structs.replace(found, **changes))


CASES: dict[str, tuple[Callable[[], World], list[Kind]]] = {
    "used twice": (lambda: sound().put(endpoint("c", "10.244.0.64", node="node2")), [Kind.OTHER_NODE, Kind.DUPLICATE]),
    "used, not allocated": (lambda: sound().put(endpoint("c", "10.244.0.99", handle="cni.c")), [Kind.NOT_ALLOCATED]),
    "its own choice inside of a pool": (lambda: sound().put(endpoint("c", "10.244.9.9")), [Kind.NOT_ALLOCATED]),
    "used, outside": (lambda: sound().put(endpoint("c", "10.9.0.1", handle="cni.c")), [Kind.OUTSIDE]),
    "another handle": (lambda: sound().put(endpoint("a", "10.244.0.64", handle="cni.x")), [Kind.OTHER_HANDLE]),
    "another pod": (
        lambda: sound().drop(ENDPOINT, "node1", "default", "a").put(endpoint("c", "10.244.0.64")),
        [Kind.OTHER_HANDLE],
    ),
    "another node": (
        lambda: sound().drop(ENDPOINT, "node1", "default", "a").put(endpoint("a", "10.244.0.64", node="node2")),
        [Kind.OTHER_NODE],
    ),
    "leaked": (lambda: sound().drop(ENDPOINT, "node1", "default", "a"), [Kind.LEAKED]),
    "no handle": (lambda: sound().drop(HANDLE, "cni.a"), [Kind.HANDLE_MISSING]),
    "handle without the address": (
        lambda: sound().put(handle("cni.a", "10.244.0.65")),
        [Kind.HANDLE_MISSING, Kind.HANDLE_ASTRAY],
    ),
    "handle of another time": (
        lambda: sound().put(msgspec.structs.replace(handle("cni.a", "10.244.0.64"), sequences=(SEQUENCE - 1,))),
        [Kind.HANDLE_MISSING],
    ),
    "handle of another node": (lambda: sound().put(handle("cni.a", "10.244.0.64", node="node2")), [Kind.OTHER_NODE]),
    "handle astray": (lambda: sound().put(handle("cni.c", "10.244.0.80", pod="c")), [Kind.HANDLE_ASTRAY]),
    "empty handle": (lambda: sound().put(handle("cni.c")), [Kind.HANDLE_MALFORMED]),
    "unequal handle": (
        lambda: sound().put(msgspec.structs.replace(handle("cni.a", "10.244.0.64"), sequences=(SEQUENCE, SEQUENCE))),
        [Kind.HANDLE_MALFORMED],
    ),
    "overlapping pools": (lambda: sound().put(pool("inner", "10.244.128.0/24")), [Kind.POOL_OVERLAP]),
    "equal pools": (lambda: sound().put(pool("defaulu")), [Kind.POOL_OVERLAP]),
    "no pool": (lambda: sound().drop(DESIRED[IPPool], "", "default"), [Kind.BLOCK_OUTSIDE]),
    "unreadable pool": (lambda: sound().put(pool("bad", "garbage")), [Kind.UNREADABLE]),
    "another size": (lambda: sound().put(pool(block_size=28)), [Kind.BLOCK_SIZE]),
    "overlapping blocks": (
        lambda: sound().put(block("10.244.0.64/28", size=16), affinity(cidr="10.244.0.64/28")),
        [Kind.BLOCK_SIZE, Kind.BLOCK_OVERLAP],
    ),
    "a free address is missing": (lambda: broken_block(free=tuple(range(8, 64))), [Kind.BLOCK_MALFORMED]),
    "free and given": (lambda: broken_block(free=tuple(range(64))), [Kind.BLOCK_MALFORMED]),
    "given rests": (lambda: broken_block(cooling=(Cooling(ordinal=0, released=1.0),)), [Kind.BLOCK_MALFORMED]),
    "given later than changed": (lambda: broken_block(sequence=SEQUENCE - 1), [Kind.BLOCK_MALFORMED]),
    "claimed without a block": (lambda: sound().put(affinity("node2", "10.244.7.0/26")), [Kind.AFFINITY_DANGLING]),
    "claimed by another": (lambda: sound().put(affinity("node2")), [Kind.AFFINITY_DANGLING]),
    "not claimed": (lambda: sound().drop(AFFINITY, "node1", "10.244.0.64/26"), [Kind.BLOCK_UNCLAIMED]),
    "node gone": (lambda: sound().drop(DESIRED[Node], "", "node1"), [Kind.BLOCK_NODE_GONE]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_found(name: str) -> None:
    world, expected = CASES[name]
    assert sorted(kinds(world())) == sorted(kind.value for kind in expected)


NOTES: dict[str, tuple[Callable[[], World], Kind]] = {
    "reserved": (lambda: sound().put(reservation("10.244.0.64/31")), Kind.RESERVED),
    "of another pool's name": (lambda: broken_block(pool="was"), Kind.BLOCK_POOL),
    "idle": (lambda: sound().put(block("10.244.1.0/26", node=None)), Kind.BLOCK_IDLE),
    "claim under way": (lambda: sound().put(affinity("node2", "10.244.7.0/26", "pending")), Kind.AFFINITY_DANGLING),
    "held by who is gone": (
        lambda: sound().put(holding("node9", **{"vxlan-tunnel-addr-node9": ("10.244.3.3",)})),
        Kind.DEPARTED,
    ),
    "brought along": (lambda: sound().put(endpoint("c", "192.0.2.7")), Kind.OWN_CHOICE),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_is_only_strange_is_a_note(name: str) -> None:
    world, expected = NOTES[name]
    report = checked(world())
    assert report.problems == ()
    assert [finding.kind for finding in report.notes] == [expected]


def test_a_leaked_address_says_since_when_and_until_when() -> None:
    candidate = Candidate(
        handle=HandleId("cni.a"),
        node=NodeName("node1"),
        addresses=("10.244.0.64",),
        reason="",
        since=0.0,
        observations=2,
        due=900.0,
    )
    report = checked(sound().drop(ENDPOINT, "node1", "default", "a").put(candidate))
    (problem,) = report.problems
    assert (problem.handle, problem.sequence) == ("cni.a", SEQUENCE)
    assert problem.text == (
        "10.244.0.64 (handle cni.a of pod default/a): node node1 does not say that it is used; "
        "a candidate since 1970-01-01T00:00:00Z, seen 2 times, due 1970-01-01T00:15:00Z"
    )
    assert (report.addresses[0].state, report.addresses[0].due) == (AddressState.LEAKED, 900.0)


def test_an_address_that_was_given_a_moment_ago_is_not_leaked() -> None:
    world = sound().drop(ENDPOINT, "node1", "default", "a").put(handle("cni.a", "10.244.0.64", assigned=NOW - 1))
    assert kinds(world) == []
    assert rows(world)["10.244.0.64"] is AddressState.SETTLING


@pytest.mark.parametrize("use", ["tunnel", "warm"])
def test_what_only_the_node_knows_is_not_judged_before_it_speaks(use: str) -> None:
    world = sound().drop(ENDPOINT, "node1", "default", "a").put(handle("cni.a", "10.244.0.64", pod="", use=use))
    assert kinds(world) == []
    assert rows(world)["10.244.0.64"] is AddressState.UNKNOWN
    assert rows(world.put(holding("node1")))["10.244.0.64"] is AddressState.LEAKED
    world.put(holding("node1", **{"cni.a": ("10.244.0.64",)}))
    assert rows(world)["10.244.0.64"] is AddressState.IN_USE
    assert kinds(world) == []


def test_a_pod_that_took_a_warm_address_is_right_before_the_block_knows_it() -> None:
    world = sound().put(
        handle("warm.node1.1", "10.244.0.64", pod="", use="warm"),
        with_address(block(), 0, "warm.node1.1"),
        endpoint("a", "10.244.0.64", handle="cni.a"),
        holding("node1", **{"warm.node1.1": ("10.244.0.64",)}),
    )
    world.drop(HANDLE, "cni.a").drop(HANDLE, "cni.b").drop(ENDPOINT, "node2", "default", "b")
    assert kinds(world) == []


def test_a_nodes_own_range_is_a_pool() -> None:
    own = with_address(block("10.7.0.0/26", pool="podcidr-node1"), 1, "cni.c")
    world = sound().put(
        node("node1", "10.7.0.0/24"),
        own,
        affinity(cidr="10.7.0.0/26"),
        handle("cni.c", "10.7.0.1", pod="c"),
        endpoint("c", "10.7.0.1", handle="cni.c"),
    )
    assert checked(world).problems == checked(world).notes == ()


def test_ranges_of_nodes_inside_a_pool_that_serves_all() -> None:
    """As kubeadm has it: every node has a range of the cluster's network, and pods take addresses from the pool."""
    world = sound().put(pool(block_size=28), node("node1", "10.244.0.0/24"), node("node2", "10.244.1.0/24"))
    world.drop(BLOCK, "10.244.0.64/26").drop(AFFINITY, "node1", "10.244.0.64/26")
    cut = block("10.244.0.64/28", size=16)
    world.put(
        with_address(with_address(cut, 0, "cni.a"), 7, "cni.b", borrower="node2"), affinity(cidr="10.244.0.64/28")
    )
    assert checked(world).problems == checked(world).notes == ()
    world.put(with_address(block("10.244.1.0/28", "node2", size=16, pool="podcidr-node2"), 0, "cni.c"))
    world.put(affinity("node2", "10.244.1.0/28"), handle("cni.c", "10.244.1.0", node="node2", pod="c"))
    world.put(endpoint("c", "10.244.1.0", node="node2", handle="cni.c"))
    assert checked(world).problems == checked(world).notes == ()


def test_a_second_look_drops_what_was_under_way() -> None:
    first, second = checked(sound().drop(HANDLE, "cni.a")), checked(sound().drop(ENDPOINT, "node1", "default", "a"))
    assert first.confirmed_by(second).clean
    assert first.confirmed_by(second).addresses[0].state is AddressState.SETTLING
    assert second.confirmed_by(second) == second


def test_records_that_cannot_be_read_are_named() -> None:
    world = sound()
    records = Records.of(world.facts.values(), [(BLOCK, ("10.244.9.0/26",), "no msgpack")])
    (problem,) = check(records, NOW).problems
    assert problem.text == "block 10.244.9.0/26 cannot be read: no msgpack"


@pytest.mark.parametrize(("state", "problems"), [("ready", []), ("recovering", [Kind.REBUILDING])])
def test_records_that_are_being_rebuilt(state: str, problems: list[Kind]) -> None:
    epoch = Epoch(id="e", state=state, began=1.0, missing=(NodeName("node2"),))
    report = check(Records.of([*sound().facts.values(), Fact(EPOCH, (), epoch, 1)]), NOW)
    assert [finding.kind for finding in report.problems] == problems
    assert all("still awaited: node2" in finding.text for finding in report.problems)


def test_a_report_survives_its_file() -> None:
    report = checked(sound().drop(ENDPOINT, "node1", "default", "a"))
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
