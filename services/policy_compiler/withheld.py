"""What is desired and cannot be read, as long as its absence could open something. Pure.

A compiler that runs keeps the last good value of such an object. One that has just started knows none: to compile
without it would open what it closes, so the compiler does not begin. What is compiled already stands, for agents and
on the bus, until the object can be read or is gone.
"""

from __future__ import annotations

from typing import Any

from bus_schemas.resources import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    KubernetesNetworkPolicy,
    NetworkPolicy,
    NetworkSet,
    Tier,
)
from bus_schemas.subjects import DESIRED, Family, Key, family_of
from chassis.feed import Batch

CLOSING: tuple[Family[Any], ...] = tuple(
    DESIRED[kind]
    for kind in (
        *(KubernetesNetworkPolicy, NetworkPolicy, GlobalNetworkPolicy),
        *(ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy),
        *(Tier, HostEndpoint, NetworkSet, GlobalNetworkSet),
    )
)
"""Without one of these, something may be allowed that was not. Without a Pod or a Namespace, pods are closed."""


class Withheld:
    def __init__(self) -> None:
        self._reasons: dict[tuple[Family[Any], Key], str] = {}

    def hear(self, batch: Batch) -> None:
        for unreadable in batch.unreadable:
            found = family_of(unreadable.subject, CLOSING)
            if found is not None:
                self._reasons[found] = str(unreadable)
        if self._reasons:
            for fact in batch.facts:
                self._reasons.pop((fact.family, fact.key), None)

    @property
    def why(self) -> str:
        """Empty: nothing is."""
        return "; ".join(sorted(self._reasons.values()))
