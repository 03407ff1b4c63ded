"""Which addresses a node keeps warm: assigned ahead, so that a pod need not wait for the address service. Pure.

    pools, labels of the node --serving--> open:   those that serve pods of every namespace here
                                           choosy: those that have a namespaceSelector
    demand, what is kept, open --plan----> families to ask for, handles to give back
    wishes, namespace, choosy  --fits----> families of the warm address that the pod may have

A warm address is any that the address service would have given to a pod that asks for nothing in particular. Where a
choosy pool may serve the pod's namespace as well it is the address service that chooses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from bus_schemas import selectors
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.resources import IPPool
from bus_schemas.selectors import SelectorError
from services.node_dataplane.plugins import Warm
from services.node_dataplane.wishes import Wishes

Families = tuple[int, ...]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Serving:
    """The pools that workloads of this node get addresses from without asking for one by name."""

    open: tuple[IPPool, ...] = ()
    choosy: tuple[IPPool, ...] = ()

    @property
    def families(self) -> Families:
        return tuple(sorted({pool.family for pool in self.open}))

    def resolve(self, families: Families) -> Families:
        """What a request for `families` comes to (empty: every family that has a pool); empty: it cannot be met."""
        wanted = families or self.families
        return wanted if set(wanted) <= set(self.families) else ()

    def holds(self, address: str) -> bool:
        parsed = ip_address(address)
        return any(parsed in ip_network(pool.spec.cidr) for pool in self.open)


def serving(pools: Iterable[IPPool], labels: Labels) -> Serving:
    """`labels`: of this node. A pool with a mistake in a selector serves nobody, as for the address service."""
    kept: dict[bool, list[IPPool]] = {True: [], False: []}
    for pool in pools:
        spec = pool.spec
        if spec.disabled or spec.assignment_mode != "Automatic" or "Workload" not in spec.allowed_uses:
            continue
        try:
            here = selectors.parse(spec.node_selector).matches(labels)
            every_namespace = selectors.parse(spec.namespace_selector).is_all
        except SelectorError:
            continue
        if here:
            kept[every_namespace].append(pool)
    return Serving(tuple(kept[True]), tuple(kept[False]))


def fits(wishes: Wishes, namespace: Labels | None, here: Serving) -> Families:
    """The families of the warm address that the pod may have; empty: none. `namespace`: its labels, None where they
    are not known."""
    if wishes.particular:
        return ()
    for pool in here.choosy:
        if namespace is None or selectors.parse(pool.spec.namespace_selector).matches(namespace):
            return ()
    return here.resolve(wishes.families)


class Plan(NamedTuple):
    ask: tuple[Families, ...]
    """One for each address (or pair) that is missing."""
    give_back: tuple[HandleId, ...]


@dataclass
class Demand:
    """Which families pods of this node ask for, and when one last did."""

    idle_s: float
    last: dict[Families, float] = field(default_factory=dict)

    def note(self, families: Families, now: float) -> None:
        """As the request has them: empty for every family that has a pool."""
        self.last[families] = now

    def live(self, now: float) -> tuple[Families, ...]:
        return tuple(families for families, last in self.last.items() if now - last < self.idle_s)

    def changes_in(self, now: float) -> float | None:
        """Seconds until something more is idle; None: never."""
        return min((last + self.idle_s - now for last in self.last.values() if last + self.idle_s > now), default=None)


def plan(
    kept: Iterable[Warm], here: Serving, live: Iterable[Families], count: int, scarce: frozenset[Families]
) -> Plan:
    """`live`: families that pods ask for; `scarce`: those whose pools are exhausted, so none of them is kept."""
    wanted = {resolved for families in live if (resolved := here.resolve(families))} - scarce
    found: Counter[Families] = Counter()
    give_back = []
    for warm in kept:
        useful = warm.families in wanted and all(map(here.holds, warm.addresses))
        if useful and found[warm.families] < count:
            found[warm.families] += 1
        else:
            give_back.append(warm.handle)
    ask = tuple(families for families in sorted(wanted) for _ in range(count - found[families]))
    return Plan(ask, tuple(give_back))


def handle(node: NodeName, name: str) -> HandleId:
    return HandleId(f"warm.{node}.{name}")
