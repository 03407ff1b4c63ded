"""What a resource may not be beside those that are there already, and what may not change about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from bus_schemas.manifests.outcomes import Fault
from bus_schemas.resources import IPPool, Resource


def validate_against(resource: Resource, existing: Iterable[Resource]) -> tuple[Fault, ...]:
    """The faults of creating or replacing `resource` where `existing` is (what it replaces may be among them)."""
    if isinstance(resource, IPPool):
        return tuple(_pool(resource, (other for other in existing if isinstance(other, IPPool))))
    return ()


def _pool(pool: IPPool, others: Iterable[IPPool]) -> Iterator[Fault]:
    network = ip_network(pool.spec.cidr)
    for other in others:
        if other.key == pool.key:
            yield from _changed(pool, other)
        elif network.overlaps(ip_network(other.spec.cidr)):
            reason = f"{pool.spec.cidr} overlaps the pool {other.metadata.name} ({other.spec.cidr})"
            yield Fault(0, "spec.cidr", reason)


def _holds(whole: IPv4Network | IPv6Network, part: IPv4Network | IPv6Network) -> bool:
    return whole.version == part.version and whole.prefixlen <= part.prefixlen and whole.overlaps(part)


def _changed(pool: IPPool, before: IPPool) -> Iterator[Fault]:
    """Addresses were given out by these: a pool may only grow around its blocks."""
    if not _holds(ip_network(pool.spec.cidr), ip_network(before.spec.cidr)):
        reason = f"would leave blocks of {before.spec.cidr} without a pool: a pool can only grow, or be split"
        yield Fault(0, "spec.cidr", reason)
    elif pool.block_size != before.block_size:
        yield Fault(0, "spec.blockSize", f"cannot be changed (it is {before.block_size}): make a new pool")
    if ("LoadBalancer" in pool.spec.allowed_uses) != ("LoadBalancer" in before.spec.allowed_uses):
        yield Fault(0, "spec.allowedUses", "LoadBalancer cannot be added or removed: make a new pool")
