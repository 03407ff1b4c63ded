"""The chains of a rule group: tiers, their policies, their defaults.

    to_<h>     jump in_<policy>   jump in_<policy>   drop            one tier that ends in deny: the usual case
    to_<h>     jump to_<h>_0      jump in_<policy>   ...  accept     a tier with a `pass` is a chain of its own
    to_<h>     jump to_<h>_preview_0   ...                           staged policies: counted and reported first
    from_<h>   ... return ... goto from_<h>_1                        what pods send: allowed is not yet accepted

A policy is a chain that every group which applies it jumps to, so a change of its rules rewrites one chain. The
exceptions are written into the tier's chain itself: a policy that can pass, since passing means to leave the tier, and
nft can only return from the chain it stands in; and one of whose rules some are merged with those of other policies
into a lookup (see `merge`), which stands where the first of them did.

What a pod may send may still have to be received by another one, in the same base chain: so what egress rules allow
leaves the rule group by `return` (`Ending`). Policies are written into it, and its tiers and those of a preview lead
to one another by `goto`, so that `return` leaves all of it, wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import Direction, TierRules
from services.node_dataplane.nft.attribution import NO_RULES, PROFILE, Claims, Denial, tier_counted
from services.node_dataplane.nft.merge import FROM, Entry, Members, Merged, merge
from services.node_dataplane.nft.names import Way, policy_chain, preview_chain, tier_chain
from services.node_dataplane.nft.policies import Policy
from services.node_dataplane.nft.render import Chain, Rendered, RenderedRule, comment, groups_of
from services.node_dataplane.nft.sets import MapData

__all__ = ["Assembled", "Chain", "endpoint_chains"]

Ending = Literal["accept", "return"]
"""What an allow is written as: it ends the base chain, or leaves the rule group's chains."""

_NO_PROFILE = "no profile allows it"


@dataclass
class Assembled:
    """A rule group's chains, and what they lead to."""

    chains: dict[str, Chain] = field(default_factory=dict)
    claims: Claims = field(default_factory=Claims)
    jumps: set[RulesId] = field(default_factory=set)
    """Policies whose own chain it jumps to."""
    inlined: set[RulesId] = field(default_factory=set)
    """Policies whose rules, some at least, it holds itself."""
    groups: set[GroupId] = field(default_factory=set)
    """Groups whose sets its own lines name."""
    merged: list[Merged] = field(default_factory=list)
    """Lookups of merged rules."""

    def inline(self, id_: RulesId, written: Sequence[RenderedRule]) -> list[str]:
        self.inlined.add(id_)
        self.groups.update(group for rule in written if rule.lines for group in groups_of(rule.rule))
        return [line for rule in written for line in rule.lines]


def endpoint_chains(
    name: str,
    way: Way,
    direction: Direction,
    policy: Callable[[RulesId], Policy],
    preview: Callable[[RulesId, str, str, Claims], Rendered],
    members: Callable[[GroupId], Members],
    *,
    allow: Ending = "accept",
    undecided: str = "",
) -> Assembled:
    """The chain `name` of a rule group and those of its tiers. `preview(rules, tier, passing, claims)` renders a policy
    for the preview; `undecided` stands at the end in place of what the direction's default says."""
    made = Assembled()
    lines: list[str] = []
    chain, about = name, ""
    if direction.preview is not None:
        lines.append(f"jump {_preview(name, way, direction, preview, made)}")
    for number, tier in enumerate(_tiers(direction.tiers, direction)):
        policies = {rules: policy(rules) for rules in tier.rules}
        passes = any(each.rendered.passes for each in policies.values())
        onwards = tier_chain(name, number + 1)
        if allow == "return":
            policies = {rules: _led(each, f"goto {onwards}") for rules, each in policies.items()}
        body = list(_tier(made, f"{name} {number}", way, policies, members, allow))
        if tier.default == "deny":
            body += _deny(made, way, tier.tier)
        if not passes:
            lines += body
            if tier.default == "deny":
                break
        elif allow == "return":
            end = () if tier.default == "deny" else (f"goto {onwards}",)
            made.chains[chain] = Chain((*lines, *body, *end), comment=about)
            chain, about, lines = onwards, f"after tier {tier.tier}", []
        else:
            made.chains[tier_chain(name, number)] = Chain(tuple(body), comment=f"tier {tier.tier}")
            lines.append(f"jump {tier_chain(name, number)}")
    else:
        if undecided:
            lines.append(undecided)
        elif direction.default == "allow":
            lines.append(f"{made.claims.count(way, PROFILE, 'allow')} {allow}")
        else:
            lines += _deny(made, way, "")
    made.chains[chain] = Chain(tuple(lines), comment=about)
    return made


def _led(policy: Policy, passing: str) -> Policy:
    """The policy with `return` for its allows, and `passing` for what it passes."""

    def led(rule: RenderedRule) -> RenderedRule:
        old, new = {"allow": ("accept", "return"), "pass": ("return", passing)}.get(rule.fate, ("", ""))
        return replace(rule, lines=tuple(line.removesuffix(old) + new for line in rule.lines))

    return replace(policy, rendered=replace(policy.rendered, rules=tuple(map(led, policy.rendered.rules))))


@dataclass
class _Placed:
    """One rule in its tier."""

    policy: RulesId
    rule: RenderedRule
    entry: Entry | None
    run: Merged | None = None
    """The lookups that stand for it, instead of its lines."""


def _tier(
    made: Assembled,
    name: str,
    way: Way,
    policies: Mapping[RulesId, Policy],
    members: Callable[[GroupId], Members],
    allow: Ending,
) -> Iterator[str]:
    """The rules of a tier, in an order that decides the same as theirs: within a run of rules with the same fate any
    order does."""
    placed = [
        _Placed(id_, rule, entry)
        for id_, policy in policies.items()
        for rule, entry in zip(policy.rendered.rules, policy.entries, strict=True)
        if rule.lines
    ]
    runs = [list(run) for _, run in groupby(placed, key=lambda each: each.rule.fate)]
    for number, run in enumerate(runs):
        _merge(made, f"{name} {number}", run, members, allow)
    touched = {each.policy for each in placed if each.run is not None}
    made.inlined |= touched
    done: set[RulesId] = set()
    for run in runs:
        begun = False
        for each in run:
            if each.policy in touched:
                merged = next((other.run for other in run if other.run is not None), None)
                if merged is not None and not begun:
                    yield from merged.lines
                begun = True
                if each.run is None:
                    yield from made.inline(each.policy, [each.rule])
            elif each.policy not in done:
                done.add(each.policy)
                policy = policies[each.policy]
                if policy.rendered.passes or allow == "return":
                    yield from made.inline(each.policy, policy.rendered.rules)
                else:
                    made.jumps.add(each.policy)
                    yield f"jump {policy_chain(way, each.policy)}"


def _merge(
    made: Assembled, name: str, run: Sequence[_Placed], members: Callable[[GroupId], Members], allow: Ending
) -> None:
    candidates = [(each, each.entry) for each in run if each.entry is not None]
    if len(candidates) < FROM:
        return
    data: MapData = "counter" if run[0].rule.fate == "allow" else "verdict"
    merged = merge(name, data, [entry for _, entry in candidates], members, allow)
    if merged.lines:
        made.merged.append(merged)
        made.groups |= merged.named
        for index, (each, _) in enumerate(candidates):
            if index not in merged.left:
                each.run = merged


def _tiers(tiers: Sequence[TierRules], direction: Direction) -> Sequence[TierRules]:
    """The profiles are one more tier, which passes."""
    if not direction.profiles:
        return tiers
    return (*tiers, TierRules(tier="", rules=direction.profiles, default="pass"))


def _deny(made: Assembled, way: Way, tier: str) -> tuple[str, str]:
    """The end of a tier; of all of them when it has no name."""
    why = f"end of tier {tier}" if tier else _NO_PROFILE
    denial = Denial("denied", way, NO_RULES, tier=tier, reason=why)
    message, drop = made.claims.drop(denial, tier_counted(tier) if tier else PROFILE)
    return message, f"{drop} {comment(why)}"


def _preview(
    name: str, way: Way, direction: Direction, policy: Callable[[RulesId, str, str, Claims], Rendered], made: Assembled
) -> str:
    """The first of its chains."""
    tiers = _tiers(direction.preview or (), direction)

    def deny(tier: str) -> tuple[str, str]:
        why = f"end of tier {tier}" if tier else _NO_PROFILE
        counted = tier_counted(tier) if tier else PROFILE
        message = made.claims.report(Denial("would_deny", way, NO_RULES, tier=tier, reason=why))
        return message, f"{made.claims.count(way, counted, 'would_deny')} return"

    for number, tier in enumerate(tiers):
        onwards = f"goto {preview_chain(name, number + 1)}"
        body: list[str] = []
        passes = tier.default == "pass"
        for rules in tier.rules:
            rendered = policy(rules, tier.tier, onwards, made.claims)
            body += made.inline(rules, rendered.rules)
            passes = passes or rendered.passes
        body += deny(tier.tier) if tier.default == "deny" else (onwards,)
        made.chains[preview_chain(name, number)] = Chain(tuple(body), comment=f"preview of tier {tier.tier}")
        if not passes:
            break
    else:
        if direction.default == "allow":
            end: tuple[str, ...] = (f"{made.claims.count(way, PROFILE, 'would_allow')} return",)
        else:
            end = deny("")
        made.chains[preview_chain(name, len(tiers))] = Chain(end, comment="preview of the default")
    return preview_chain(name, 0)
