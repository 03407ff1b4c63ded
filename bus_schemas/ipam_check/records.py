"""Everything that a check looks at, by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus_schemas.endpoints import Endpoint
from bus_schemas.ipam import Affinity, Block, Candidate, Epoch, Handle, Holding, ServiceAddresses
from bus_schemas.ipam_check.report import Finding, Kind
from bus_schemas.resources import IPPool, IPReservation, Node, Service
from bus_schemas.subjects import (
    AFFINITY,
    BLOCK,
    CANDIDATE,
    DESIRED,
    ENDPOINT,
    EPOCH,
    HANDLE,
    HOLDING,
    SERVICE_ADDRESSES,
    Fact,
    Family,
    Key,
)


@dataclass(frozen=True)
class Records:
    blocks: Mapping[str, Block] = field(default_factory=dict)
    """By CIDR."""
    affinities: Mapping[tuple[str, str], Affinity] = field(default_factory=dict)
    """By (node, CIDR)."""
    handles: Mapping[str, Handle] = field(default_factory=dict)
    candidates: Mapping[str, Candidate] = field(default_factory=dict)
    """By handle."""
    services: Mapping[tuple[str, str], Service] = field(default_factory=dict)
    """By (namespace, name), as are their addresses."""
    service_addresses: Mapping[tuple[str, str], ServiceAddresses] = field(default_factory=dict)
    pools: Mapping[str, IPPool] = field(default_factory=dict)
    reservations: Mapping[str, IPReservation] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    endpoints: Mapping[tuple[str, str, str], Endpoint] = field(default_factory=dict)
    """By (node, namespace, name)."""
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    """By node."""
    epoch: Epoch | None = None
    unreadable: tuple[Finding, ...] = ()

    @staticmethod
    def of(facts: Iterable[Fact], unreadable: Iterable[tuple[Family[Any], Key, str]] = ()) -> Records:
        """Out of the current facts of a bus, in any order; `unreadable` are keys with the reason."""
        held: dict[Family[Any], dict[Any, Any]] = {family: {} for family in FAMILIES}
        for fact in facts:
            view = held.get(fact.family)
            if view is None:
                continue
            key = _key(fact.key)
            if fact.value is None:
                view.pop(key, None)
            else:
                view[key] = fact.value
        return Records(
            blocks=held[BLOCK],
            affinities=held[AFFINITY],
            handles=held[HANDLE],
            candidates=held[CANDIDATE],
            services=held[DESIRED[Service]],
            service_addresses=held[SERVICE_ADDRESSES],
            pools=held[DESIRED[IPPool]],
            reservations=held[DESIRED[IPReservation]],
            nodes=held[DESIRED[Node]],
            endpoints=held[ENDPOINT],
            holdings=held[HOLDING],
            epoch=held[EPOCH].get(""),
            unreadable=tuple(cannot_read(family, key, reason) for family, key, reason in unreadable),
        )


FAMILIES: tuple[Family[Any], ...] = (
    BLOCK,
    AFFINITY,
    HANDLE,
    EPOCH,
    CANDIDATE,
    SERVICE_ADDRESSES,
    ENDPOINT,
    HOLDING,
    *(DESIRED[kind] for kind in (Service, IPPool, IPReservation, Node)),
)
"""Where the records come from."""


def cannot_read(family: Family[Any], key: Key, reason: str) -> Finding:
    name = " ".join((family.name, *filter(None, key)))
    return Finding(kind=Kind.UNREADABLE, object=name, text=f"{name} cannot be read: {reason}")


def _key(key: Key) -> str | Key:
    """A single name: of one token, or of a cluster-wide resource, whose namespace is empty. Of none: the empty name."""
    if len(key) <= 1:
        return "".join(key)
    return key[1] if len(key) == 2 and not key[0] else key
