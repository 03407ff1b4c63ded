"""One policy rule as nft rules.

A rule is an AND of conditions, some of which are an OR that nft cannot say in one match (numeric ports or members of a
set, "not this ICMP type and code"). So a rule becomes a list of conditions, each a list of alternatives, and one nft
rule is written for every combination: nearly always one. Where a condition concerns addresses the rule is written for
each family that it can match: every such nft rule is one hash lookup, however many members the group has. A group that
has networks as well is two sets, so one more alternative.

Closed when in doubt: a rule that could not be compiled (`never`), that names a group whose members are not known, or
holds what nft cannot say, is named as a fault. A drop of what its remaining conditions cover stands for it, whatever it
would have done (`bus_schemas.coverage`). Only a log decides nothing: nothing stands for such a one.

What a verdict is written as is the caller's affair: the same rules are rendered to be enforced and to be previewed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from bus_schemas import coverage
from bus_schemas.ids import GroupId
from bus_schemas.policy import Icmp, Match, PortRange, Rule
from services.node_dataplane.nft.names import address_set, net_set, port_set

TCP, UDP, SCTP, DCCP, UDPLITE = 6, 17, 132, 33, 136
ICMP, ICMPV6 = 1, 58
WITH_PORTS = frozenset({TCP, UDP, SCTP, DCCP, UDPLITE})
"""Protocols whose header begins with a source and a destination port."""
_ANY_WITH_PORTS = "{ 6, 17, 33, 132, 136 }"

_FAMILIES = (4, 6)
_COMMENT_BYTES = 120
_PREFIX_BYTES = 100

Condition = Sequence[str]
"""Alternatives: nft matches, one of which must hold. None at all can never hold."""


class Facts(NamedTuple):
    """What rendering has to know of a group."""

    nets4: bool = False
    """It has networks of that family beside its addresses."""
    nets6: bool = False


Known = Callable[[GroupId], Facts | None]
"""None: the members of the group are not known."""

Verdict = Callable[[Rule, str], Sequence[str]]
"""(rule, why it is closed instead of rendered; empty: it is rendered) -> verdicts, each for lines of its own."""


@dataclass(frozen=True)
class Chain:
    lines: tuple[str, ...]
    hook: str = ""
    """`type ... hook ... priority ...; policy ...;` of a base chain."""
    comment: str = ""


@dataclass(frozen=True)
class RenderedRule:
    rule: Rule
    lines: tuple[str, ...]
    why: str = ""
    """It is closed instead, for this reason."""

    @property
    def fate(self) -> str:
        """Of what matches its lines: the rule's action, or a deny where it is closed."""
        return "deny" if self.why else self.rule.action


@dataclass(frozen=True)
class Rendered:
    rules: tuple[RenderedRule, ...]
    faults: tuple[str, ...]
    """What was closed for want of something, one sentence each."""
    missing: frozenset[GroupId]

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(line for rule in self.rules for line in rule.lines)

    @property
    def passes(self) -> bool:
        """Some rule hands over to the next tier: `return` in these lines must leave the tier's chain."""
        return any(rule.fate == "pass" for rule in self.rules)


def render_policy(rules: Iterable[Rule], known: Known, verdict: Verdict) -> Rendered:
    """The rules of one direction, in order."""
    rendered: list[RenderedRule] = []
    faults: list[str] = []
    missing: set[GroupId] = set()
    for number, rule in enumerate(rules):
        absent = [group for group in groups_of(rule) if known(group) is None]
        missing.update(absent)
        why = rule.never or coverage.fault(rule) or ("group not known: " + ", ".join(absent) if absent else "")
        lines = tuple(_rule(rule, known, verdict, why))
        if why:
            faults.append(f"rule {number}: {why}")
        rendered.append(RenderedRule(rule, lines, why))
    return Rendered(tuple(rendered), tuple(faults), frozenset(missing))


def groups_of(rule: Rule) -> list[GroupId]:
    return [
        group
        for match in (rule.source, rule.destination)
        for group in (*match.groups, *match.not_groups, *match.named_ports, *match.not_named_ports)
    ]


def comment(text: str) -> str:
    """An nft comment, which knows no escapes and is short. It says what a chain is to a person."""
    clean = "".join(c if c.isprintable() else " " for c in text.replace('"', "'").replace("\\", "/"))
    return 'comment "' + clean.encode()[:_COMMENT_BYTES].decode(errors="ignore") + '"'


def _rule(rule: Rule, known: Known, verdict: Verdict, why: str) -> Iterator[str]:
    if why:
        if rule.action == "log":
            return
        rule = coverage.understood(rule, lambda group: known(group) is not None)
    conditions = list(dict.fromkeys(_matches(rule, known)))
    for ending in verdict(rule, why) if conditions else ():
        for condition in conditions:
            yield f"{condition} {ending}" if condition else ending


def _matches(rule: Rule, known: Known) -> Iterator[str]:
    """Every combination of the alternatives."""
    families: Sequence[int | None] = _FAMILIES if _concerns_family(rule) else (None,)
    for family in families:
        if family is None or rule.ip_version in (None, family):
            for choice in product(*_conditions(rule, family, known)):
                yield " ".join(filter(None, choice))


def _concerns_family(rule: Rule) -> bool:
    """Whether the rule must be written per family."""
    if rule.ip_version is not None or rule.icmp is not None or rule.not_icmp is not None:
        return True
    return any(
        m.groups or m.not_groups or m.nets or m.not_nets or m.named_ports or m.not_named_ports
        for m in (rule.source, rule.destination)
    )


# --- conditions: each yields lists of alternatives


def _conditions(rule: Rule, family: int | None, known: Known) -> Iterator[Condition]:
    if rule.ip_version is not None:
        yield [f"meta nfproto ipv{rule.ip_version}"]
    if rule.protocol is not None:
        yield [f"meta l4proto {rule.protocol}"]
    if rule.not_protocol is not None:
        yield [f"meta l4proto != {rule.not_protocol}"]
    if family is not None:
        yield from _icmp(rule, family)
        yield from _addresses(rule.source, family, "saddr", known)
        yield from _addresses(rule.destination, family, "daddr", known)
    yield from _ports(rule, rule.source, family, "saddr", "sport")
    yield from _ports(rule, rule.destination, family, "daddr", "dport")


def _addresses(match: Match, family: int, side: str, known: Known) -> Iterator[Condition]:
    ip = "ip" if family == 4 else "ip6"
    if match.nets:
        nets = _nets(match.nets, family)
        if not nets:
            yield []
        elif any(net.prefixlen == 0 for net in nets):
            yield [f"meta nfproto ipv{family}"]
        else:
            yield [f"{ip} {side} {_set(map(str, nets))}"]
    if match.not_nets:
        nets = _nets(match.not_nets, family)
        if any(net.prefixlen == 0 for net in nets):
            yield []
        elif nets:
            yield [f"{ip} {side} != {_set(map(str, nets))}"]
        else:
            yield [f"meta nfproto ipv{family}"]
    for group in match.groups:
        yield [f"{ip} {side} @{name}" for name in _sets(group, family, known)]
    for group in match.not_groups:
        for name in _sets(group, family, known):
            yield [f"{ip} {side} != @{name}"]


def _sets(group: GroupId, family: int, known: Known) -> Iterator[str]:
    yield address_set(group, family)
    facts = known(group)
    if facts is not None and (facts.nets4 if family == 4 else facts.nets6):
        yield net_set(group, family)


def _ports(rule: Rule, match: Match, family: int | None, side: str, port: str) -> Iterator[Condition]:
    """`ports` and `named_ports` are one positive list; the negative ones hold for whatever has no ports at all."""
    ip = "ip" if family == 4 else "ip6"
    has_ports = rule.protocol in WITH_PORTS or rule.protocol is None
    ported = [f"meta l4proto {_ANY_WITH_PORTS}"] if rule.protocol is None else []
    unported = [f"meta l4proto != {_ANY_WITH_PORTS}"] if rule.protocol is None else []

    if match.ports or match.named_ports:
        positive = []
        if match.ports and has_ports and (ranges := _ranges(match.ports)):
            positive.append(" ".join((*ported, f"th {port} {ranges}")))
        if has_ports:
            positive += [
                f"{ip} {side} . meta l4proto . th {port} @{port_set(g, family or 4)}" for g in match.named_ports
            ]
        yield positive
    if has_ports and match.not_ports and (ranges := _ranges(match.not_ports)):
        yield [" ".join((*ported, f"th {port} != {ranges}")), *unported]
    if has_ports:
        for group in match.not_named_ports:
            absent = f"{ip} {side} . meta l4proto . th {port} != @{port_set(group, family or 4)}"
            yield [" ".join((*ported, absent)), *(f"meta nfproto ipv{family} {u}" for u in unported)]


def _icmp(rule: Rule, family: int) -> Iterator[Condition]:
    word, number = ("icmp", ICMP) if family == 4 else ("icmpv6", ICMPV6)
    same = rule.protocol in (None, number)
    if rule.icmp is not None:
        yield [_icmp_is(word, rule.icmp)] if same else []
    if rule.not_icmp is not None and not same:
        yield [f"meta nfproto ipv{family}"]
    elif rule.not_icmp is not None:
        type_ = rule.not_icmp.type
        other = [f"{word} type != {type_}"]
        if rule.not_icmp.code is not None:
            other.append(f"{word} type {type_} {word} code != {rule.not_icmp.code}")
        if rule.protocol is None:
            other.append(f"meta nfproto ipv{family} meta l4proto != {number}")
        yield other


def _icmp_is(word: str, icmp: Icmp) -> str:
    text = f"{word} type {icmp.type}"
    return text if icmp.code is None else f"{text} {word} code {icmp.code}"


# --- values


def _nets(cidrs: Sequence[str], family: int) -> list[ipaddress.IPv4Network] | list[ipaddress.IPv6Network]:
    """Those of one family, merged: nft refuses overlaps within an anonymous set."""
    nets = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
    if family == 4:
        return list(ipaddress.collapse_addresses(n for n in nets if isinstance(n, ipaddress.IPv4Network)))
    return list(ipaddress.collapse_addresses(n for n in nets if isinstance(n, ipaddress.IPv6Network)))


def _ranges(ports: Iterable[PortRange]) -> str:
    """Sorted and merged, like the nets. Empty: no port at all."""
    merged: list[list[int]] = []
    for first, last in sorted((p.first, p.last) for p in ports):
        if first > last:
            continue
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return _set(str(first) if first == last else f"{first}-{last}" for first, last in merged) if merged else ""


def _set(items: Iterable[str]) -> str:
    listed = list(items)
    return listed[0] if len(listed) == 1 else "{ " + ", ".join(listed) + " }"


def quoted(prefix: str) -> str:
    """A log prefix of the configuration. The kernel has 127 bytes for it, and libnftables no more either."""
    clean = "".join(c for c in prefix if c.isprintable() and c not in '"\\`$')
    return '"' + clean.encode()[:_PREFIX_BYTES].decode(errors="ignore") + ': "'
