"""Whether a host endpoint's policies leave a port open to anybody at all, read from the manifests. Pure.

    Door (way, protocol, port, who is beyond it) + HostEndpoint --> Closed: who closes it; None: it is open to somebody

Of most rules nothing can be said for every packet: whom a selector means, which nets people come from. So a rule is
certain to match, certain not to, or neither; an allow that may match leaves the door open, and only a deny that is
certain to match ends the search. What is found closed is closed; what is not found may be closed all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Literal, NamedTuple

from bus_schemas import selectors
from bus_schemas.lint.landscape import Landscape, parsed
from bus_schemas.resources import GlobalNetworkPolicy, HostEndpoint, Profile, Tier
from bus_schemas.resources.calico_policy import CalicoRule, EntityRule
from bus_schemas.resources.policy_scopes import DEFAULT_ALLOW, FIXED_TIERS, TierSpec
from bus_schemas.verdict_words import NUMBERS

Way = Literal["ingress", "egress"]
Match = Literal["no", "maybe", "yes"]


class Door(NamedTuple):
    way: Way
    protocol: int
    port: int
    far: IPv4Address | IPv6Address | None = None
    """Who is at the far end; None: it is asked whether there is anybody at all."""
    families: frozenset[int] = frozenset({4, 6})
    """That the node speaks."""


class Closed(NamedTuple):
    by: str
    """Who decides, as a clause."""
    tier: str = ""
    """Of the policy that decides, or that should have."""


Open = Literal["open"]


def closed(host: HostEndpoint, door: Door, landscape: Landscape) -> Closed | None:
    """As packets meet it: not tracked, before NAT, normal policy, profiles. Failsafe ports are not asked."""
    governing = [policy for policy in landscape.all(GlobalNetworkPolicy) if governs(policy, host, landscape)]
    untracked = [policy for policy in governing if policy.spec.do_not_track and host.spec.interface_name != "*"]
    before_nat = [policy for policy in governing if policy.spec.pre_dnat]
    normal = [policy for policy in governing if not policy.spec.do_not_track and not policy.spec.pre_dnat]
    for policies, early in ((untracked, True), (before_nat, True), (normal, False)):
        found = _tiers(host, door, policies, landscape, early=early)
        if found is not None:
            return None if found == "open" else found
    return _profiles(host, door, landscape)


def _tiers(
    host: HostEndpoint, door: Door, policies: Sequence[GlobalNetworkPolicy], landscape: Landscape, *, early: bool
) -> Closed | Open | None:
    """None: the tiers decide nothing."""
    here = [policy for policy in policies if door.way.capitalize() in policy.spec.types]
    defined = {tier.metadata.name: tier.spec for tier in landscape.all(Tier)} | FIXED_TIERS
    for name in sorted({policy.spec.tier for policy in here}, key=lambda name: _rank(name, defined.get(name))):
        mine = sorted((policy for policy in here if policy.spec.tier == name), key=_order)
        passed = False
        for policy in mine:
            said = _rules(host, door, getattr(policy.spec, door.way), landscape)
            if said == "open":
                return "open"
            if said == "pass":
                passed = True
                break
            passed = passed or said == "may pass"
            if isinstance(said, int):
                if passed:
                    break  # some of it may be decided further on
                by = f"spec.{door.way}[{said}] of {policy.display} denies it"
                return Closed(by, name)
        else:
            if not passed and not early and defined.get(name, TierSpec()).default_action == "Deny":
                listed = ", ".join(policy.display for policy in mine[:3]) + (" and others" if len(mine) > 3 else "")
                return Closed(f"no rule of {listed} allows it, and tier {name} then denies", name)
    return None


def _profiles(host: HostEndpoint, door: Door, landscape: Landscape) -> Closed | None:
    defined = {profile.metadata.name: profile.spec for profile in landscape.all(Profile)}
    for name in host.spec.profiles:
        if name == DEFAULT_ALLOW or (name.startswith("kns.") and landscape.has_profile(name)):
            return None
        if name.startswith("ksa.") and landscape.has_profile(name):
            continue
        if name not in defined:
            return Closed(f"there is no profile {name!r}")
        said = _rules(host, door, getattr(defined[name], door.way), landscape)
        if said == "open":
            return None
        if isinstance(said, int):
            return Closed(f"spec.{door.way}[{said}] of Profile/{name} denies it")
    whoever = "no profile allows it" if host.spec.profiles else "it has no profile"
    return Closed(f"no policy decides, and {whoever}")


def _rules(
    host: HostEndpoint, door: Door, rules: Sequence[CalicoRule], landscape: Landscape
) -> Open | Literal["pass", "may pass"] | int | None:
    """`open`: some packet may be allowed; a number: that rule denies the rest; None: nothing is decided for all."""
    may_pass = False
    for at, rule in enumerate(rules):
        matched = _matches(host, door, rule, landscape)
        if matched == "no" or rule.action == "Log":
            continue
        if rule.action == "Allow":
            return "open"
        if rule.action == "Pass":
            if matched == "yes":
                return "pass"
            may_pass = True
        elif matched == "yes":
            return "may pass" if may_pass else at
    return "may pass" if may_pass else None


def _rank(name: str, tier: TierSpec | None) -> tuple[bool, float, str]:
    return (tier is None, math.inf if tier is None or tier.order is None else tier.order, name)


def _order(policy: GlobalNetworkPolicy) -> tuple[float, str]:
    order = policy.spec.order
    return (math.inf if order is None else order, f"{policy.metadata.name}//{policy.KIND}")


# --- labels


def governs(policy: GlobalNetworkPolicy, host: HostEndpoint, landscape: Landscape) -> bool:
    spec, labels = policy.spec, labels_of(host, landscape)
    return (
        _selects(spec.selector, labels)
        and (not spec.namespace_selector or _selects_nowhere(spec.namespace_selector))
        and (not spec.service_account_selector or _selects(spec.service_account_selector, {}))
    )


def labels_of(host: HostEndpoint, landscape: Landscape) -> dict[str, str]:
    """Its own, over those that its profiles apply."""
    applied = {profile.metadata.name: profile.spec.labels_to_apply for profile in landscape.all(Profile)}
    given = {key: value for name in host.spec.profiles for key, value in applied.get(name, {}).items()}
    return given | host.metadata.labels


def _selects(text: str, labels: dict[str, str]) -> bool:
    selector = parsed(text)
    return selector is not None and selector.matches(labels)


def _selects_nowhere(text: str) -> bool:
    """Whether a namespace selector means what is in no namespace."""
    selector = parsed(text)
    match selector.node if selector is not None else None:
        case None | selectors.All():
            return False
        case selectors.Global():
            return True
    return selector is not None and "all()" not in text and selector.matches({})


# --- one rule


def _matches(host: HostEndpoint, door: Door, rule: CalicoRule, landscape: Landscape) -> Match:
    if rule.protocol is not None and _number(rule.protocol) != door.protocol:
        return "no"
    if rule.not_protocol is not None and _number(rule.not_protocol) == door.protocol:
        return "no"
    if rule.icmp is not None and (rule.icmp.type is not None or rule.icmp.code is not None):
        return "no"
    if rule.ip_version is not None and rule.ip_version not in _families(door):
        return "no"
    near, far = (rule.destination, rule.source) if door.way == "ingress" else (rule.source, rule.destination)
    said: list[Match] = ["maybe"] if rule.ip_version is not None and _families(door) != {rule.ip_version} else []
    said += _near(host, near, landscape)
    said += _far(door, far)
    said.append(_ports(host, door, rule.destination))
    if rule.source.ports or rule.source.not_ports:
        said.append("maybe")  # whoever calls chooses its port
    return "no" if "no" in said else "maybe" if "maybe" in said else "yes"


def _near(host: HostEndpoint, entity: EntityRule, landscape: Landscape) -> Iterator[Match]:
    """The host endpoint's own end, which rules know by its addresses: others may have them, too."""
    if entity.selector and not (host.spec.expected_ips and _selects(entity.selector, labels_of(host, landscape))):
        yield "maybe"
    if entity.not_selector or entity.namespace_selector or entity.service_accounts is not None:
        yield "maybe"
    if entity.nets or entity.not_nets or entity.services is not None:
        yield "maybe"


def _far(door: Door, entity: EntityRule) -> Iterator[Match]:
    if entity.selector or entity.not_selector or entity.namespace_selector or entity.service_accounts is not None:
        yield "maybe"
    if entity.services is not None:
        yield "maybe"
    if entity.nets:
        yield _in_nets(door, entity.nets)
    if entity.not_nets:
        yield {"no": "yes", "maybe": "maybe", "yes": "no"}[_in_nets(door, entity.not_nets)]  # type: ignore[misc]


def _in_nets(door: Door, nets: Sequence[str]) -> Match:
    read = [ip_network(net, strict=False) for net in nets]
    if door.far is not None:
        return "yes" if any(door.far.version == net.version and door.far in net for net in read) else "no"
    return "yes" if {net.version for net in read if net.prefixlen == 0} >= door.families else "maybe"


def _families(door: Door) -> frozenset[int]:
    return door.families if door.far is None else frozenset({door.far.version})


def _ports(host: HostEndpoint, door: Door, entity: EntityRule) -> Match:
    """Of the destination."""
    positive = [_is_port(host, door, port) for port in entity.ports]
    if positive and "yes" not in positive:
        return "maybe" if "maybe" in positive else "no"
    negative = [_is_port(host, door, port) for port in entity.not_ports]
    return "no" if "yes" in negative else "maybe" if "maybe" in negative else "yes"


def _is_port(host: HostEndpoint, door: Door, port: int | str) -> Match:
    first, colon, last = str(port).partition(":")
    if first.isdecimal() and (not colon or last.isdecimal()):
        return "yes" if int(first) <= door.port <= int(last or first) else "no"
    if door.way == "egress":
        return "maybe"  # a name of somebody else's
    named = (p for p in host.spec.ports if p.name == port and p.port == door.port)
    return "maybe" if any(_number(p.protocol) == door.protocol for p in named) else "no"


def _number(protocol: int | str) -> int:
    text = str(protocol)
    return int(text) if text.isdecimal() else NUMBERS.get(text.upper(), -1)
