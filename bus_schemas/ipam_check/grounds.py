"""Where addresses may come from: the pools, and the nodes' own ranges, which are pools of that node alone.

Kubernetes gives every node a range, whether or not anybody takes addresses from it; often they are parts of a pool that
serves all nodes. So a block is of a node's range only if it was cut from it, and of the pool around it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.ipam import pod_cidr_pool
from bus_schemas.ipam_check.records import Records
from bus_schemas.ipam_check.report import Finding, Kind
from bus_schemas.reserved import Reserved

Network = IPv4Network | IPv6Network

POD_CIDR_BLOCK = {4: 26, 6: 122}
"""Prefix length of the blocks of a node's own range, unless a pool lies there, too: then they are as large as that
pool's. A smaller range is one block."""


class Ground(NamedTuple):
    """A range that blocks are cut from."""

    name: str
    network: Network
    block_prefix: int


class Grounds:
    def __init__(self, records: Records) -> None:
        self.findings: list[Finding] = []
        self.reserved = Reserved(records.reservations.values())
        for fault in self.reserved.faults:
            self.findings.append(Finding(kind=Kind.UNREADABLE, object=fault.partition(":")[0], text=fault))
        found = list(self._read_pools(records))
        self.findings += _overlaps(found)
        self._pools = _Index(found)
        own = [
            ground
            for name, node in records.nodes.items()
            for ground in _pod_cidrs(NodeName(name), node.spec.pod_cidrs, found)
        ]
        self._own = _Index(own)
        self._own_by_name: dict[str, list[Ground]] = {}
        for ground in own:
            self._own_by_name.setdefault(ground.name, []).append(ground)

    def _read_pools(self, records: Records) -> Iterator[Ground]:
        for name, pool in records.pools.items():
            try:
                yield Ground(name, ip_network(pool.spec.cidr), pool.block_size)
            except ValueError as error:
                text = f"pool {name} has no usable CIDR: {error}"
                self.findings.append(Finding(kind=Kind.UNREADABLE, object=name, text=text))

    def around(self, family: int, first: int, last: int) -> Ground | None:
        """The narrowest pool that holds all addresses from `first` to `last`; else the range of a node."""
        return self._pools.around(family, first, last) or self._own.around(family, first, last)

    def of_block(self, pool: str, network: Network) -> Ground | None:
        """Where a block lies that names this pool."""
        for own in self._own_by_name.get(pool, ()):
            if _holds(own.network, network):
                return own
        return self.around(network.version, int(network.network_address), int(network.broadcast_address))


class _Index:
    def __init__(self, grounds: Iterable[Ground]) -> None:
        self._by_prefix: dict[tuple[int, int], dict[int, Ground]] = {}
        """By family and prefix length, then by first address."""
        for ground in grounds:
            network = ground.network
            at = self._by_prefix.setdefault((network.version, network.prefixlen), {})
            at.setdefault(int(network.network_address), ground)

    def around(self, family: int, first: int, last: int) -> Ground | None:
        """The narrowest one that holds all addresses from `first` to `last`."""
        width = 32 if family == 4 else 128
        best: Ground | None = None
        for (version, prefix), found in self._by_prefix.items():
            if version != family or (best is not None and prefix < best.network.prefixlen):
                continue
            ground = found.get(first >> (width - prefix) << (width - prefix))
            if ground is not None and last <= int(ground.network.broadcast_address):
                best = ground
        return best


def _pod_cidrs(node: NodeName, cidrs: tuple[str, ...], pools: Iterable[Ground]) -> Iterator[Ground]:
    for text in cidrs:
        try:
            network = ip_network(text)
        except ValueError:
            continue  # the api took it from Kubernetes, which knows what it means; no block can be cut from it
        there = (pool.block_prefix for pool in pools if pool.network.overlaps(network))
        block_prefix = max(there, default=POD_CIDR_BLOCK[network.version])
        yield Ground(pod_cidr_pool(node), network, max(block_prefix, network.prefixlen))


def _overlaps(pools: list[Ground]) -> Iterator[Finding]:
    """Each pool with the nearest one around it or equal to it."""
    around: list[Ground] = []
    for pool in sorted(pools, key=lambda p: (p.network.version, int(p.network.network_address), p.network.prefixlen)):
        while around and not _holds(around[-1].network, pool.network):
            around.pop()
        if around:
            text = f"pool {pool.name} ({pool.network}) overlaps pool {around[-1].name} ({around[-1].network})"
            yield Finding(kind=Kind.POOL_OVERLAP, object=pool.name, text=text)
        around.append(pool)


def _holds(whole: Network, part: Network) -> bool:
    return whole.version == part.version and whole.prefixlen <= part.prefixlen and whole.overlaps(part)
