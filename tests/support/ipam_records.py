"""A small cluster's address records, consistent until a test says otherwise."""

from __future__ import annotations

from typing import Any

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import BlockCidr, HandleId, NodeName
from bus_schemas.ipam import Affinity, AffinityState, Allocation, Block, Candidate, Handle, Held, Holding
from bus_schemas.ipam_check import Records
from bus_schemas.resources import IPPool, IPReservation, Metadata, Node
from bus_schemas.resources.core import NodeSpec
from bus_schemas.resources.pools import IPPoolSpec, IPReservationSpec
from bus_schemas.subjects import AFFINITY, BLOCK, CANDIDATE, DESIRED, ENDPOINT, HANDLE, HOLDING, Fact, Family, Key

NOW = 1_000_000.0
SEQUENCE = 7


def block(cidr: str = "10.244.0.64/26", node: str | None = "node1", size: int = 64, **more: Any) -> Block:
    """An empty one."""
    given = {"pool": "default", "sequence": SEQUENCE + 1, "free": tuple(range(size)), **more}
    return Block(cidr=BlockCidr(cidr), node=NodeName(node) if node else None, **given)


def with_address(block: Block, ordinal: int, handle: str, borrower: str | None = None) -> Block:
    given = Allocation(
        ordinal=ordinal,
        handle=HandleId(handle),
        sequence=SEQUENCE,
        borrower=NodeName(borrower) if borrower else None,
    )
    return msgspec.structs.replace(
        block,
        allocations=tuple(sorted((*block.allocations, given), key=lambda a: a.ordinal)),
        free=tuple(free for free in block.free if free != ordinal),
    )


def handle(name: str, *addresses: str, node: str = "node1", pod: str = "a", **more: Any) -> Handle:
    return Handle(
        handle=HandleId(name),
        node=NodeName(node),
        namespace="default" if pod else "",
        pod=pod,
        addresses=addresses,
        sequences=tuple(SEQUENCE for _ in addresses),
        **more,
    )


def endpoint(name: str, *addresses: str, node: str = "node1", handle: str = "", **more: Any) -> Endpoint:
    return Endpoint(
        node=NodeName(node),
        namespace="default",
        name=name,
        container="c",
        link="tor0",
        addresses=addresses,
        handle=HandleId(handle),
        **more,
    )


def pool(name: str = "default", cidr: str = "10.244.0.0/16", **more: Any) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr, **more))


def node(name: str = "node1", *pod_cidrs: str) -> Node:
    return Node(metadata=Metadata(name=name), spec=NodeSpec(pod_cidrs=pod_cidrs))


def reservation(*cidrs: str) -> IPReservation:
    return IPReservation(metadata=Metadata(name="kept"), spec=IPReservationSpec(reserved_cidrs=cidrs))


class World:
    """Facts by key; `put` and `drop` change them."""

    def __init__(self) -> None:
        self.facts: dict[tuple[Family[Any], Key], Fact] = {}

    @property
    def records(self) -> Records:
        return Records.of(self.facts.values())

    def put(self, *messages: Any) -> World:
        for message in messages:
            family, key = self._where(message)
            self.facts[family, key] = Fact(family, key, message, 1)
        return self

    def drop(self, family: Family[Any], *key: str) -> World:
        del self.facts[family, key]
        return self

    def _where(self, message: Any) -> tuple[Family[Any], Key]:
        match message:
            case Block():
                return BLOCK, (message.cidr,)
            case Affinity():
                return AFFINITY, (message.node, message.cidr)
            case Handle():
                return HANDLE, (message.handle,)
            case Candidate():
                return CANDIDATE, (message.handle,)
            case Endpoint():
                return ENDPOINT, (message.node, message.namespace, message.name)
            case Holding():
                return HOLDING, (message.node,)
            case _:
                return DESIRED[type(message)], message.key


def affinity(node: str = "node1", cidr: str = "10.244.0.64/26", state: str = "confirmed") -> Affinity:
    return Affinity(node=NodeName(node), cidr=BlockCidr(cidr), state=AffinityState(state))


def holding(node: str, **held: tuple[str, ...]) -> Holding:
    """`held`: handle -> addresses."""
    entries = tuple(Held(handle=HandleId(name), addresses=addresses) for name, addresses in held.items())
    return Holding(node=NodeName(node), held=entries)


def sound() -> World:
    """Two nodes; pod a on node1 with an address of node1's block, pod b on node2 with a borrowed one."""
    ours = with_address(with_address(block(), 0, "cni.a"), 7, "cni.b", borrower="node2")
    return World().put(
        pool(),
        node("node1"),
        node("node2"),
        ours,
        affinity(),
        handle("cni.a", "10.244.0.64"),
        handle("cni.b", "10.244.0.71", node="node2", pod="b"),
        endpoint("a", "10.244.0.64", handle="cni.a"),
        endpoint("b", "10.244.0.71", node="node2"),
    )
