"""From a scenario's nodes to namespaces, cables, addresses and routes. Pure: `fabric` makes it real.

            control (bus, services)    outside 203.0.113.7
                     |                        |
                 198.18.0.0/24          203.0.113.0/24
                     +-------- router --------+
                     |                        |
              bridge 10.0.0.0/24       bridge 10.0.9.0/24       one bridge a subnet
               |             |                |
             node1         node2            far1                each by its eth0, default route by the router

The router knows the subnets and nothing of pods: a packet from a pod's own address that reaches the outside is never
answered. That is what makes natOutgoing visible.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from tortie.lab.errors import ScenarioFault

UPLINK = "eth0"
OUTSIDE_ADDRESS = "203.0.113.7"
CONTROL_ADDRESS = "198.18.0.2"
_OUTSIDE_NET = ipaddress.ip_interface("203.0.113.1/24")
_CONTROL_NET = ipaddress.ip_interface("198.18.0.1/24")
_LAB_NAME = re.compile(r"[a-z0-9]{1,16}")

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Device:
    """One interface of a host. `bridge`: it is one; `master`: the bridge that it is a port of."""

    name: str
    addresses: tuple[str, ...] = ()
    """With prefix length; at most one of each family."""
    bridge: bool = False
    master: str = ""


@dataclass(frozen=True)
class Host:
    name: str
    netns: str
    devices: tuple[Device, ...]
    gateways: tuple[str, ...] = ()
    """Next hops of the default routes, one of each family."""
    forwards: bool = False


@dataclass(frozen=True)
class Cable:
    """A veth pair: (namespace, device) at each end."""

    left: tuple[str, str]
    right: tuple[str, str]


@dataclass(frozen=True)
class Topology:
    lab: str
    router: Host
    control: Host
    outside: Host
    nodes: Mapping[str, Host]
    cables: tuple[Cable, ...]

    @property
    def hosts(self) -> tuple[Host, ...]:
        return (self.router, self.control, self.outside, *self.nodes.values())


def prefix(lab: str) -> str:
    """What the names of all of a lab's namespaces begin with. A lab's name has no hyphen, so no lab's prefix is
    the prefix of another's."""
    if not _LAB_NAME.fullmatch(lab):
        raise ScenarioFault(f"a lab's name is up to 16 of a-z and 0-9, not {lab!r}")
    return f"tl-{lab}-"


def node_netns(lab: str, node: str) -> str:
    return f"{prefix(lab)}{node}"


def pod_netns(lab: str, namespace: str, pod: str) -> str:
    """A node's name cannot contain a slash and neither can a file's, so a pod's parts are joined by `..`, which no
    Kubernetes name contains."""
    return f"{prefix(lab)}{namespace}..{pod}"


def plan(lab: str, addresses: Mapping[str, Sequence[str]]) -> Topology:
    """The topology for nodes with these fabric addresses (`10.0.0.15/24`), one or one of each family. Nodes that share
    all their subnets share a bridge. Raises ScenarioFault."""
    interfaces = {node: _interfaces(node, texts) for node, texts in addresses.items()}
    _refuse_doubles(interfaces)
    segments = list(dict.fromkeys(_segment(own) for own in interfaces.values()))
    _refuse_overlaps([subnet for segment in segments for subnet in segment])
    taken = {interface.ip for own in interfaces.values() for interface in own}
    gateways = {segment: [_gateway(subnet, taken) for subnet in segment] for segment in segments}

    # two hyphens: no node's name begins with one, so none can be called like these
    router_ns = f"{prefix(lab)}-router"
    control_ns = f"{prefix(lab)}-control"
    outside_ns = f"{prefix(lab)}-outside"
    router_devices = [
        Device("control", (str(_CONTROL_NET),)),
        Device("outside", (str(_OUTSIDE_NET),)),
        *(
            Device(
                f"subnet{i}",
                tuple(f"{ip}/{net.prefixlen}" for ip, net in zip(gateways[segment], segment, strict=True)),
                bridge=True,
            )
            for i, segment in enumerate(segments)
        ),
    ]
    cables = [
        Cable((control_ns, UPLINK), (router_ns, "control")),
        Cable((outside_ns, UPLINK), (router_ns, "outside")),
    ]
    nodes: dict[str, Host] = {}
    for i, (node, own) in enumerate(interfaces.items()):
        netns = node_netns(lab, node)
        segment = _segment(own)
        nodes[node] = Host(node, netns, (Device(UPLINK, tuple(map(str, own))),), tuple(map(str, gateways[segment])))
        router_devices.append(Device(f"node{i}", master=f"subnet{segments.index(segment)}"))
        cables.append(Cable((netns, UPLINK), (router_ns, f"node{i}")))
    return Topology(
        lab=lab,
        router=Host("router", router_ns, tuple(router_devices), forwards=True),
        control=Host(
            "control",
            control_ns,
            (Device(UPLINK, (f"{CONTROL_ADDRESS}/{_CONTROL_NET.network.prefixlen}",)),),
            (str(_CONTROL_NET.ip),),
        ),
        outside=Host(
            "outside",
            outside_ns,
            (Device(UPLINK, (f"{OUTSIDE_ADDRESS}/{_OUTSIDE_NET.network.prefixlen}",)),),
            (str(_OUTSIDE_NET.ip),),
        ),
        nodes=nodes,
        cables=tuple(cables),
    )


def _interfaces(node: str, texts: Sequence[str]) -> tuple[Interface, ...]:
    own = tuple(_interface(node, text) for text in texts)
    if len({interface.version for interface in own}) != len(own) or not own:
        raise ScenarioFault(f"nodes.{node}: one address, or one of each family, not {', '.join(texts) or 'none'}")
    return own


def _segment(own: Iterable[Interface]) -> tuple[Network, ...]:
    return tuple(interface.network for interface in own)


def _interface(node: str, text: str) -> Interface:
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError as error:
        raise ScenarioFault(f"nodes.{node}.address: {error}") from error
    if interface.network.num_addresses < 4:
        raise ScenarioFault(f"nodes.{node}.address: {text} leaves no room for a router in its subnet")
    return interface


def _refuse_doubles(interfaces: Mapping[str, tuple[Interface, ...]]) -> None:
    owner: dict[Address, str] = {}
    for node, own in interfaces.items():
        for interface in own:
            other = owner.setdefault(interface.ip, node)
            if other != node:
                raise ScenarioFault(f"nodes.{node}.address: {interface.ip} is already {other}'s")


def _refuse_overlaps(subnets: list[Network]) -> None:
    known: list[Network] = [_CONTROL_NET.network, _OUTSIDE_NET.network]
    for subnet in subnets:
        for other in known:
            if subnet.version == other.version and subnet.overlaps(other):
                raise ScenarioFault(f"the subnet {subnet} overlaps {other}")
        known.append(subnet)


def _gateway(subnet: Network, taken: Set[Address]) -> Address:
    """The subnet's first address that no node has."""
    for address in subnet.hosts():
        if address not in taken:
            return address
    raise ScenarioFault(f"the subnet {subnet} has no address left for its router")
