"""Which replica is near: all parts are somebody's, and only what must change hands does."""

from __future__ import annotations

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import AssignRequest, ReleaseRequest
from bus_schemas.subjects import ASSIGN, RELEASE, RPC_PARTS
from chassis.nearness import parts_of

THREE = ["ipam-0", "ipam-1", "ipam-2"]


def test_every_part_is_one_replicas() -> None:
    shares = [parts_of(instance, THREE) for instance in THREE]
    assert sum(map(len, shares)) == len(frozenset.union(*shares)) == RPC_PARTS
    assert min(map(len, shares)) > RPC_PARTS // 6


def test_one_alone_has_all_and_a_stranger_none() -> None:
    assert parts_of("ipam-0", ["ipam-0"]) == frozenset(range(RPC_PARTS))
    assert parts_of("ipam-9", THREE) == parts_of("ipam-0", []) == frozenset()


def test_who_leaves_gives_the_others_his_parts_and_nothing_else_moves() -> None:
    for instance in THREE[:2]:
        assert parts_of(instance, THREE) < parts_of(instance, THREE[:2])


def test_requests_of_a_node_are_of_one_part() -> None:
    node = NodeName("node-1")
    asked = AssignRequest(node=node, handle=HandleId("a"))
    assert ASSIGN.part_of(asked) == RELEASE.part_of(ReleaseRequest(node=node, handle=HandleId("b")))
    assert RELEASE.part_of(ReleaseRequest(handle=HandleId("b"))) is None
