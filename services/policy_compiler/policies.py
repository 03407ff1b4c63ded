"""A policy between its manifest and the bus: what every translator makes, and what the rest of the compiler wants.

KubernetesNetworkPolicy -------------translate_kubernetes--+
ClusterNetworkPolicy, (Baseline)Admin..--translate_cluster--+--> Policy: whom it governs, where it stands, rules, groups
(Global)NetworkPolicy, Profile ----------translate_calico---+
Staged... --------------translate_staged, by those above----+

A staged policy is a policy of its own with rules of its own that stands in previews only; what it withdraws (the policy
that it is to replace, or to delete) stands everywhere but there. A profile governs nobody: host endpoints name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import msgspec

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import CUT, CUT_ANNOTATION, KEEP, Rule, Rules, rules_id
from bus_schemas.resources import Resource
from services.policy_compiler.groups import GroupRef, addresses_of, ports_of
from services.policy_compiler.selection import Selection
from services.policy_compiler.tiers import comparable

Hooks = frozenset[str]
"""Where a policy stands: `ingress` and `egress` of pods and of host endpoints; the other directions are those of
`bus_schemas.policy.HostAttachment`."""


@lru_cache(maxsize=64)
def hooks(*names: str) -> Hooks:
    return frozenset(names)


class Attaching(NamedTuple):
    """What an endpoint's attachment needs of a policy. Sorts in the order of evaluation within its tier."""

    order: float
    name: str
    """`<name>/<namespace>/<kind>`, which decides between equal orders as it does in Calico."""
    id: RulesId
    tier: str
    hooks: Hooks
    staged: bool = False
    """It stands in previews only."""


def attaching(resource: Resource, kind: str, tier: str, order: float | None, hooks: Hooks) -> Attaching:
    """`kind`: as it is said in the name that decides between equal orders."""
    namespace, name = resource.key
    return Attaching(comparable(order), f"{name}/{namespace}/{kind}", id_of(resource), tier, hooks)


def id_of(resource: Resource) -> RulesId:
    return rules_id(resource.TOKEN, *resource.key)


@dataclass(frozen=True, slots=True)
class Policy:
    id: RulesId
    rules: Rules | None
    """None: it only withdraws."""
    groups: tuple[GroupRef, ...] = ()
    """Every group that the rules name, once."""
    subject: Selection | None = None
    """The endpoints that it governs. None: a profile, or it only withdraws."""
    attaching: Attaching | None = None
    """None when the subject is."""
    withdraws: RulesId | None = None
    """In previews, the policy of this id is not there."""


class Translation(NamedTuple):
    policy: Policy | None
    """None: there is nothing of that name, or nothing that could govern anybody."""
    faults: tuple[str, ...] = ()
    """What could not be compiled: `<path>: <reason>`."""


@dataclass(slots=True)
class Draft:
    """What a translator gathers while it writes the rules of one policy."""

    resource: Resource
    subject: Selection | None
    never: str = ""
    """Why it cannot be said whom the policy governs; `subject` are then all whom it may govern."""
    faults: list[str] = field(default_factory=list)
    groups: dict[GroupId, GroupRef] = field(default_factory=dict)

    def addresses(self, selection: Selection) -> GroupId:
        return self._named(addresses_of(selection))

    def ports(self, selection: Selection, name: str) -> GroupId:
        return self._named(ports_of(selection, name))

    def _named(self, ref: GroupRef) -> GroupId:
        self.groups[ref.id] = ref
        return ref.id

    def finish(self, attaching: Attaching | None, ingress: Iterable[Rule], egress: Iterable[Rule]) -> Translation:
        resource = self.resource
        if self.never:
            self.faults.insert(0, self.never)
        rules = Rules(
            policy=resource.display,
            ingress=tuple(self._closed(ingress)),
            egress=tuple(self._closed(egress)),
            cut=resource.metadata.annotations.get(CUT_ANNOTATION) == CUT,
            keep=resource.metadata.annotations.get(CUT_ANNOTATION) == KEEP,
        )
        named = _named(rules)
        groups = tuple(ref for uid, ref in self.groups.items() if uid in named)
        return Translation(Policy(id_of(resource), rules, groups, self.subject, attaching), tuple(self.faults))

    def _closed(self, rules: Iterable[Rule]) -> Iterable[Rule]:
        """Where it is not known whom they concern, each is a drop of what it covers for all whom it may concern."""
        return map(self._never, rules) if self.never else rules

    def _never(self, rule: Rule) -> Rule:
        return rule if rule.action == "log" else never(rule, rule.never or self.never)


def never(rule: Rule, reason: str) -> Rule:
    """A drop of what the rule covers, in its place."""
    return msgspec.structs.replace(rule, action="deny", never=reason)


def _named(rules: Rules) -> set[GroupId]:
    """Every group that the rules name. What a translator drafted for a rule that came to nothing is not among them."""
    named: set[GroupId] = set()
    for rule in _each(rules):
        for end in (rule.source, rule.destination):
            named.update(end.groups, end.not_groups, end.named_ports, end.not_named_ports)
    return named


def _each(rules: Rules) -> Iterator[Rule]:
    yield from rules.ingress
    yield from rules.egress
