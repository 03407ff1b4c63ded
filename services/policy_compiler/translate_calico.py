"""Calico's NetworkPolicy and GlobalNetworkPolicy, their staged twins, and Profile -> Policy.

Selectors are rewritten to the effective labels (see `labels`): a namespace selector's keys get `pcns.`, a service
account selector's `pcsa.`; `all()` as a namespace selector means in some namespace, `global()` in none; in a
NetworkPolicy, what names endpoints without a namespace selector means those of the policy's own namespace.

`services` means the endpoints of a Service: their addresses as a source, (address, protocol, port) as a destination.
Policies with doNotTrack or preDNAT stand at host endpoints alone, in directions of their own; applyOnForward adds what
a host endpoint forwards. To a pod such a policy is as any other.

A rule that cannot be compiled becomes a deny (`Rule.never`) of what it would have covered: what is not understood of it
may be any condition, so it is no condition; of a list that excludes, only the entry is lost. Where it cannot be said
whom a policy governs, it governs all whom the rest of its subject leaves (of a NetworkPolicy: its namespace), with
such denies in place of its rules. A Log decides nothing, and is left out.

https://docs.tigera.io/calico/latest/reference/resources/networkpolicy
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

from bus_schemas import selectors
from bus_schemas.policy import Icmp, Match, Rule
from bus_schemas.resources import (
    GlobalNetworkPolicy,
    NetworkPolicy,
    Profile,
    StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
)
from bus_schemas.resources.calico_policy import (
    CalicoRule,
    EntityRule,
    GlobalNetworkPolicySpec,
    IcmpFields,
    NetworkPolicySpec,
)
from bus_schemas.selectors import Selector, SelectorError
from services.policy_compiler.errors import Uncompilable
from services.policy_compiler.hosts import DEFAULT_ALLOW, is_reserved
from services.policy_compiler.labels import NAMESPACE, NAMESPACE_PREFIX, SERVICE_ACCOUNT, SERVICE_ACCOUNT_PREFIX
from services.policy_compiler.members import EVERY_PORT
from services.policy_compiler.nets import by_family, net
from services.policy_compiler.policies import Draft, Hooks, Translation, attaching, hooks, never
from services.policy_compiler.ports import Ports, merged, ports
from services.policy_compiler.selection import Selection, service

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132, "udplite": 136}
WITH_PORTS = frozenset({6, 17, 132})
ICMPS = frozenset({1, 58})

ACTIONS: dict[str, Literal["allow", "deny", "pass", "log"]] = {
    "Allow": "allow",
    "Deny": "deny",
    "Pass": "pass",
    "Log": "log",
}

_NUMBER = re.compile("[0-9]{1,3}")

EVERYBODY = Selection("", selectors.ALL)
NO_PORTS = Ports((), ())

T = TypeVar("T")
E = TypeVar("E")


CalicoPolicy = NetworkPolicy | GlobalNetworkPolicy | StagedNetworkPolicy | StagedGlobalNetworkPolicy


def translate(resource: CalicoPolicy) -> Translation:
    namespace, _ = resource.key
    spec = resource.spec
    reader = _Reader()
    subject = Selection(namespace, _subject(reader, spec))
    draft = Draft(resource, subject, f"spec.{reader.faults[0]}" if reader.faults else "")
    kind = resource.KIND.removeprefix("Staged")
    return draft.finish(
        attaching(resource, kind, spec.tier, spec.order, _hooks(spec)),
        _rules(draft, namespace, "ingress", spec.ingress) if "Ingress" in spec.types else (),
        _rules(draft, namespace, "egress", spec.egress) if "Egress" in spec.types else (),
    )


def translate_profile(resource: Profile) -> Translation:
    if resource.metadata.name == DEFAULT_ALLOW:
        return Translation(None)
    if is_reserved(resource.metadata.name):
        return Translation(None, ("metadata.name: a profile of this name is not made of a resource",))
    draft = Draft(resource, None)
    return draft.finish(
        None,
        _rules(draft, "", "ingress", resource.spec.ingress),
        _rules(draft, "", "egress", resource.spec.egress),
    )


def _hooks(spec: NetworkPolicySpec) -> Hooks:
    ways = [way.lower() for way in spec.types]
    if not isinstance(spec, GlobalNetworkPolicySpec):
        return hooks(*ways)
    if spec.do_not_track:
        return hooks(*(f"untracked_{way}" for way in ways))
    if spec.pre_dnat:
        return hooks(*("pre_dnat_ingress" for way in ways if way == "ingress"))
    if spec.apply_on_forward:
        return hooks(*ways, *(f"forward_{way}" for way in ways))
    return hooks(*ways)


def _subject(reader: _Reader, spec: NetworkPolicySpec) -> Selector:
    parts = [reader.read("selector", lambda: selectors.parse(spec.selector), selectors.ALL)]
    if isinstance(spec, GlobalNetworkPolicySpec) and (text := spec.namespace_selector):
        parts.append(reader.read("namespaceSelector", lambda: _namespaces(text), selectors.ALL))
    if spec.service_account_selector:
        parts.append(
            reader.read("serviceAccountSelector", lambda: _of_accounts(spec.service_account_selector), selectors.ALL)
        )
    return selectors.all_of(*parts)


def _of_accounts(text: str) -> Selector:
    return selectors.parse(text).prefixed(SERVICE_ACCOUNT_PREFIX)


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
            return selectors.of(_in_some_namespace(selector.prefixed(NAMESPACE_PREFIX).node))


def _in_some_namespace(node: selectors.Node) -> selectors.Node:
    """Also as a part of a namespace selector, `all()` means some namespace: what is in none never matches it."""
    match node:
        case selectors.All():
            return selectors.Has(NAMESPACE)
        case selectors.Not(operand):
            return selectors.Not(_in_some_namespace(operand))
        case selectors.And(operands):
            return selectors.And(tuple(map(_in_some_namespace, operands)))
        case selectors.Or(operands):
            return selectors.Or(tuple(map(_in_some_namespace, operands)))
        case _:
            return node


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
    """Reads the fields of one rule, or of one subject; what has no meaning is noted as a fault, and what stands for it
    covers whatever it may have meant."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def read(self, path: str, field: Callable[[], T], otherwise: T) -> T:
        try:
            return field()
        except (SelectorError, Uncompilable) as error:
            self.faults.append(f"{path}: {error}")
            return otherwise

    def expect(self, met: bool, path: str, text: str) -> None:
        if not met:
            self.faults.append(f"{path}: {text}")

    def each(self, path: str, entries: Iterable[E], entry: Callable[[E], T]) -> list[T]:
        """Of a list that excludes: those that have a meaning."""
        found = []
        for one in entries:
            try:
                found.append(entry(one))
            except Uncompilable as error:
                self.faults.append(f"{path}: {error}")
        return found


class _End(NamedTuple):
    """What an end of a rule is read against."""

    namespace: str
    """Of the policy; empty: a global one."""
    local: Selection | None = None
    """The policy's subject, where this end is the governed endpoint."""
    services: Literal["addresses", "ports"] | None = None
    """What a Service stands for at this end; None: nothing."""


def _rules(draft: Draft, namespace: str, direction: str, rules: Sequence[CalicoRule]) -> Iterator[Rule]:
    local = _End(namespace, local=draft.subject)
    if direction == "ingress":
        source, destination = _End(namespace, services="addresses"), local
    else:
        source, destination = local, _End(namespace, services="ports")
    for at, rule in enumerate(rules):
        reader = _Reader()
        compiled = _rule(draft, reader, rule, at, source, destination)
        where = f"spec.{direction}[{at}]"
        draft.faults.extend(f"{where}.{fault}" for fault in reader.faults)
        if reader.faults:
            if rule.action == "Log":
                continue
            compiled = never(compiled, f"{where}.{reader.faults[0]}")
        yield from by_family(compiled)


def _rule(draft: Draft, reader: _Reader, rule: CalicoRule, at: int, source: _End, destination: _End) -> Rule:
    protocol = reader.read("protocol", lambda: _protocol(rule.protocol), None)
    not_protocol = reader.read("notProtocol", lambda: _protocol(rule.not_protocol), None)
    reader.expect(rule.http is None, "http", "nothing in the packet path reads HTTP")
    return Rule(
        action=ACTIONS[rule.action],
        ip_version=rule.ip_version,
        protocol=protocol,
        not_protocol=not_protocol,
        icmp=_icmp(reader, "icmp", rule.icmp, protocol),
        not_icmp=_icmp(reader, "notICMP", rule.not_icmp, protocol, excludes=True),
        source=_entity(draft, reader, "source", rule.source, source, protocol),
        destination=_entity(draft, reader, "destination", rule.destination, destination, protocol),
        index=at,
    )


def _protocol(given: int | str | None) -> int | None:
    if given is None:
        return None
    number = int(given) if isinstance(given, int) or _NUMBER.fullmatch(given) else PROTOCOLS.get(given.lower())
    if number is None or not 0 < number < 256:
        raise Uncompilable(f"unknown protocol {given!r}")
    return number


def _icmp(
    reader: _Reader, path: str, given: IcmpFields | None, protocol: int | None, *, excludes: bool = False
) -> Icmp | None:
    if given is None or (given.type is None and given.code is None):
        return None
    reader.expect(given.type is not None, path, "an ICMP code needs its type")
    reader.expect(protocol in ICMPS, path, "needs the protocol ICMP or ICMPv6")
    type_is, code_is = (0 <= (number or 0) < 256 for number in (given.type, given.code))
    reader.expect(type_is and code_is, path, "ICMP types and codes are 0 to 255")
    if given.type is None or not type_is or protocol not in (None, *ICMPS) or (excludes and not code_is):
        return None
    return Icmp(type=given.type, code=given.code if code_is else None)


def _entity(draft: Draft, reader: _Reader, path: str, entity: EntityRule, end: _End, protocol: int | None) -> Match:
    def within(name: str) -> str:
        return f"{path}.{name}"

    meant = len(reader.faults)
    members = _members(reader, within, entity, end.namespace)
    whose_ports_is_clear = len(reader.faults) == meant
    excluded = reader.read(within("notSelector"), lambda: _excluded(entity, end.namespace), None)
    positive = reader.read(within("ports"), lambda: ports(entity.ports), NO_PORTS)
    negative = _merged(reader.each(within("notPorts"), entity.not_ports, lambda port: ports([port])))
    if protocol not in WITH_PORTS:
        for name, read in (("ports", positive), ("notPorts", negative)):
            reader.expect(not read.ranges, within(name), "port numbers need the protocol TCP, UDP or SCTP")
        if protocol is not None:
            positive = positive._replace(ranges=())
    served = reader.read(within("services"), lambda: _service(entity, end), None)
    owners = members or end.local or EVERYBODY
    if served is not None and end.services == "ports":
        return Match(named_ports=(draft.ports(served, EVERY_PORT),))
    found = [selection for selection in (members, served) if selection is not None]
    return Match(
        groups=tuple(map(draft.addresses, found)),
        not_groups=() if excluded is None else (draft.addresses(excluded),),
        nets=reader.read(within("nets"), lambda: tuple(map(net, entity.nets)), ()),
        not_nets=tuple(reader.each(within("notNets"), entity.not_nets, net)),
        ports=positive.ranges,
        named_ports=tuple(draft.ports(owners, name) for name in positive.names),
        not_ports=negative.ranges,
        not_named_ports=tuple(draft.ports(owners, name) for name in negative.names if whose_ports_is_clear),
    )


def _members(reader: _Reader, within: Callable[[str], str], entity: EntityRule, namespace: str) -> Selection | None:
    """The endpoints that this end must be one of; None: it may be anybody."""
    if not (entity.selector or entity.namespace_selector or entity.service_accounts or entity.not_selector):
        return None
    parts = [reader.read(within("selector"), lambda: selectors.parse(entity.selector), selectors.ALL)]
    if (accounts := entity.service_accounts) is not None:
        if accounts.names:
            parts.append(selectors.one_of(SERVICE_ACCOUNT, accounts.names))
        if accounts.selector:
            path = within("serviceAccounts.selector")
            parts.append(reader.read(path, lambda: _of_accounts(accounts.selector), selectors.ALL))
    if entity.namespace_selector:
        spaces = reader.read(within("namespaceSelector"), lambda: _namespaces(entity.namespace_selector), selectors.ALL)
        return Selection("", selectors.all_of(*parts, spaces))
    if entity.not_selector and not (entity.selector or entity.service_accounts) and not namespace:
        return None
    return Selection(namespace, selectors.all_of(*parts))


def _service(entity: EntityRule, end: _End) -> Selection | None:
    """The slices of the Service that this end must be one of; None: none is asked for."""
    match = entity.services
    if match is None:
        return None
    if end.services is None:
        raise Uncompilable("only the source of ingress and the destination of egress can be a service")
    namespace = match.namespace or end.namespace
    if not match.name or not namespace:
        raise Uncompilable("a service needs a name and a namespace")
    beside = (entity.nets, entity.not_nets, entity.selector, entity.not_selector, entity.namespace_selector)
    on_destination = end.services == "ports" and (entity.ports or entity.not_ports)
    if any(beside) or entity.service_accounts is not None or on_destination:
        raise Uncompilable("excludes selectors, nets and service accounts, and ports of a destination")
    return service(namespace, match.name)


def _excluded(entity: EntityRule, namespace: str) -> Selection | None:
    """The endpoints that this end must not be. `_members` has said which namespaces are meant at all."""
    if not entity.not_selector:
        return None
    return Selection("" if entity.namespace_selector else namespace, selectors.parse(entity.not_selector))


def _merged(read: Sequence[Ports]) -> Ports:
    names = {name for each in read for name in each.names}
    return Ports(merged(range_ for each in read for range_ in each.ranges), tuple(sorted(names)))
