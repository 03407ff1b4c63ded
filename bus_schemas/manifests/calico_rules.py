"""Reading the rules of Calico's policies.

Every condition narrows what a rule matches, so a condition that is not understood is refused, never left out.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal

from bus_schemas.manifests.addresses import excluded_net, net
from bus_schemas.manifests.fields import At, Fields, Unknown
from bus_schemas.manifests.names import annotation_map, dns_label, dns_subdomain
from bus_schemas.manifests.ports import PORT_PROTOCOLS, calico_port, protocol, protocol_number
from bus_schemas.manifests.selections import namespace_selector, selector
from bus_schemas.resources.calico_policy import CalicoRule, EntityRule, IcmpFields, ServiceAccountMatch, ServiceMatch

MAX_NETS = 256
MAX_PORTS = 50

UNSUPPORTED = {
    "http": "matching of HTTP requests is not supported: without it the rule would match every connection",
}
"""Fields of rules and their ends that are refused, for leaving them out would widen what the rule matches."""

_ACTIONS: tuple[Literal["Allow", "Deny", "Log", "Pass"], ...] = ("Allow", "Deny", "Log", "Pass")
_ICMP_NUMBERS = frozenset({1, 58})
_PORT_PROTOCOL_NUMBERS = frozenset(map(protocol_number, PORT_PROTOCOLS))
_FAMILY_OF_NAME = {"ICMP": 4, "ICMPv6": 6}


Way = Literal["ingress", "egress"]

_SERVICE_END = {"ingress": "source", "egress": "destination"}
"""The end that a rule may describe by a service: the other one is the policy's own endpoint."""
_BESIDE_SERVICES = ("nets", "notNets", "selector", "notSelector", "namespaceSelector", "serviceAccounts")


def rule(fields: Fields, way: Way, *, cluster_wide: bool = False) -> CalicoRule:
    """`cluster_wide`: of a policy without a namespace, so that its services have to name theirs."""
    read = CalicoRule(
        action=fields.required("action", lambda at: at.choice(_ACTIONS), "Deny"),
        ip_version=fields.maybe("ipVersion", _ip_version),
        protocol=fields.maybe("protocol", protocol),
        not_protocol=fields.maybe("notProtocol", protocol),
        icmp=fields.maybe("icmp", lambda at: icmp_fields(at.fields())),
        not_icmp=fields.maybe("notICMP", lambda at: icmp_fields(at.fields())),
        source=entity_rule(fields.fields("source")),
        destination=entity_rule(fields.fields("destination")),
    )
    for end in ("source", "destination"):
        _check_services(fields.fields(end), allowed=end == _SERVICE_END[way], way=way, cluster_wide=cluster_wide)
    note = fields.fields("metadata")
    note.maybe("annotations", annotation_map)
    note.close(Unknown.WARNED)
    _refuse(fields, "http")
    fields.close(Unknown.REFUSED)
    _check_family(fields, read)
    _check_icmp(fields, read)
    _check_ports(fields, read)
    return read


def entity_rule(fields: Fields) -> EntityRule:
    """One end of a rule: `source` or `destination`."""
    read = EntityRule(
        nets=tuple(net(at) for at in fields.items("nets", most=MAX_NETS)),
        not_nets=tuple(excluded_net(at) for at in fields.items("notNets", most=MAX_NETS)),
        selector=fields.read("selector", selector, ""),
        not_selector=fields.read("notSelector", selector, ""),
        namespace_selector=fields.read("namespaceSelector", namespace_selector, ""),
        ports=tuple(calico_port(at) for at in fields.items("ports", most=MAX_PORTS)),
        not_ports=tuple(calico_port(at) for at in fields.items("notPorts", most=MAX_PORTS)),
        service_accounts=fields.maybe("serviceAccounts", lambda at: _service_accounts(at.fields())),
        services=fields.maybe("services", lambda at: _services(at.fields())),
    )
    fields.close(Unknown.REFUSED)
    return read


def icmp_fields(fields: Fields) -> IcmpFields:
    read = IcmpFields(type=fields.integer("type", 0, 254), code=fields.integer("code", 0, 255))
    if read.code is not None and read.type is None:
        fields.place("code").fault("needs a type")
    fields.close(Unknown.REFUSED)
    return read


def _service_accounts(fields: Fields) -> ServiceAccountMatch:
    read = ServiceAccountMatch(
        names=tuple(dns_subdomain(at) for at in fields.items("names")),
        selector=fields.read("selector", selector, ""),
    )
    fields.close(Unknown.REFUSED)
    return read


def _services(fields: Fields) -> ServiceMatch:
    read = ServiceMatch(
        name=fields.required("name", dns_subdomain, ""),
        namespace=fields.read("namespace", dns_label, ""),
    )
    fields.close(Unknown.REFUSED)
    return read


def _check_services(fields: Fields, *, allowed: bool, way: Way, cluster_wide: bool) -> None:
    """A service says it all: addresses, and as a destination the ports too."""
    at = fields.take("services")
    if at is None:
        return
    if not allowed:
        at.fault(f"can only be used in the {_SERVICE_END[way]} of an {way} rule")
    if cluster_wide and not at.child("namespace").value:
        at.child("namespace").fault("is required in a policy that is in no namespace itself")
    ports = ("ports", "notPorts") if way == "egress" else ()
    for name in (*_BESIDE_SERVICES, *ports):
        beside = fields.take(name)
        if beside is not None and (beside.value or name == "serviceAccounts"):
            beside.fault("cannot be used together with services")


def _refuse(fields: Fields, name: str) -> None:
    at = fields.take(name)
    if at is not None:
        at.fault(UNSUPPORTED[name])


def _ip_version(at: At) -> Literal[4, 6]:
    if type(at.value) is int and at.value in (4, 6):
        return 4 if at.value == 4 else 6
    at.fault("must be 4 or 6")
    return 4


def _check_family(fields: Fields, read: CalicoRule) -> None:
    """All networks of a rule are of one family, and of that of its ipVersion and of its ICMP."""
    nets = (*read.source.nets, *read.source.not_nets, *read.destination.nets, *read.destination.not_nets)
    families = {ip_network(text).version for text in nets if text}
    if len(families) > 1:
        fields.at.fault("has networks of IPv4 and of IPv6")
    elif read.ip_version is not None and families and families != {read.ip_version}:
        fields.place("ipVersion").fault(f"is {read.ip_version}, but the rule's networks are of the other version")
    for name, given in (("protocol", read.protocol), ("notProtocol", read.not_protocol)):
        of_protocol = _FAMILY_OF_NAME.get(str(given))
        if read.ip_version is not None and of_protocol not in (None, read.ip_version):
            fields.place(name).fault(f"is {given}, which IPv{read.ip_version} does not carry")


def _check_icmp(fields: Fields, read: CalicoRule) -> None:
    for name, conditions in (("icmp", read.icmp), ("notICMP", read.not_icmp)):
        if conditions is None or conditions == IcmpFields():
            continue
        if read.protocol is None or protocol_number(read.protocol) not in _ICMP_NUMBERS:
            fields.place(name).fault("needs the protocol ICMP or ICMPv6")


def _check_ports(fields: Fields, read: CalicoRule) -> None:
    """Ports need a protocol that has them. Names alone may do without one: a named port brings its own."""
    known = None if read.protocol is None else protocol_number(read.protocol)
    for end, entity in (("source", read.source), ("destination", read.destination)):
        for name, ports in (("ports", entity.ports), ("notPorts", entity.not_ports)):
            if known in _PORT_PROTOCOL_NUMBERS or (known is None and all(map(_is_name, ports))):
                continue
            if ports:
                fields.place(end).child(name).fault(f"needs a protocol that has ports: {', '.join(PORT_PROTOCOLS)}")


def _is_name(port: int | str) -> bool:
    return isinstance(port, str) and ":" not in port
