"""A policy between its manifest and the bus: what both translators make, and what the rest of the compiler wants.

KubernetesNetworkPolicy --translate_kubernetes--+
                                                +--> Policy: whom it governs, where it stands, rules, groups
(Global)NetworkPolicy -------translate_calico---+
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import Rule, Rules
from services.policy_compiler import tiers
from services.policy_compiler.groups import GroupRef, addresses_of, ports_of
from services.policy_compiler.selection import Selection

LAST = float("inf")
"""The order of a policy without one."""


class Place(NamedTuple):
    """Where a policy stands among those that govern the same endpoint; sorts in the order of evaluation."""

    tier_rank: tuple[bool, float, str]
    order: float
    name: str
    """`<name>/<namespace>/<kind>`, which decides between equal orders as it does in Calico."""

    @property
    def tier(self) -> str:
        return self.tier_rank[2]


def place(tier: str, order: float | None, name: str, namespace: str, kind: str) -> Place:
    comparable = LAST if order is None or order != order else order
    return Place(tiers.rank(tier), comparable, f"{name}/{namespace}/{kind}")


class Attaching(NamedTuple):
    """What an endpoint's attachment needs of a policy."""

    place: Place
    id: RulesId
    ingress: bool
    """The policy governs this direction."""
    egress: bool


@dataclass(frozen=True, slots=True)
class Policy:
    subject: Selection
    """The endpoints that it governs."""
    attaching: Attaching
    rules: Rules
    groups: tuple[GroupRef, ...]
    """Every group that the rules name, once."""


class Translation(NamedTuple):
    policy: Policy | None
    """None: whom it governs cannot be said, so it governs nobody."""
    faults: tuple[str, ...] = ()
    """What could not be compiled: `<path>: <reason>`."""


@dataclass(slots=True)
class Draft:
    """What a translator gathers while it writes the rules of one policy."""

    subject: Selection
    faults: list[str] = field(default_factory=list)
    groups: dict[GroupId, GroupRef] = field(default_factory=dict)

    def addresses(self, selection: Selection) -> GroupId:
        return self._named(addresses_of(selection))

    def ports(self, selection: Selection, name: str) -> GroupId:
        return self._named(ports_of(selection, name))

    def _named(self, ref: GroupRef) -> GroupId:
        self.groups[ref.id] = ref
        return ref.id

    def finish(self, attaching: Attaching, title: str, ingress: Iterator[Rule], egress: Iterator[Rule]) -> Translation:
        rules = Rules(
            policy=title,
            ingress=tuple(ingress) if attaching.ingress else (),
            egress=tuple(egress) if attaching.egress else (),
        )
        named = _named((*rules.ingress, *rules.egress))
        groups = tuple(ref for uid, ref in self.groups.items() if uid in named)
        policy = Policy(self.subject, attaching, rules, groups)
        return Translation(policy, tuple(self.faults))


def _named(rules: Iterable[Rule]) -> set[GroupId]:
    """Every group that the rules name. What a translator drafted for a rule that came to nothing is not among them."""
    named: set[GroupId] = set()
    for rule in rules:
        for end in (rule.source, rule.destination):
            named.update(end.groups, end.not_groups, end.named_ports, end.not_named_ports)
    return named
