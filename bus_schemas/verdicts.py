"""What compiled policy says about one packet: the meaning of `bus_schemas.policy`, executable.

    Direction (of an attachment) + Flow + World (rules and groups by id)  -->  Verdict

The kernel is told the same thing in nftables; this is the slow, obvious reading of it, for whoever has to know a
verdict without a packet: explanations, previews, and connections that outlive a change. It reads compiled words only,
so it says what the nodes enforce, not what a manifest may have meant.

It is closed where the nodes are closed. Rules that are not known deny. A rule that could not be compiled (`never`),
that names a group nobody knows, or that holds what cannot be written to the kernel, denies what the rest of it covers
(`coverage`), whatever it had been; but a log decides nothing, and such a one never matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

from bus_schemas import coverage
from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import Direction, Icmp, Match, PortRange, Rule, Rules, TierRules, Way
from bus_schemas.protocols import ICMP, ICMPV6, WITH_PORTS

_V4 = 4
"""Bytes of an IPv4 address: what tells the families apart."""


class Flow(NamedTuple):
    """The first packet of a connection, as the endpoint's node sees it: after any destination NAT."""

    source: bytes
    """Packed address, 4 or 16 bytes; the destination is of the same family."""
    destination: bytes
    protocol: int
    source_port: int = 0
    port: int = 0
    """Of the destination. Ports mean nothing for protocols without them."""
    icmp_type: int | None = None
    icmp_code: int | None = None


class World(Protocol):
    """What a direction refers to."""

    def rules(self, id: RulesId) -> Rules | None:
        """None: not known."""

    def in_group(self, group: GroupId, key: bytes) -> bool | None:
        """Whether a packed address (of a `ports` group: address, protocol, zero, port) is a member. None: the group is
        not known, or not whole; then it is None for every key."""


Condition = Literal[
    "ip_version",
    "protocol",
    "not_protocol",
    "icmp",
    "not_icmp",
    "groups",
    "not_groups",
    "nets",
    "not_nets",
    "ports",
    "not_ports",
    "not_named_ports",
]


class Miss(NamedTuple):
    """The first condition of a rule that a flow does not meet."""

    condition: Condition | Literal["unknown", "unwritable"]
    """`unknown`: `group` is not known, so the rule cannot be trusted; `unwritable`: `text` says why."""
    end: Literal["", "source", "destination"] = ""
    group: GroupId = GroupId("")
    """Which, where the condition is about groups."""
    text: str = ""


class Skipped(NamedTuple):
    """A rule that did not decide."""

    number: int
    """Its place among the compiled rules of its direction."""
    rule: Rule
    miss: Miss | None
    """None: it matched, and was a log."""


Outcome = Literal["allow", "deny", "pass", "no match"]


class Step(NamedTuple):
    """What one policy, or the end of a tier, or the end of it all, had to say."""

    kind: Literal["policy", "tier default", "profile", "default"]
    outcome: Outcome
    tier: str = ""
    rules: RulesId = RulesId("")
    policy: str = ""
    """The policy's title, `<Kind>/<namespace>/<name>`; empty while its rules are not known."""
    number: int | None = None
    """Place of the rule that decided, among the compiled rules of its direction."""
    rule: Rule | None = None
    """The rule that decided."""
    why: Literal["", "rules not known", "group not known", "not compiled", "unwritable"] = ""
    """Why the outcome is deny although the rule, if any, says otherwise or says less."""
    skipped: tuple[Skipped, ...] = ()
    """The rules before it, in order."""


class Verdict(NamedTuple):
    action: Literal["allow", "deny"]
    steps: tuple[Step, ...]
    """In the order of evaluation; the last one decided."""

    @property
    def decision(self) -> Step:
        return self.steps[-1]


def decide(direction: Direction, way: Way, flow: Flow, world: World, *, preview: bool = False) -> Verdict:
    """The verdict with the whole path to it. `preview`: as if the staged policies were in force."""
    steps: list[Step] = []
    for tier in _tiers(direction, preview):
        for id in tier.rules:
            step = _policy_step(Step("policy", "no match", tier.tier, id), way, flow, world)
            steps.append(step)
            if step.outcome in ("allow", "deny"):
                return Verdict("allow" if step.outcome == "allow" else "deny", tuple(steps))
            if step.outcome == "pass":
                break
        else:
            steps.append(Step("tier default", tier.default, tier.tier))
            if tier.default == "deny":
                return Verdict("deny", tuple(steps))
    for id in direction.profiles:
        step = _policy_step(Step("profile", "no match", "", id), way, flow, world)
        steps.append(step)
        if step.outcome in ("allow", "deny"):
            return Verdict("allow" if step.outcome == "allow" else "deny", tuple(steps))
        if step.outcome == "pass":
            break
    steps.append(Step("default", direction.default))
    return Verdict(direction.default, tuple(steps))


def allows(direction: Direction, way: Way, flow: Flow, world: World, *, preview: bool = False) -> bool:
    """`decide(...).action == "allow"`, without the path."""
    for tier in _tiers(direction, preview):
        outcome = _run(tier.rules, way, flow, world) or tier.default
        if outcome != "pass":
            return outcome == "allow"
    outcome = _run(direction.profiles, way, flow, world) or "pass"
    return (direction.default if outcome == "pass" else outcome) == "allow"


def matches(rule: Rule, flow: Flow, world: World) -> bool:
    """Whether the rule decides this flow (for a log: is logged), be it by being closed."""
    return _judge(rule, flow, world)[0] is None


def _tiers(direction: Direction, preview: bool) -> Sequence[TierRules]:
    return direction.preview if preview and direction.preview is not None else direction.tiers


def _run(ids: Iterable[RulesId], way: Way, flow: Flow, world: World) -> str | None:
    for id in ids:
        rules = world.rules(id)
        if rules is None:
            return "deny"
        for rule in rules.ingress if way == "ingress" else rules.egress:
            miss, why = _judge(rule, flow, world)
            if miss is None and rule.action != "log":
                return "deny" if why else rule.action
    return None


def _policy_step(step: Step, way: Way, flow: Flow, world: World) -> Step:
    rules = world.rules(step.rules)
    if rules is None:
        return step._replace(outcome="deny", why="rules not known")
    step = step._replace(policy=rules.policy)
    skipped: list[Skipped] = []
    for number, rule in enumerate(rules.ingress if way == "ingress" else rules.egress):
        miss, why = _judge(rule, flow, world)
        if miss is None and rule.action != "log":
            outcome: Outcome = "deny" if why else rule.action
            return step._replace(outcome=outcome, number=number, rule=rule, why=why, skipped=tuple(skipped))
        skipped.append(Skipped(number, rule, miss))
    return step._replace(skipped=tuple(skipped))


# --- one rule

_Why = Literal["", "group not known", "not compiled", "unwritable"]


def _judge(rule: Rule, flow: Flow, world: World) -> tuple[Miss | None, _Why]:
    """What the flow misses; where it misses nothing, why the rule is a deny nevertheless."""
    fault = coverage.fault(rule)
    if rule.action == "log":
        if rule.never:
            return Miss("unknown", text=rule.never), ""
        return (Miss("unwritable", text=fault) if fault else _miss(rule, flow, world, strict=True)), ""
    miss = _miss(coverage.understood(rule) if fault else rule, flow, world, strict=False)
    if miss is not None:
        return miss, ""
    if rule.never:
        return None, "not compiled"
    if fault:
        return None, "unwritable"
    return None, "" if _all_known(rule, flow, world) else "group not known"


def _all_known(rule: Rule, flow: Flow, world: World) -> bool:
    return all(
        world.in_group(group, flow.source) is not None
        for match in (rule.source, rule.destination)
        for group in (*match.groups, *match.not_groups, *match.named_ports, *match.not_named_ports)
    )


def _miss(rule: Rule, flow: Flow, world: World, *, strict: bool) -> Miss | None:
    """The first condition that the flow fails. What names an unknown group fails if `strict`, else is left out."""
    protocol = flow.protocol
    version = 4 if len(flow.source) == _V4 else 6
    if rule.ip_version is not None and rule.ip_version != version:
        return Miss("ip_version")
    if rule.protocol is not None and rule.protocol != protocol:
        return Miss("protocol")
    if rule.not_protocol is not None and rule.not_protocol == protocol:
        return Miss("not_protocol")
    if rule.icmp is not None and not _is_icmp(rule.icmp, flow, version):
        return Miss("icmp")
    if rule.not_icmp is not None and _is_icmp(rule.not_icmp, flow, version):
        return Miss("not_icmp")
    if rule.source is not _ANY or rule.destination is not _ANY:
        return (
            _miss_address(rule.source, "source", flow.source, world, strict)
            or _miss_address(rule.destination, "destination", flow.destination, world, strict)
            or _miss_port(rule.source, "source", flow.source, protocol, flow.source_port, world, strict)
            or _miss_port(rule.destination, "destination", flow.destination, protocol, flow.port, world, strict)
        )
    return None


_ANY = Rule(action="log").source
"""The very object that stands where a rule says nothing of an end."""


def _miss_address(
    match: Match, end: Literal["source", "destination"], address: bytes, world: World, strict: bool
) -> Miss | None:
    if match.nets and not any(_in_net(address, net) for net in match.nets):
        return Miss("nets", end)
    for net in match.not_nets:
        if _in_net(address, net):
            return Miss("not_nets", end)
    for group in match.groups:
        member = world.in_group(group, address)
        if member is False:
            return Miss("groups", end, group)
        if member is None and strict:
            return Miss("unknown", end, group)
    for group in match.not_groups:
        member = world.in_group(group, address)
        if member:
            return Miss("not_groups", end, group)
        if member is None and strict:
            return Miss("unknown", end, group)
    return None


def _miss_port(
    match: Match,
    end: Literal["source", "destination"],
    address: bytes,
    protocol: int,
    port: int,
    world: World,
    strict: bool,
) -> Miss | None:
    """`ports` and `named_ports` are one positive list; the negative ones hold for whatever has no ports at all."""
    if not (match.ports or match.named_ports or match.not_ports or match.not_named_ports):
        return None
    ported = protocol in WITH_PORTS
    key = address + bytes((protocol, 0)) + port.to_bytes(2, "big")
    if match.ports or match.named_ports:
        named = [world.in_group(group, key) for group in match.named_ports]
        if None in named:
            if strict:
                return Miss("unknown", end, match.named_ports[named.index(None)])
        elif not (ported and (_in_ranges(port, match.ports) or True in named)):
            return Miss("ports", end)
    if ported and _in_ranges(port, match.not_ports):
        return Miss("not_ports", end)
    for group in match.not_named_ports:
        member = world.in_group(group, key)
        if member and ported:
            return Miss("not_named_ports", end, group)
        if member is None and strict:
            return Miss("unknown", end, group)
    return None


def _in_ranges(port: int, ranges: Iterable[PortRange]) -> bool:
    return any(range_.first <= port <= range_.last for range_ in ranges)


def _is_icmp(icmp: Icmp, flow: Flow, version: int) -> bool:
    return (
        flow.protocol == (ICMP if version == 4 else ICMPV6)
        and icmp.type == flow.icmp_type
        and icmp.code in (None, flow.icmp_code)
    )


# --- values


def _in_net(address: bytes, cidr: str) -> bool:
    net = coverage.network(cidr)
    return net is not None and net[0] == len(address) and int.from_bytes(address, "big") >> net[2] == net[1]
