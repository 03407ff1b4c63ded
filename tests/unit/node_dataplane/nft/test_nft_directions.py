"""Attachments that name shared directions: closed or as before until those are known, and forgotten when unused."""

from __future__ import annotations

import pytest

from bus_schemas.ids import DirectionId
from bus_schemas.policy import Direction, SharedDirection
from bus_schemas.shared_directions import direction_id
from bus_schemas.subjects import DIRECTION, Fact
from services.node_dataplane.nft.table import Flush, PolicyTable
from tests.support.host_worlds import host, hosted, unhosted
from tests.support.nft_evaluator import Nftables, Packet
from tests.support.nft_worlds import (
    TCP,
    allow,
    attach,
    detach,
    direction,
    link,
    plug,
    pod,
    rules,
    settle,
    tell,
    tier,
)

CLIENT, SERVER, NODE_ADDRESS = "10.244.0.9", "10.244.0.1", "192.168.1.1"
OPENING = rules("opening", ingress=[allow(protocol=TCP)])
CLOSING = rules("closing")
OPEN_LONG, CLOSED_LONG = direction(tier("opening", "closing")), direction(tier("closing"))


def shared(whole: Direction) -> Direction:
    return Direction(shared=direction_id(whole))


def told(whole: Direction) -> Fact:
    return Fact(DIRECTION, (direction_id(whole),), SharedDirection(direction=whole))


def gone(whole: Direction) -> Fact:
    return Fact(DIRECTION, (direction_id(whole),), None)


class World:
    def __init__(self, *facts: Fact) -> None:
        self.table = PolicyTable()
        self.kernel = Nftables()
        plug(self.table, "server", SERVER)
        self.tell(OPENING, CLOSING, *facts)

    def tell(self, *facts: Fact) -> Flush:
        tell(self.table, *facts)
        return settle(self.table, self.kernel)

    def wanted(self) -> frozenset[DirectionId]:
        return self.table.wanted().directions

    def open(self) -> bool:
        return self.kernel.send(Packet(CLIENT, SERVER, TCP, 80, out_link=link("server"))).accepted

    def node_open(self) -> bool:
        return self.kernel.send(Packet(CLIENT, NODE_ADDRESS, TCP, 8080, in_link="eth0", path="input")).accepted


def test_closed_until_it_is_known() -> None:
    world = World()
    flush = world.tell(attach("server", ingress=shared(OPEN_LONG)))
    assert not world.open()
    assert flush.blocked == {pod("server"): f"directions not known yet: {direction_id(OPEN_LONG)}"}
    assert world.wanted() == {direction_id(OPEN_LONG)}
    world.tell(told(OPEN_LONG))
    assert not world.open(), "its rules were not asked for yet"
    assert world.table.wanted().rules == {"opening", "closing"}
    assert world.tell(OPENING, CLOSING).programmed == {pod("server")}
    assert world.open()


def test_it_is_the_same_as_if_it_stood_in_the_attachment() -> None:
    one = World(told(OPEN_LONG), attach("server", ingress=shared(OPEN_LONG)))
    other = World(attach("server", ingress=OPEN_LONG))
    assert one.kernel.snapshot() == other.kernel.snapshot()


def test_no_gap_while_the_next_one_is_read() -> None:
    world = World(told(OPEN_LONG), attach("server", ingress=shared(OPEN_LONG)))
    wider = direction(tier("opening"))
    flush = world.tell(attach("server", ingress=shared(wider)), gone(OPEN_LONG))
    assert flush.transaction is None
    assert world.open()
    assert pod("server") in flush.blocked, "it is said that what is asked for is not in place"
    assert world.wanted() == {direction_id(wider)}
    assert world.tell(told(wider)).programmed == {pod("server")}
    assert world.open()
    world.tell(attach("server", ingress=CLOSED_LONG))
    assert not world.open()
    assert world.wanted() == frozenset()


def test_another_container_does_not_inherit_what_was_before() -> None:
    world = World(told(OPEN_LONG), attach("server", ingress=shared(OPEN_LONG)))
    plug(world.table, "server", SERVER, container="c2")
    flush = world.tell(attach("server", ingress=shared(CLOSED_LONG), container="c2"))
    assert not world.open()
    assert flush.blocked[pod("server")].startswith("directions not known yet")


def test_both_ways_are_needed() -> None:
    world = World(attach("server", ingress=shared(OPEN_LONG), egress=shared(CLOSED_LONG)))
    assert pod("server") in world.tell(told(OPEN_LONG)).blocked
    assert world.tell(told(CLOSED_LONG)).programmed == {pod("server")}
    assert world.open()


def test_forgotten_when_nobody_names_it() -> None:
    world = World(told(OPEN_LONG), attach("server", ingress=shared(OPEN_LONG)))
    world.table.wanted()
    world.tell(detach("server"))
    assert world.wanted() == frozenset()
    world.tell(attach("server", ingress=shared(OPEN_LONG)))
    assert not world.open(), "its key is read anew"
    world.table.wanted()
    world.tell(told(OPEN_LONG), OPENING, CLOSING)
    assert world.open()


def test_what_was_never_asked_for_is_not_kept() -> None:
    world = World(told(OPEN_LONG))
    world.table.wanted()
    assert not world.tell(attach("server", ingress=shared(OPEN_LONG))).programmed


def test_wanted_is_the_same_object_while_nothing_changes() -> None:
    world = World(told(OPEN_LONG), attach("server", ingress=shared(OPEN_LONG)))
    before = world.table.wanted()
    world.tell(attach("server", ingress=shared(OPEN_LONG)), told(OPEN_LONG))
    assert world.table.wanted().directions == before.directions


def test_one_that_is_gone_though_it_is_named_takes_nothing_away() -> None:
    """Its contents follow from its id, so what was read of it is right."""
    world = World(told(OPEN_LONG), attach("server", ingress=shared(OPEN_LONG)))
    assert world.tell(gone(OPEN_LONG)).transaction is None
    plug(world.table, "late", "10.244.0.2")
    assert pod("late") in world.tell(attach("late", ingress=shared(OPEN_LONG))).blocked


def test_one_that_is_shared_itself_is_not_known() -> None:
    knot = Fact(DIRECTION, (direction_id(OPEN_LONG),), SharedDirection(direction=shared(CLOSED_LONG)))
    world = World(attach("server", ingress=shared(OPEN_LONG)))
    assert pod("server") in world.tell(knot).blocked
    assert world.wanted() == {direction_id(OPEN_LONG)}


@pytest.mark.parametrize("stage", ["ingress", "pre_dnat", "untracked_ingress"])
def test_a_host_endpoint_is_closed_where_it_is_not_known(stage: str) -> None:
    """At any stage: devices without a host endpoint would be open."""
    open_ = direction(tier("opening"))
    world = World()
    assert world.node_open()
    world.tell(hosted(host("a", "eth0", **{"ingress": open_, stage: shared(open_)})))  # type: ignore[arg-type]
    assert not world.node_open()
    (why,) = world.table.host_faults()
    assert f"direction {direction_id(open_)}" in why
    world.tell(told(open_))
    assert world.node_open()
    assert not world.table.host_faults()
    world.tell(hosted(host("a", "eth0", ingress=shared(CLOSED_LONG))))
    assert world.node_open(), "until the next one is known"
    world.tell(told(CLOSED_LONG))
    assert not world.node_open()
    world.tell(unhosted("a"))
    assert world.node_open()
    assert world.wanted() == frozenset()
