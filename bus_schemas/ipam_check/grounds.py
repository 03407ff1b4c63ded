"""Where addresses may come from: the pools, and the nodes' own ranges, which are pools of that node alone."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.ipam import pod_cidr_pool
from bus_schemas.ipam_check.records import Records
from bus_schemas.ipam_check.report import Finding, Kind
from bus_schemas.reserved import Reserved

Network = IPv4Network | IPv6Network

POD_CIDR_BLOCK = {4: 26, 6: 122}
"""Prefix length of the blocks of a node's own range; a smaller range is one block."""


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
        found = list(self._pools(records))
        self.findings += _overlaps(found)
        for name, node in records.nodes.items():
            found += _pod_cidrs(NodeName(name), node.spec.pod_cidrs)
        self._by_prefix: dict[tuple[int, int], dict[int, Ground]] = {}
        """By family and prefix length, then by first address."""
        for ground in found:
            network = ground.network
            at = self._by_prefix.setdefault((network.version, network.prefixlen), {})
            at.setdefault(int(network.network_address), ground)

    def _pools(self, records: Records) -> Iterator[Ground]:
        for name, pool in records.pools.items():
            try:
                yield Ground(name, ip_network(pool.spec.cidr), pool.block_size)
            except ValueError as error:
                text = f"pool {name} has no usable CIDR: {error}"
                self.findings.append(Finding(kind=Kind.UNREADABLE, object=name, text=text))

    def around(self, family: int, first: int, last: int) -> Ground | None:
        """The narrowest range that holds all addresses from `first` to `last`."""
        width = 32 if family == 4 else 128
        best: Ground | None = None
        for (version, prefix), found in self._by_prefix.items():
            if version != family or (best is not None and prefix < best.network.prefixlen):
                continue
            ground = found.get(first >> (width - prefix) << (width - prefix))
            if ground is not None and last <= int(ground.network.broadcast_address):
                best = ground
        return best


def _pod_cidrs(node: NodeName, cidrs: tuple[str, ...]) -> Iterator[Ground]:
    for text in cidrs:
        try:
            network = ip_network(text)
        except ValueError:
            continue  # the api took it from Kubernetes, which knows what it means; no block can be cut from it
        yield Ground(pod_cidr_pool(node), network, max(POD_CIDR_BLOCK[network.version], network.prefixlen))


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
