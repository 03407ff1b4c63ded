"""One policy, one way, as the table holds it: its rendered rules, and the chains and counters that they lead to.

in_<h>      saddr @g4.. th dport 80 counter name allow_.. accept
            saddr @g4.. goto deny_<h>                              one deny chain for each rule of the manifest
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bus_schemas.ids import RulesId
from bus_schemas.policy import Rule
from services.node_dataplane.nft.attribution import Claims, Denial
from services.node_dataplane.nft.merge import Entry, mergeable
from services.node_dataplane.nft.names import Way, counter, deny_chain
from services.node_dataplane.nft.render import Chain, Known, Rendered, RenderedRule, comment, quoted, render_policy

UNKNOWN = "policy not known yet"


@dataclass(frozen=True)
class Policy:
    rendered: Rendered
    denies: Mapping[str, Chain] = field(default_factory=dict)
    """The chains that its rules lead to."""
    claims: Claims = field(default_factory=Claims)
    entries: tuple[Entry | None, ...] = ()
    """Of each rule, how it can be looked up together with others."""

    @property
    def outline(self) -> tuple[bool, tuple[tuple[str, str], ...]]:
        """What decides whether rule groups can jump to its chain, or have to hold some of its rules themselves."""
        return self.rendered.passes, tuple(
            (rule.fate, entry.sort if entry is not None else "")
            for rule, entry in zip(self.rendered.rules, self.entries, strict=True)
            if rule.lines
        )


def policy_of(
    way: Way, id_: RulesId, rules: Sequence[Rule] | None, known: Known, log_prefix: str, log_limit: str = ""
) -> Policy:
    """`rules` None: they are not known, so they deny. `log_limit` (in nft's words; empty: none) is for the kernel's log
    of a rule that logs, not for the message to the group."""
    claims = Claims()
    denies: dict[str, Chain] = {}

    def deny(index: int | None, name: str, why: str) -> Chain:
        denial = Denial("denied", way, id_, index, name, reason=why)
        message, drop = claims.drop(denial, id_)
        return Chain((message, f"{drop} {comment(why)}" if why else drop))

    def verdict(rule: Rule, why: str) -> Sequence[str]:
        if why or rule.action == "deny":
            name = deny_chain(way, f"{id_} {rule.index} {why}")
            denies[name] = deny(rule.index, rule.name, why)
            return (f"goto {name}",)
        if rule.action == "log":
            message = claims.report(Denial("log", way, id_, rule.index, rule.name))
            logged = f"log prefix {quoted(log_prefix)}"
            return (f"limit rate {log_limit} {logged}", message) if log_limit else (f"{logged} {message}",)
        return (f"{claims.count(way, id_, rule.action)} {'accept' if rule.action == 'allow' else 'return'}",)

    if rules is None:
        closed = RenderedRule(Rule(action="deny"), deny(None, "", UNKNOWN).lines, UNKNOWN)
        return Policy(Rendered((closed,), (), frozenset()), {}, claims, entries=(None,))
    rendered = render_policy(rules, known, verdict)

    def entry(written: RenderedRule) -> Entry | None:
        found = mergeable(written.rule) if written.lines and not written.why else None
        if found is None:
            return None
        if written.rule.action == "allow":
            return Entry(found, counter(way, id_, "allow"))
        return Entry(found, f"goto {deny_chain(way, f'{id_} {written.rule.index} ')}")

    return Policy(rendered, denies, claims, tuple(map(entry, rendered.rules)))


def preview_of(
    way: Way, id_: RulesId, tier: str, rules: Sequence[Rule] | None, known: Known, passing: str, claims: Claims
) -> Rendered:
    """The same rules in a preview: they count and report what they would do, and leave it. `passing` goes on to the
    next tier."""

    def deny(index: int | None, name: str, why: str) -> Sequence[str]:
        denial = Denial("would_deny", way, id_, index, name, tier, why)
        return claims.report(denial), f"{claims.count(way, id_, 'would_deny')} return"

    def verdict(rule: Rule, why: str) -> Sequence[str]:
        if why or rule.action == "deny":
            return deny(rule.index, rule.name, why)
        if rule.action == "allow":
            return (f"{claims.count(way, id_, 'would_allow')} return",)
        return (passing,) if rule.action == "pass" else ()

    if rules is None:
        closed = RenderedRule(Rule(action="deny"), tuple(deny(None, "", UNKNOWN)), UNKNOWN)
        return Rendered((closed,), (), frozenset())
    return render_policy(rules, known, verdict)
