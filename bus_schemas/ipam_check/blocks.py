"""Blocks, each by itself and beside the pools, the nodes and the affinities."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from bus_schemas.ipam import AffinityState, Block
from bus_schemas.ipam_check.grounds import Grounds, Network
from bus_schemas.ipam_check.records import Records
from bus_schemas.ipam_check.report import Finding, Kind

SIZES = {4: range(20, 33), 6: range(116, 129)}
"""Prefix lengths that a block may have, by family (projectcalico.org/v3 IPPool.spec.blockSize)."""


def fault(key: str, block: Block) -> str:
    """Why a block makes no sense of itself; empty: it does."""
    if block.cidr != key:
        return f"says that it is {block.cidr}"
    try:
        network = ip_network(block.cidr)
    except ValueError as error:
        return f"is no network: {error}"
    if str(network) != block.cidr:
        return f"should be spelt {network}"
    if network.prefixlen not in SIZES[network.version]:
        return f"has no size of a block, /{network.prefixlen}"
    return _ordinals_fault(block, network.num_addresses)


def _ordinals_fault(block: Block, size: int) -> str:
    given = [a.ordinal for a in block.allocations]
    if given != sorted(set(given)):
        return "names an allocation twice, or out of order"
    if len({*given, *block.free}) != len(given) + len(block.free):
        return "has an address that is free and given, or free twice"
    if {*given, *block.free} != set(range(size)):
        return f"does not account for its {size} addresses: {len(given)} given, {len(block.free)} free"
    if not {cooling.ordinal for cooling in block.cooling} <= set(block.free):
        return "lets an address rest that is not free"
    late = [a.ordinal for a in block.allocations if a.sequence > block.sequence]
    return f"gave the address {late[0]} later than it last changed" if late else ""


def check(records: Records, grounds: Grounds) -> Iterator[Finding]:
    networks: list[Network] = []
    for key, block in records.blocks.items():
        text = fault(key, block)
        if text:
            yield Finding(kind=Kind.BLOCK_MALFORMED, object=key, text=f"block {key} {text}")
        else:
            network = ip_network(key)
            networks.append(network)
            yield from _place(block, network, grounds)
        yield from _owner(block, records)
    yield from _overlaps(networks)
    for (node, cidr), affinity in records.affinities.items():
        if cidr not in records.blocks:
            text = f"node {node} claims {cidr} ({affinity.state}), and there is no such block"
            under_way = affinity.state is not AffinityState.CONFIRMED
            yield Finding(kind=Kind.AFFINITY_DANGLING, object=f"{node} {cidr}", text=text, note=under_way)
        elif affinity.state is AffinityState.CONFIRMED and records.blocks[cidr].node != node:
            owner = records.blocks[cidr].node or "nobody"
            text = f"node {node} claims {cidr}, which is {owner}'s"
            yield Finding(kind=Kind.AFFINITY_DANGLING, object=f"{node} {cidr}", text=text)


def _place(block: Block, network: Network, grounds: Grounds) -> Iterator[Finding]:
    ground = grounds.of_block(block.pool, network)
    if ground is None:
        text = f"block {block.cidr} (cut from pool {block.pool}) is outside of every pool: {_used(block)}"
        yield Finding(kind=Kind.BLOCK_OUTSIDE, object=block.cidr, text=text)
    elif network.prefixlen != ground.block_prefix:
        text = f"block {block.cidr} is no /{ground.block_prefix} as the blocks of pool {ground.name} are"
        yield Finding(kind=Kind.BLOCK_SIZE, object=block.cidr, text=text)
    elif block.pool != ground.name:
        text = f"block {block.cidr} was cut from pool {block.pool} and is inside of pool {ground.name}"
        yield Finding(kind=Kind.BLOCK_POOL, object=block.cidr, text=text, note=True)


def _owner(block: Block, records: Records) -> Iterator[Finding]:
    if block.node is None:
        if not block.allocations:
            text = f"block {block.cidr} is nobody's and empty"
            yield Finding(kind=Kind.BLOCK_IDLE, object=block.cidr, text=text, note=True)
    elif block.node not in records.nodes and not block.node.startswith("virtual:"):
        text = f"block {block.cidr} is node {block.node}'s, which does not exist: {_used(block)}"
        yield Finding(kind=Kind.BLOCK_NODE_GONE, object=block.cidr, text=text)
    elif (block.node, block.cidr) not in records.affinities:
        text = f"block {block.cidr} is node {block.node}'s, which has no affinity to it"
        yield Finding(kind=Kind.BLOCK_UNCLAIMED, object=block.cidr, text=text)


def _used(block: Block) -> str:
    given = len(block.allocations)
    return f"{given} of its addresses {'is' if given == 1 else 'are'} in use" if given else "it is empty"


def _overlaps(networks: list[Network]) -> Iterator[Finding]:
    previous: Network | None = None
    for network in sorted(networks, key=lambda n: (n.version, int(n.network_address), n.prefixlen)):
        if previous is not None and previous.version == network.version and previous.overlaps(network):
            text = f"block {network} overlaps block {previous}: an address can be given twice"
            yield Finding(kind=Kind.BLOCK_OVERLAP, object=str(network), text=text)
            continue  # the wider one stays what the next is compared with
        previous = network
