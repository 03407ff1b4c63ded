"""May FROM speak to TO, and which rule says so: found in the mirror and in compiled policy. Pure.

"shop/web"  --find_end--> End          a pod, a node, or an address that is nobody's; what stands in the way of asking
"TCP/http"  --asked-----> Asked
End, End    --wanted----> keys         the attachments to read      (the shell reads them: `compiled`)
all of it   --explain---> Explanation
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface
from typing import Literal, NamedTuple

from bus_schemas.endpoints import Endpoint
from bus_schemas.explanations import HOST, Explanation, WayReport, conclude, way_report
from bus_schemas.policy import Attachment, Direction, HostAttachment, Way
from bus_schemas.policy_snapshot import Snapshot
from bus_schemas.protocols import ICMP, ICMPV6, WITH_PORTS
from bus_schemas.resources import EndpointSlice, HostEndpoint, Node, Pod, Service
from bus_schemas.resources.services import ServicePort
from bus_schemas.verdict_words import NUMBERS
from bus_schemas.verdicts import Flow
from services.api.core import Core
from services.api.explain_hosts import Device, Hop, governing, on_the_way

EndpointKey = tuple[str, str, str]
HostKey = tuple[str, str]

SOURCE_PORT = 40000
"""Of the packet that is judged: rules that ask for a source port are rare."""
ECHO_REQUEST, ECHO_REQUEST6 = 8, 128


class CannotTell(ValueError):
    """The question has no answer; the message says why."""


@dataclass(frozen=True)
class End:
    """One end of the connection."""

    kind: Literal["pod", "node", "address"]
    name: str
    """`shop/web`, `node:node1`, an address."""
    addresses: tuple[str, ...]
    node: str = ""
    """Where it is; empty: outside."""
    endpoint: Endpoint | None = None
    host_network: bool = False
    service: Service | None = None
    """It is what this Service's address leads to."""
    notes: tuple[str, ...] = ()


class Asked(NamedTuple):
    """`TCP/80`, `TCP/http`, `ICMP`, `ICMP/8/0`, `47`."""

    text: str
    protocol: int
    port: int = 0
    port_name: str = ""
    icmp_type: int | None = None
    icmp_code: int | None = None


@dataclass
class Compiled:
    """What was read of the compiler's words; None: there is none."""

    attachments: dict[EndpointKey, Attachment | None] = field(default_factory=dict)
    hosts: dict[HostKey, HostAttachment | None] = field(default_factory=dict)
    world: Snapshot = field(default_factory=Snapshot)


# --- the question


def asked(text: str) -> Asked:
    """Raises CannotTell."""
    name, *rest = text.strip().split("/")
    protocol = int(name) if name.isdecimal() else NUMBERS.get(name.upper(), 0)
    if not 0 < protocol < 256 or len(rest) > (2 if protocol in (ICMP, ICMPV6) else 1):
        raise CannotTell(f"{text!r} is not PROTOCOL/PORT, such as TCP/80, UDP/53, TCP/http, ICMP, ICMP/8")
    if protocol in (ICMP, ICMPV6):
        if not all(part.isdecimal() and int(part) < 256 for part in rest):
            raise CannotTell(f"{text!r}: the type and code of ICMP are numbers from 0 to 255")
        numbers = [int(part) for part in rest]
        default = ECHO_REQUEST if protocol == ICMP else ECHO_REQUEST6
        return Asked(text, protocol, icmp_type=(numbers or [default])[0], icmp_code=(*numbers, 0, 0)[1])
    if protocol not in WITH_PORTS:
        if rest:
            raise CannotTell(f"{text!r}: this protocol has no ports")
        return Asked(text, protocol)
    if not rest:
        raise CannotTell(f"{text!r}: which port? For example {name.upper()}/80")
    if rest[0].isdecimal():
        if not 0 < int(rest[0]) < 65536:
            raise CannotTell(f"{text!r}: a port is a number from 1 to 65535")
        return Asked(text, protocol, port=int(rest[0]))
    return Asked(text, protocol, port_name=rest[0])


_POD = re.compile(r"([a-z0-9][a-z0-9.-]*)/([a-z0-9][a-z0-9.-]*)")


def find_end(core: Core, text: str) -> End:
    """Raises CannotTell."""
    if text.startswith("node:"):
        return _node(core, text.removeprefix("node:"))
    if named := _POD.fullmatch(text):
        return _pod(core, named[1], named[2])
    try:
        address = str(ip_address(text.removeprefix("ip:")))
    except ValueError:
        hint = f" Is it default/{text}?" if re.fullmatch(r"[a-z0-9-]+", text) else ""
        raise CannotTell(f"{text!r} is neither NAMESPACE/POD nor an address nor node:NAME.{hint}") from None
    return _address(core, address)


def find_service(core: Core, end: End, question: Asked) -> tuple[End, Asked]:
    """Where a destination that is a Service's address, or one of its node ports, leads: one of its endpoints, with the
    port there."""
    found, port = _service(core, end, question)
    if found is None:
        return end, question
    title = f"{found.metadata.namespace}/{found.metadata.name}"
    what = (
        f"{end.name} is the address" if end.kind == "address" else f"port {question.port} of {end.name} is a node port"
    )
    told = (
        f"{what} of Service {title}: nodes replace it by an endpoint's address before policies are asked, so nets that "
        "hold it never match"
    )
    inside = end.kind == "address" and end.addresses[0] in found.spec.cluster_ips
    if not inside and found.spec.external_traffic_policy == "Cluster":
        told += (
            "; an endpoint on another node than the one that is asked sees that node in place of who asks from outside"
        )
    family = "IPv6" if ":" in end.addresses[0] else "IPv4"
    for stored in core.resources(EndpointSlice, found.metadata.namespace):
        piece = stored.resource
        if not isinstance(piece, EndpointSlice) or piece.service != found.metadata.name:
            continue
        if piece.spec.address_type != family:
            continue
        for address in (address for endpoint in piece.spec.endpoints for address in endpoint.addresses):
            backend = _address(core, address)
            target = next((p.port for p in piece.spec.ports if port is not None and p.name == port.name), None)
            there = f"{backend.name} port {target}" if target else backend.name
            note = f"{told}; judged is one of its endpoints, {there}"
            changed = question._replace(port=target, port_name="") if target else question
            return replace(backend, service=found, notes=(*backend.notes, note)), changed
    return replace(end, service=found, notes=(*end.notes, f"{told}; it has no endpoints: ask for its pods instead")), (
        question
    )


def _node(core: Core, name: str) -> End:
    node = core.node(name)
    if node is None:
        raise CannotTell(f"there is no node {name!r}")
    return End("node", f"node:{name}", _addresses(node), name)


def _addresses(node: Node) -> tuple[str, ...]:
    return tuple(str(ip_interface(text).ip) for family in (4, 6) if (text := node.address(family)))


def _pod(core: Core, namespace: str, name: str) -> End:
    for endpoint in core.endpoints.values():
        if (endpoint.namespace, endpoint.name) == (namespace, name):
            return End("pod", f"{namespace}/{name}", endpoint.addresses, endpoint.node, endpoint)
    stored = core.resource(Pod, (namespace, name))
    if stored is None or not isinstance(stored.resource, Pod):
        raise CannotTell(f"there is no pod {namespace}/{name}")
    pod = stored.resource
    if not pod.spec.host_network:
        raise CannotTell(
            f"pod {namespace}/{name} is not on the network: no node has plugged it in, so nothing can be said of it yet"
        )
    node = core.node(pod.spec.node_name)
    addresses = _addresses(node) if node is not None else ()
    note = (
        f"{namespace}/{name} is in the network of its node ({pod.spec.node_name or 'unknown'}): no policy applies to "
        "it, no selector means it; what counts is the node's address"
    )
    return End(
        "node",
        f"{namespace}/{name}",
        addresses or pod.status.pod_ips,
        pod.spec.node_name,
        host_network=True,
        notes=(note,),
    )


def _address(core: Core, address: str) -> End:
    for endpoint in core.endpoints.values():
        if address in endpoint.addresses:
            name = f"{endpoint.namespace}/{endpoint.name}"
            note = f"{address} is pod {name}"
            return End("pod", name, (address,), endpoint.node, endpoint, notes=(note,))
    for node in core.nodes():
        if address in _addresses(node):
            name = node.metadata.name
            return End("node", f"node:{name}", (address,), name, notes=(f"{address} is node {name}",))
    return End("address", address, (address,))


def _service(core: Core, end: End, question: Asked) -> tuple[Service | None, ServicePort | None]:
    """The Service whose address an address is, or whose node port a port of a node."""
    for stored in core.resources(Service):
        service = stored.resource
        if not isinstance(service, Service):
            continue
        spec = service.spec
        ports = [p for p in spec.ports if NUMBERS.get(p.protocol) == question.protocol]
        if end.kind == "node" and not end.host_network:
            for port in ports:
                if port.node_port and port.node_port == question.port:
                    return service, port
        elif end.kind == "address" and end.addresses[0] in _own_addresses(core, service):
            named = (p for p in ports if p.port == question.port or (p.name and p.name == question.port_name))
            return service, next(named, None)
    return None, None


def _own_addresses(core: Core, service: Service) -> tuple[str, ...]:
    spec = service.spec
    given = core.addresses_of(service)
    balanced = (*(i.ip for i in service.status.load_balancer_ingress), *(given.addresses if given is not None else ()))
    return (*spec.cluster_ips, *spec.external_ips, *(balanced if spec.type == "LoadBalancer" else ()))


# --- what must be read


def wanted(core: Core, *ends: End) -> tuple[list[EndpointKey], list[HostKey]]:
    """The attachments and host attachments that decide."""
    plugged = [end.endpoint for end in ends if end.endpoint is not None]
    pods: list[EndpointKey] = [(endpoint.node, endpoint.namespace, endpoint.name) for endpoint in plugged]
    nodes = {end.node for end in ends if end.node}
    hosts = [
        (stored.resource.spec.node, stored.resource.metadata.name)
        for stored in core.resources(HostEndpoint)
        if isinstance(stored.resource, HostEndpoint) and stored.resource.spec.node in nodes
    ]
    return pods, hosts


# --- the answer


def explain(core: Core, source: End, destination: End, question: Asked, compiled: Compiled) -> Explanation:
    """Raises CannotTell when the two have no address family in common, or the named port is nobody's."""
    ours, theirs = _pair(source, destination, question)
    flow = _flow(ours, theirs, _numbered(core, destination, question))
    notes = [*source.notes, *destination.notes]
    local = source.node != "" and source.node == destination.node
    egress = ingress = None
    way = on_the_way(_hops(core, source, destination, compiled), flow, compiled.world)
    if source.endpoint is not None and destination.endpoint is source.endpoint:
        notes.append("a pod's packets to itself never leave it: no policy is asked")
    else:
        egress = _way(source, "egress", flow, compiled, local=local)
        if source.kind == "node" and local and destination.kind == "pod":
            notes.append(f"node {source.node} always reaches its own pods: the ingress policies are not asked")
        else:
            ingress = _way(destination, "ingress", flow, compiled, local=local)
    if source.kind == "node" and "egress" in way.settled:
        egress = None
    if destination.kind == "node" and "ingress" in way.settled:
        ingress = None
    if source.kind == "node" and destination.kind == "pod" and not local:
        notes.append("through a tunnel the source is the node's tunnel address: nets must hold that one, too")
    if not local and way.reports and source.node and destination.node and "pod" in (source.kind, destination.kind):
        notes.append("judged as if without a tunnel: through one, only the host endpoints of `*` see what is forwarded")
    action, because, staged = conclude(egress, *way.reports, ingress, otherwise="no policy governs either end")
    if action == "deny":
        notes.append("connections that were allowed when they began live on, unless the policy is told to cut them")
        if any(report is not None and report.endpoint.startswith(HOST) for report in (egress, *way.reports, ingress)):
            notes.append("failsafe ports of the node (FelixConfiguration) are open whatever its host endpoints say")
    return Explanation(
        source=source.name,
        destination=destination.name,
        traffic=question.text.upper() if not question.port_name else question.text,
        source_address=ours,
        destination_address=theirs,
        action=action,
        because=because,
        egress=egress,
        hosts=way.reports,
        ingress=ingress,
        preview_action=staged,
        notes=tuple(notes),
    )


def _pair(source: End, destination: End, question: Asked) -> tuple[str, str]:
    """An address of each end, of one family: that of the ICMP that is asked for, or else the first in common."""
    for ours in source.addresses:
        for theirs in destination.addresses:
            family = 6 if ":" in ours else 4
            if (":" in theirs) == (family == 6) and not (question.protocol == ICMPV6 and family == 4):
                return ours, theirs
    listed = f"{', '.join(source.addresses) or 'none'} and {', '.join(destination.addresses) or 'none'}"
    raise CannotTell(f"the two have no address of one family ({listed})")


def _numbered(core: Core, destination: End, question: Asked) -> Asked:
    """The question with the number of a named port, as the destination calls it."""
    if not question.port_name:
        return question
    names: Mapping[tuple[str, int], int] = {}
    if destination.endpoint is not None:
        key = (destination.endpoint.namespace, destination.endpoint.name)
        stored = core.resource(Pod, key)
        if stored is not None and isinstance(stored.resource, Pod):
            names = {(p.name, NUMBERS.get(p.protocol, 0)): p.container_port for p in stored.resource.ports}
        else:
            names = {(p.name, NUMBERS.get(p.protocol, 0)): p.port for p in destination.endpoint.ports}
    number = names.get((question.port_name, question.protocol))
    if number is None:
        known = ", ".join(sorted(name for name, _ in names if name)) or "none"
        raise CannotTell(f"{destination.name} has no port named {question.port_name!r} for it (it has {known})")
    return question._replace(port=number)


def _flow(source: str, destination: str, question: Asked) -> Flow:
    ours, theirs = ip_address(source), ip_address(destination)
    protocol, icmp_type = question.protocol, question.icmp_type
    if protocol == ICMP and ours.version == 6:
        protocol, icmp_type = ICMPV6, ECHO_REQUEST6 if icmp_type == ECHO_REQUEST else icmp_type
    source_port = SOURCE_PORT if protocol in WITH_PORTS else 0
    return Flow(ours.packed, theirs.packed, protocol, source_port, question.port, icmp_type, question.icmp_code)


def _way(end: End, way: Way, flow: Flow, compiled: Compiled, *, local: bool) -> WayReport | None:
    if end.endpoint is not None:
        return _pod_way(end.endpoint, way, flow, compiled)
    if end.kind == "node" and not local:
        return _host_way(end, way, flow, compiled)
    return None


def _pod_way(endpoint: Endpoint, way: Way, flow: Flow, compiled: Compiled) -> WayReport:
    name = f"{endpoint.namespace}/{endpoint.name}"
    attachment = compiled.attachments.get((endpoint.node, endpoint.namespace, endpoint.name))
    if attachment is None or attachment.container != endpoint.container:
        because = "nothing is compiled for it (yet), so its node drops everything"
        return WayReport(way=way, endpoint=name, action="deny", because=because, steps=())
    direction: Direction = getattr(attachment, way)
    return way_report(name, direction, way, flow, compiled.world)


def _host_way(end: End, way: Way, flow: Flow, compiled: Compiled) -> WayReport | None:
    """By the host endpoint of the uplink."""
    address = str(ip_address(flow.source if way == "egress" else flow.destination))
    host = governing(_hosts(end.node, compiled), [address], "uplink")
    if host is None:
        return None
    direction: Direction = getattr(host, way)
    return way_report(f"{HOST}{host.name}", direction, way, flow, compiled.world)


def _hosts(node: str, compiled: Compiled) -> list[HostAttachment]:
    return [host for (at, _), host in sorted(compiled.hosts.items()) if at == node and host is not None]


def _hops(core: Core, source: End, destination: End, compiled: Compiled) -> Iterator[Hop]:
    """The nodes that the connection passes; none where it stays in a pod, or goes from a node to its own pod."""
    inside: dict[str, Device] = {"pod": "pod", "node": "itself"}
    if source.endpoint is not None and destination.endpoint is source.endpoint:
        return
    if source.kind == "node" and source.node == destination.node:
        return
    for name in dict.fromkeys(filter(None, (source.node, destination.node))):
        node = core.node(name)
        addresses = _addresses(node) if node is not None else ()
        yield Hop(
            inside[source.kind] if name == source.node else "uplink",
            inside[destination.kind] if name == destination.node else "uplink",
            _hosts(name, compiled),
            addresses,
        )
