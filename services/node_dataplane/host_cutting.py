"""Which connections of the node, and through it, its host endpoints do not allow any more. Pure.

    to the node       before NAT (of what was asked for), then normal policy       of the device by which it comes
    from the node     normal policy                                                of the device by which it leaves
    forwarded         before NAT, forwarded ingress; forwarded egress              of the one, and of the other

These are the stages of `nft.host`, in its order and with its exceptions: failsafe ports and the tunnel between nodes
are never cut, nor is what stays on the node, nor what its own pods say to it. What doNotTrack policies allow is no
connection. The kernel does not remember devices: that of a far end is the one by which the node would answer it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from bus_schemas.failsafe import Failsafe
from bus_schemas.ids import RulesId
from bus_schemas.policy import HostAttachment, Rule
from bus_schemas.protocols import UDP
from bus_schemas.verdicts import Flow, World, decide
from services.node_dataplane import ipip
from services.node_dataplane.cutting import Changed, Cut, flow_of, governing
from services.node_dataplane.netlink.conntrack import Tracked
from services.node_dataplane.nft.frame import NodeRules
from services.node_dataplane.nft.governed import LOOPBACK, Governed
from services.node_dataplane.nft.host import STAGES, Stage, StageName

_STAGES: Mapping[StageName, Stage] = {stage.name: stage for stage in STAGES}


class ConcernedHost(NamedTuple):
    """A host endpoint whose connections are to be looked at."""

    name: str
    attachment: HostAttachment
    policies: frozenset[RulesId]
    """Those that changed for it."""

    @property
    def title(self) -> str:
        return f"HostEndpoint/{self.name}"


class Around(NamedTuple):
    """Where addresses are."""

    own: Set[bytes]
    """The node's."""
    pods: Set[bytes]
    """Its pods'."""
    devices: Mapping[bytes, str]
    """By which the others are reached, where that makes a difference."""


def concerned(changed: Changed, hosts: Mapping[str, HostAttachment], governed: Governed) -> dict[str, ConcernedHost]:
    """Those that the changes reach, of those that govern a device."""
    found = {}
    for name in {*governed.by_device.values(), *filter(None, (governed.others,))}:
        policies = governing(hosts[name]) & changed.policies
        if policies or name in changed.hosts:
            found[name] = ConcernedHost(name, hosts[name], frozenset(policies | changed.hosts.get(name, set())))
    return found


def is_whole(attachment: HostAttachment, world: World) -> bool:
    """Whether all that it names is known: otherwise it would seem to deny everything."""
    for id_ in governing(attachment):
        rules = world.rules(id_)
        if rules is None or not all(_known(rule, world) for rule in (*rules.ingress, *rules.egress)):
            return False
    return True


def _known(rule: Rule, world: World) -> bool:
    return all(
        world.in_group(group, b"") is not None
        for end in (rule.source, rule.destination)
        for group in (*end.groups, *end.not_groups, *end.named_ports, *end.not_named_ports)
    )


def not_allowed(
    connections: Iterable[Tracked],
    hosts: Mapping[str, ConcernedHost],
    governed: Governed,
    node: NodeRules,
    around: Around,
    world: World,
) -> Iterator[Cut]:
    """Those that could not be made now, for one of the `hosts`."""
    judge = _Judge(hosts, governed, node, around, world)
    for connection in connections:
        cut = judge.cut(connection)
        if cut is not None:
            yield cut


class _Judge:
    def __init__(
        self,
        hosts: Mapping[str, ConcernedHost],
        governed: Governed,
        node: NodeRules,
        around: Around,
        world: World,
    ) -> None:
        self._hosts, self._governed, self._node, self._around, self._world = hosts, governed, node, around, world
        self._peers = frozenset(ip_address(address).packed for address in node.nodes)

    def cut(self, connection: Tracked) -> Cut | None:
        flow = flow_of(connection)
        asked = flow._replace(destination=connection.asked or flow.destination, port=connection.asked_port or flow.port)
        from_node, to_node = (address in self._around.own for address in (flow.source, flow.destination))
        if from_node and to_node:
            return None
        if from_node:
            return self._denied(connection, "out", flow.destination, flow)
        settled = False
        host = self._host(flow.source, "prednat")
        if host is not None and not self._is_open(self._node.failsafe_inbound, asked, asked.source):
            direction = _STAGES["prednat"].direction(host.attachment)
            if direction is not None:
                verdict = decide(direction, "ingress", asked, self._world)
                if verdict.action == "deny":
                    return Cut(connection, host, "ingress")
                settled = verdict.decision.kind == "policy"
        if to_node:
            return None if settled else self._denied(connection, "in", flow.source, flow)
        entering = None if settled else self._denied(connection, "forward_in", flow.source, flow)
        return entering or self._denied(connection, "forward_out", flow.destination, flow)

    def _denied(self, connection: Tracked, stage: StageName, far: bytes, flow: Flow) -> Cut | None:
        host, way = self._host(far, stage), _STAGES[stage].way
        direction = None if host is None else _STAGES[stage].direction(host.attachment)
        if host is None or direction is None:
            return None
        ports = {"in": self._node.failsafe_inbound, "out": self._node.failsafe_outbound}.get(stage)
        if ports is not None and self._is_open(ports, flow, far):
            return None
        return Cut(connection, host, way) if decide(direction, way, flow, self._world).action == "deny" else None

    def _host(self, far: bytes, stage: StageName) -> ConcernedHost | None:
        """Of the device towards the address; None: none is, or none that is concerned."""
        if far in self._around.pods:
            name = self._governed.others if _STAGES[stage].pods else None
        else:
            device = self._around.devices.get(far, "")
            name = None if device == LOOPBACK else self._governed.by_device.get(device, self._governed.others)
        return self._hosts.get(name) if name is not None else None

    def _is_tunnel(self, flow: Flow) -> bool:
        node = self._node
        if flow.protocol == UDP:
            return flow.port in (node.vxlan_port, *node.wireguard_ports)
        return node.ipip and flow.protocol == ipip.PROTOCOL

    def _is_open(self, ports: Iterable[Failsafe], flow: Flow, far: bytes) -> bool:
        if far in self._peers and self._is_tunnel(flow):
            return True
        return any(
            (port.protocol, port.port) == (flow.protocol, flow.port)
            and (not port.net or ip_address(far) in ip_network(port.net, strict=False))
            for port in ports
        )
