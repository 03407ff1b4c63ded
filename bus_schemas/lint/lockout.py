"""Host endpoints that shut out what their node lives by. Pure.

    Landscape --> of each node the host endpoint of its way in --> each Need that nobody can meet any more --> Finding

What people need to come back (ssh), what the node needs to take up other policies (the bus, DHCP and DNS), and what
makes it a node of Kubernetes. A need counts as shut out when it is denied to everybody; one between nodes when it is
denied to all of their addresses. Failsafe ports are open; the tunnel between known nodes is opened by agents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal, NamedTuple

from bus_schemas import failsafe
from bus_schemas.failsafe import Failsafe
from bus_schemas.lint.findings import Finding, warning
from bus_schemas.lint.host_policy import Closed, Door, Way, closed, governs
from bus_schemas.lint.landscape import Landscape
from bus_schemas.protocols import TCP, UDP
from bus_schemas.resources import (
    FelixConfiguration,
    GlobalNetworkPolicy,
    HostEndpoint,
    Node,
    Profile,
    Resource,
    Tier,
)
from bus_schemas.resources.configuration import ProtoPort
from bus_schemas.verdict_words import protocol as protocol_name

CODE = "locked-out"
BUS = 4222
"""Where a bus listens whose URL says nothing else."""
Far = Literal["anybody", "nodes"]
Role = Literal["any", "kubernetes", "control plane"]


class Need(NamedTuple):
    what: str
    way: Way
    protocol: int
    port: int
    far: Far = "anybody"
    role: Role = "any"


NEEDS = (
    Need("ssh", "ingress", TCP, 22),
    Need("the kubelet", "ingress", TCP, 10250, "nodes", "kubernetes"),
    Need("the Kubernetes API", "ingress", TCP, 6443, role="control plane"),
    Need("etcd", "ingress", TCP, 2379, "nodes", "control plane"),
    Need("etcd's peers", "ingress", TCP, 2380, "nodes", "control plane"),
    Need("DHCP's answers", "ingress", UDP, 68),
    Need("the bus", "egress", TCP, BUS),
    Need("the Kubernetes API", "egress", TCP, 6443, role="kubernetes"),
    Need("etcd", "egress", TCP, 2379, "nodes", "control plane"),
    Need("etcd's peers", "egress", TCP, 2380, "nodes", "control plane"),
    Need("DNS", "egress", UDP, 53),
    Need("DHCP", "egress", UDP, 67),
)
BGP = (Need("BGP", "ingress", TCP, 179), Need("BGP", "egress", TCP, 179))
"""Where it is spoken."""

_KUBELET_SAYS = ("kubernetes.io/os", "beta.kubernetes.io/os")
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
MATTERS = (HostEndpoint, GlobalNetworkPolicy, Tier, Profile, FelixConfiguration)


def lockouts(given: Sequence[Resource], landscape: Landscape) -> Iterator[Finding]:
    """That the `given` resources, which are part of the landscape, have a part in."""
    concerned = [resource for resource in given if isinstance(resource, MATTERS)]
    if not concerned:
        return
    by_node: dict[str, list[HostEndpoint]] = {}
    for host in landscape.hosts:
        by_node.setdefault(host.spec.node, []).append(host)
    for name, hosts in sorted(by_node.items()):
        node = next((node for node in landscape.all(Node) if node.metadata.name == name), None)
        for host in _ways_in(node, hosts):
            guilty = _guilty(concerned, host, landscape)
            if guilty is not None and _can_be_said(host, landscape):
                yield from _findings(guilty, host, node, landscape)


def _findings(guilty: Resource, host: HostEndpoint, node: Node | None, landscape: Landscape) -> Iterator[Finding]:
    shut: dict[tuple[Way, Closed], list[Need]] = {}
    for need in _needs(node, landscape):
        found = _shut(need, host, node, landscape)
        if found is not None:
            shut.setdefault((need.way, found), []).append(need)
    for (way, by), needs in shut.items():
        listed = ", ".join(f"{need.what} ({protocol_name(need.protocol)}/{need.port})" for need in needs)
        subject, name = host.display if guilty is not host else "it", host.spec.node
        does = f"shuts {listed} out of node {name}" if way == "ingress" else f"keeps node {name} from {listed}"
        says = f"{subject} {does}: {by.by}"
        yield warning(CODE, guilty, "spec", says, _advice(way, by, needs))


def _advice(way: Way, by: Closed, needs: Sequence[Need]) -> str:
    first = needs[0]
    rule = f"{{action: Allow, protocol: {protocol_name(first.protocol)}, destination: {{ports: [{first.port}]}}}}"
    where = f"a policy of tier {by.tier}, before it" if by.tier else "a policy for it"
    field = "failsafeInboundHostPorts" if way == "ingress" else "failsafeOutboundHostPorts"
    more = "" if len(needs) == 1 else " and so on"
    return f"allow it by {way} rules such as {rule}{more} in {where}, or list it in {field} of FelixConfiguration"


# --- who


def _ways_in(node: Node | None, hosts: Sequence[HostEndpoint]) -> Sequence[HostEndpoint]:
    """The host endpoint of the device by which the node is reached, as far as it can be told: that with its address,
    or the only one with a name, or that of all devices."""
    known = {str(address) for address in _addresses(node)}
    addressed = [host for host in hosts if known & set(host.spec.expected_ips)]
    named = [host for host in hosts if host.spec.interface_name != "*" and not (known and host.spec.expected_ips)]
    if addressed:
        return addressed[:1]
    return named if len(named) == 1 else [host for host in hosts if host.spec.interface_name == "*" and not named][:1]


def _guilty(concerned: Iterable[Resource], host: HostEndpoint, landscape: Landscape) -> Resource | None:
    """What the finding is about: of what is given, the host endpoint, or else a policy for it, or else the rest."""
    found = [resource for resource in concerned if _has_a_part(resource, host, landscape)]
    return min(found, key=lambda resource: MATTERS.index(type(resource)), default=None)


def _has_a_part(resource: Resource, host: HostEndpoint, landscape: Landscape) -> bool:
    match resource:
        case HostEndpoint():
            return resource.key == host.key
        case GlobalNetworkPolicy():
            return governs(resource, host, landscape)
        case Profile():
            return resource.metadata.name in host.spec.profiles
        case Tier():
            policies = landscape.all(GlobalNetworkPolicy)
            return any(p.spec.tier == resource.metadata.name and governs(p, host, landscape) for p in policies)
        case FelixConfiguration():
            return resource.metadata.name in ("default", f"node.{host.spec.node}")
    return False


def _can_be_said(host: HostEndpoint, landscape: Landscape) -> bool:
    """Without the cluster, a host endpoint that nothing speaks of in the same files may have its policies there."""
    if landscape.cluster:
        return True
    return any(governs(policy, host, landscape) for policy in landscape.all(GlobalNetworkPolicy))


# --- what


def _needs(node: Node | None, landscape: Landscape) -> Iterator[Need]:
    labels = node.metadata.labels if node is not None else {}
    control_plane = any(label in labels for label in _CONTROL_PLANE)
    roles: set[Role] = {"any"}
    if control_plane or any(label in labels for label in _KUBELET_SAYS):
        roles.add("kubernetes")
    if control_plane:
        roles.add("control plane")
    yield from (need for need in NEEDS if need.role in roles)
    if landscape.speaks_bgp:
        yield from BGP


def _shut(need: Need, host: HostEndpoint, node: Node | None, landscape: Landscape) -> Closed | None:
    others = [address for other in landscape.all(Node) if other != node for address in _addresses(other)]
    open_ = list(_failsafe(need.way, host.spec.node, landscape))
    families = frozenset(address.version for address in _addresses(node)) or frozenset({4, 6})
    doors = [Door(need.way, need.protocol, need.port, families=families)]
    if need.far == "nodes" and others:
        doors = [door._replace(far=address) for door in doors for address in others if address.version in families]
    found: Closed | None = None
    for door in doors:
        if any(_opens(port, door) for port in open_):
            return None
        found = closed(host, door, landscape)
        if found is None:
            return None
    return found


def _opens(port: Failsafe, door: Door) -> bool:
    if (port.protocol, port.port) != (door.protocol, door.port):
        return False
    if not port.net or door.far is None:
        return True  # to somebody, at least
    net = ip_network(port.net, strict=False)
    return net.version == door.far.version and door.far in net


def _failsafe(way: Way, node: str, landscape: Landscape) -> Iterator[Failsafe]:
    field = "failsafe_inbound_host_ports" if way == "ingress" else "failsafe_outbound_host_ports"
    by_name = {felix.metadata.name: felix.spec for felix in landscape.all(FelixConfiguration)}
    for name in (f"node.{node}", "default"):
        listed: tuple[ProtoPort, ...] | None = getattr(by_name[name], field) if name in by_name else None
        if listed is not None:
            yield from (
                Failsafe(failsafe.PROTOCOLS[entry.protocol.lower()], entry.port, entry.net)
                for entry in listed
                if entry.protocol.lower() in failsafe.PROTOCOLS
            )
            return
    yield from failsafe.INBOUND if way == "ingress" else failsafe.OUTBOUND
    yield Failsafe(TCP, BUS)  # which the agent adds, by the port that it knows


def _addresses(node: Node | None) -> list[IPv4Address | IPv6Address]:
    if node is None:
        return []
    return [ip_address(text.partition("/")[0]) for family in (4, 6) if (text := node.address(family))]
