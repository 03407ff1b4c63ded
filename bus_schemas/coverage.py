"""What a rule covers as far as it can be understood: what is dropped in place of one that cannot be enforced. Pure.

    Rule --> fault      what of it the kernel cannot be told; empty: nothing
         --> understood the rule without that, and without the groups that nobody knows

A rule is an AND of conditions. What is not understood may be any condition, so it is left out: what remains covers
whatever the whole rule would have covered, and nothing that one of its other conditions keeps out. Of a positive list
(networks, ports) one bad entry may stand for anything, so the list goes as a whole; of a negative one only the entry.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache

from bus_schemas.ids import GroupId
from bus_schemas.policy import Icmp, Match, PortRange, Rule
from bus_schemas.protocols import ICMP, ICMPV6, WITH_PORTS

_ANY = Rule(action="log").source
"""The very object that stands where a rule says nothing of an end."""


def fault(rule: Rule) -> str:
    """What of the rule the kernel cannot be told; empty: nothing."""
    for number in (rule.protocol, rule.not_protocol):
        if number is not None and not 0 <= number <= 255:
            return f"{number} is not a protocol"
    for icmp in (rule.icmp, rule.not_icmp):
        if icmp is not None and (bad := _icmp_fault(rule, icmp)):
            return bad
    for match in (rule.source, rule.destination):
        if match is _ANY:
            continue
        for cidr in (*match.nets, *match.not_nets):
            if network(cidr) is None:
                return f"{cidr} is not a network"
        for range_ in (*match.ports, *match.not_ports) if _ported(rule) else ():
            if not _is_range(range_):
                return f"{range_.first}-{range_.last} is not a range of ports"
    return ""


def understood(rule: Rule, known: Callable[[GroupId], bool] = lambda _: True) -> Rule:
    """What a drop in the rule's place covers. `known`: whether a group's members are known."""
    return Rule(
        action=rule.action,
        ip_version=rule.ip_version,
        protocol=_number(rule.protocol),
        not_protocol=_number(rule.not_protocol),
        icmp=None if rule.icmp is None else _icmp(rule, rule.icmp),
        not_icmp=None if rule.not_icmp is None or _icmp_fault(rule, rule.not_icmp) else rule.not_icmp,
        source=_match(rule.source, known, ported=_ported(rule)),
        destination=_match(rule.destination, known, ported=_ported(rule)),
        never=rule.never,
        index=rule.index,
        name=rule.name,
    )


@lru_cache(maxsize=1 << 16)
def network(cidr: str) -> tuple[int, int, int] | None:
    """Bytes of its family's addresses, its prefix, how many bits it leaves open. None: not a network, or one of a zone,
    whose name may be any text."""
    if "%" in cidr:
        return None
    try:
        net = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return None
    free = net.max_prefixlen - net.prefixlen
    return net.max_prefixlen // 8, int(net.network_address) >> free, free


def _match(match: Match, known: Callable[[GroupId], bool], *, ported: bool) -> Match:
    if match is _ANY:
        return match

    def told(groups: Iterable[GroupId]) -> tuple[GroupId, ...]:
        return tuple(group for group in groups if known(group))

    whole = told(match.named_ports) == match.named_ports and (not ported or all(map(_is_range, match.ports)))
    return Match(
        groups=told(match.groups),
        not_groups=told(match.not_groups),
        nets=match.nets if all(network(cidr) is not None for cidr in match.nets) else (),
        not_nets=tuple(cidr for cidr in match.not_nets if network(cidr) is not None),
        ports=match.ports if whole else (),
        named_ports=match.named_ports if whole else (),
        not_ports=tuple(filter(_is_range, match.not_ports)) if ported else match.not_ports,
        not_named_ports=told(match.not_named_ports),
    )


def _ported(rule: Rule) -> bool:
    """Whether it can be about ports at all; a number that is no protocol may stand for one that has them."""
    return _number(rule.protocol) is None or rule.protocol in WITH_PORTS


def _is_range(range_: PortRange) -> bool:
    return 0 <= range_.first <= 65535 and 0 <= range_.last <= 65535


def _number(protocol: int | None) -> int | None:
    return protocol if protocol is not None and 0 <= protocol <= 255 else None


def _icmp_fault(rule: Rule, icmp: Icmp) -> str:
    if _number(rule.protocol) not in (None, ICMP, ICMPV6):
        return ""  # it is never met, whatever it says
    for what, number in (("type", icmp.type), ("code", icmp.code)):
        if number is not None and not 0 <= number <= 255:
            return f"{number} is not an ICMP {what}"
    return ""


def _icmp(rule: Rule, icmp: Icmp) -> Icmp | None:
    if not _icmp_fault(rule, icmp):
        return icmp
    return Icmp(type=icmp.type) if 0 <= icmp.type <= 255 else None
