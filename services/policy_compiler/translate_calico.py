"""Calico's NetworkPolicy and GlobalNetworkPolicy -> Policy.

Selectors are rewritten to the effective labels (see `labels`): a namespace selector's keys get `pcns.`, a service
account selector's `pcsa.`; `all()` as a namespace selector means in some namespace, `global()` in none; in a
NetworkPolicy, what names endpoints without a namespace selector means those of the policy's own namespace.

A rule that cannot be compiled becomes a deny (`Rule.never`) of all that its other fields cover: here rules are a
program, and a Deny that is left out would be an Allow further down. A Log decides nothing and is left out.

https://docs.tigera.io/calico/latest/reference/resources/networkpolicy
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

from bus_schemas import selectors
from bus_schemas.policy import Icmp, Match, Rule, rules_id
from bus_schemas.resources import GlobalNetworkPolicy, NetworkPolicy
from bus_schemas.resources.calico_policy import (
    CalicoRule,
    EntityRule,
    IcmpFields,
    ServiceAccountMatch,
)
from bus_schemas.selectors import Selector, SelectorError
from services.policy_compiler.errors import Uncompilable
from services.policy_compiler.labels import NAMESPACE, NAMESPACE_PREFIX, SERVICE_ACCOUNT, SERVICE_ACCOUNT_PREFIX
from services.policy_compiler.nets import by_family, net
from services.policy_compiler.policies import Attaching, Draft, Translation, place
from services.policy_compiler.ports import Ports, ports
from services.policy_compiler.selection import Selection

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132, "udplite": 136}
WITH_PORTS = frozenset({6, 17, 132})
ICMPS = frozenset({1, 58})

ACTIONS: dict[str, Literal["allow", "deny", "pass", "log"]] = {
    "Allow": "allow",
    "Deny": "deny",
    "Pass": "pass",
    "Log": "log",
}

EVERYBODY = Selection("", selectors.ALL)
NO_PORTS = Ports((), ())

T = TypeVar("T")


def translate(resource: NetworkPolicy | GlobalNetworkPolicy) -> Translation:
    namespace, name = resource.key
    spec = resource.spec
    try:
        subject = Selection(namespace, _subject(resource))
    except (SelectorError, Uncompilable) as error:
        return Translation(None, (f"spec: {error}",))
    draft = Draft(subject)
    attaching = Attaching(
        place(spec.tier, spec.order, name, namespace, resource.KIND),
        rules_id(resource.TOKEN, namespace, name),
        ingress="Ingress" in spec.types,
        egress="Egress" in spec.types,
    )
    return draft.finish(
        attaching,
        resource.display,
        _rules(draft, namespace, "ingress", spec.ingress),
        _rules(draft, namespace, "egress", spec.egress),
    )


def _subject(resource: NetworkPolicy | GlobalNetworkPolicy) -> Selector:
    spec = resource.spec
    parts = [selectors.parse(spec.selector)]
    if isinstance(resource, GlobalNetworkPolicy) and resource.spec.namespace_selector:
        parts.append(_namespaces(resource.spec.namespace_selector))
    if spec.service_account_selector:
        parts.append(selectors.parse(spec.service_account_selector).prefixed(SERVICE_ACCOUNT_PREFIX))
    return selectors.all_of(*parts)


def _namespaces(text: str) -> Selector:
    """A namespace selector, over the effective labels of endpoints."""
    selector = selectors.parse(text)
    match selector.node:
        case selectors.All():
            return selectors.has(NAMESPACE)
        case selectors.Global():
            return selectors.negated(selectors.has(NAMESPACE))
        case node if _says_global(node):
            raise Uncompilable(f"global() must stand alone in {text!r}")
        case _:
            return selector.prefixed(NAMESPACE_PREFIX)


def _says_global(node: selectors.Node) -> bool:
    match node:
        case selectors.Global():
            return True
        case selectors.Not(operand):
            return _says_global(operand)
        case selectors.And(operands) | selectors.Or(operands):
            return any(map(_says_global, operands))
        case _:
            return False


class _Reader:
    """Reads the fields of one rule; what has no meaning is noted as a fault and replaced by no condition."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def read(self, path: str, field: Callable[[], T], otherwise: T) -> T:
        try:
            return field()
        except (SelectorError, Uncompilable) as error:
            self.faults.append(f"{path}: {error}")
            return otherwise


class _End(NamedTuple):
    """What an end of a rule is read against."""

    namespace: str
    """Of the policy; empty: a global one."""
    local: Selection | None
    """The policy's subject, where this end is the governed endpoint."""


def _rules(draft: Draft, namespace: str, direction: str, rules: Sequence[CalicoRule]) -> Iterator[Rule]:
    local, remote = _End(namespace, draft.subject), _End(namespace, None)
    source, destination = (remote, local) if direction == "ingress" else (local, remote)
    for at, rule in enumerate(rules):
        reader = _Reader()
        compiled = _rule(draft, reader, rule, source, destination)
        where = f"spec.{direction}[{at}]"
        draft.faults.extend(f"{where}.{fault}" for fault in reader.faults)
        if reader.faults:
            if rule.action == "Log":
                continue
            compiled = _never(compiled, f"{where}.{reader.faults[0]}")
        yield from by_family(compiled)


def _never(rule: Rule, reason: str) -> Rule:
    return Rule(
        action="deny",
        ip_version=rule.ip_version,
        protocol=rule.protocol,
        not_protocol=rule.not_protocol,
        icmp=rule.icmp,
        not_icmp=rule.not_icmp,
        source=rule.source,
        destination=rule.destination,
        never=reason,
    )


def _rule(draft: Draft, reader: _Reader, rule: CalicoRule, source: _End, destination: _End) -> Rule:
    protocol = reader.read("protocol", lambda: _protocol(rule.protocol), None)
    not_protocol = reader.read("notProtocol", lambda: _protocol(rule.not_protocol), None)
    return Rule(
        action=ACTIONS[rule.action],
        ip_version=rule.ip_version,
        protocol=protocol,
        not_protocol=not_protocol,
        icmp=reader.read("icmp", lambda: _icmp(rule.icmp, protocol), None),
        not_icmp=reader.read("notICMP", lambda: _icmp(rule.not_icmp, protocol), None),
        source=_entity(draft, reader, "source", rule.source, source, protocol),
        destination=_entity(draft, reader, "destination", rule.destination, destination, protocol),
    )


def _protocol(given: int | str | None) -> int | None:
    if given is None:
        return None
    number = int(given) if isinstance(given, int) or given.isdecimal() else PROTOCOLS.get(given.lower())
    if number is None or not 0 < number < 256:
        raise Uncompilable(f"unknown protocol {given!r}")
    return number


def _icmp(given: IcmpFields | None, protocol: int | None) -> Icmp | None:
    if given is None or (given.type is None and given.code is None):
        return None
    if given.type is None:
        raise Uncompilable("an ICMP code needs its type")
    if protocol not in ICMPS:
        raise Uncompilable("needs the protocol ICMP or ICMPv6")
    if not 0 <= given.type < 256 or not 0 <= (given.code or 0) < 256:
        raise Uncompilable("ICMP types and codes are 0 to 255")
    return Icmp(type=given.type, code=given.code)


def _entity(draft: Draft, reader: _Reader, path: str, entity: EntityRule, end: _End, protocol: int | None) -> Match:
    def within(name: str) -> str:
        return f"{path}.{name}"

    members = reader.read(path, lambda: _members(entity, end.namespace), None)
    excluded = reader.read(within("notSelector"), lambda: _excluded(entity, end.namespace), None)
    positive = reader.read(within("ports"), lambda: _ports(entity.ports, protocol), NO_PORTS)
    negative = reader.read(within("notPorts"), lambda: _ports(entity.not_ports, protocol), NO_PORTS)
    owners = members or end.local or EVERYBODY
    return Match(
        groups=() if members is None else (draft.addresses(members),),
        not_groups=() if excluded is None else (draft.addresses(excluded),),
        nets=reader.read(within("nets"), lambda: tuple(map(net, entity.nets)), ()),
        not_nets=reader.read(within("notNets"), lambda: tuple(map(net, entity.not_nets)), ()),
        ports=positive.ranges,
        named_ports=tuple(draft.ports(owners, name) for name in positive.names),
        not_ports=negative.ranges,
        not_named_ports=tuple(draft.ports(owners, name) for name in negative.names),
    )


def _members(entity: EntityRule, namespace: str) -> Selection | None:
    """The endpoints that this end must be one of; None: it may be anybody."""
    if not (entity.selector or entity.namespace_selector or entity.service_accounts or entity.not_selector):
        return None
    parts = [selectors.parse(entity.selector)]
    if entity.service_accounts is not None:
        parts.extend(_accounts(entity.service_accounts))
    if entity.namespace_selector:
        return Selection("", selectors.all_of(*parts, _namespaces(entity.namespace_selector)))
    if entity.not_selector and not (entity.selector or entity.service_accounts) and not namespace:
        return None
    return Selection(namespace, selectors.all_of(*parts))


def _accounts(match: ServiceAccountMatch) -> Iterator[Selector]:
    if match.names:
        yield selectors.one_of(SERVICE_ACCOUNT, match.names)
    if match.selector:
        yield selectors.parse(match.selector).prefixed(SERVICE_ACCOUNT_PREFIX)


def _excluded(entity: EntityRule, namespace: str) -> Selection | None:
    """The endpoints that this end must not be. `_members` has said which namespaces are meant at all."""
    if not entity.not_selector:
        return None
    return Selection("" if entity.namespace_selector else namespace, selectors.parse(entity.not_selector))


def _ports(given: Sequence[int | str], protocol: int | None) -> Ports:
    read = ports(given)
    if read.ranges and protocol not in WITH_PORTS:
        raise Uncompilable("port numbers need the protocol TCP, UDP or SCTP")
    return read
