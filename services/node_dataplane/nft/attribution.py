"""Who decided: what the table's counter objects and log messages stand for, and how a verdict is written with them.

    allow     counter name allow_..  accept
    pass      counter name pass_..   return
    deny      goto deny_..           in which: limit, log to the group; counter name deny_..  drop
    log       the message of the configuration to the kernel's log, and one to the group

A counter is an object of its own, so it keeps its figures when the chains around it are rewritten. All messages to the
group pass one limit; when nobody listens to the group the kernel makes none. The first packet of a connection counts
and logs, since those of established ones are accepted before.

`Claims` are what exists because somebody uses it: several policies and rule groups can name the same counter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bus_schemas.ids import RulesId
from services.node_dataplane.nft.names import LIMIT, LOG_GROUP, Kind, Verdict, Way, counter, log_prefix

NO_RULES = RulesId("")
PROFILE = "profile"
"""Nothing at all decided: the default after tiers and profiles did."""


class Counted(NamedTuple):
    """What one counter object counts: first packets of connections."""

    rules: str
    """As in `bus_schemas.policy.Hit`: a RulesId, `tier/<name>` or `profile`."""
    way: Way
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Denial:
    """What one log prefix tells."""

    kind: Kind
    way: Way
    rules: RulesId
    """Empty: not by a policy's rule, but by a default or a guard."""
    index: int | None = None
    """Of the rule in its manifest's list."""
    name: str = ""
    """The manifest's name of the rule."""
    tier: str = ""
    """Empty: after all tiers, or none of their business."""
    reason: str = ""
    """For people; of a guard its name."""


@dataclass
class Claims:
    """Counters and log prefixes that some piece of the table needs."""

    counters: dict[str, Counted] = field(default_factory=dict)
    denials: dict[str, Denial] = field(default_factory=dict)

    def count(self, way: Way, rules: str, verdict: Verdict) -> str:
        name = counter(way, rules, verdict)
        self.counters[name] = Counted(rules, way, verdict)
        return f"counter name {name}"

    def report(self, denial: Denial) -> str:
        """The statement that sends the message."""
        subject = "\0".join(map(str, (denial.rules, denial.index, denial.tier, denial.reason)))
        prefix = log_prefix(denial.kind, denial.way, subject)
        self.denials[prefix] = denial
        return f'limit name "{LIMIT}" log prefix "{prefix}" group {LOG_GROUP} snaplen 128'

    def drop(self, denial: Denial, counted: str) -> tuple[str, str]:
        """The lines that deny whatever comes to them."""
        return self.report(denial), f"{self.count(denial.way, counted, 'deny')} drop"

    def update(self, other: Claims) -> None:
        self.counters.update(other.counters)
        self.denials.update(other.denials)


def tier_counted(tier: str) -> str:
    return f"tier/{tier}"


GUARDS: Mapping[str, Way] = {
    "spoofed": "egress",
    "no_policy_egress": "egress",
    "no_policy_ingress": "ingress",
    "invalid": "egress",
    "vxlan_from_pod": "egress",
    "vxlan_from_stranger": "ingress",
    "router_from_pod": "egress",
    "ipip_from_pod": "egress",
    "ipip_from_stranger": "ingress",
    "to_host": "egress",
}
"""Each a counter object of its own name and a chain that drops; and the way of its packets (of `invalid`: either)."""


def guard_denial(guard: str) -> Denial:
    return Denial("guard", GUARDS[guard], NO_RULES, reason=guard)
