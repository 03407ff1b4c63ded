"""Flannel's layout, made as flannel and the CNI plugins `bridge` and `host-local` make it, with plain `ip` commands:
what agents find that have only policy (`network: flannel` in a scenario).

    pod  eth0  10.244.1.2/24, default via 10.244.1.1
          |
    veth1a2b3c4d --- cni0  10.244.1.1/24            a bridge; pods of one node are switched
                      |
    node           flannel.1  10.244.1.0/32         vxlan, VNI 1, port 8472, learns nothing
                      10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink       for every other node:
                      10.244.2.0 lladdr <its MAC> permanent                   a route, a neighbour,
                      <its MAC> dst <its address on the uplink> permanent     a forwarding entry

Nodes with an IPv6 address have the same over IPv6, by the device `flannel-v6.1`. The n-th node has the n-th /24 of
10.244.0.0/16 (and /64 of fd00:10:244::/48), as Kubernetes' controller gives them out. The scripts are pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from tortie import netns
from tortie.lab import fabric
from tortie.lab.errors import CannotDo
from tortie.lab.topology import UPLINK

BRIDGE = "cni0"
TUNNELS = {4: "flannel.1", 6: "flannel-v6.1"}
CLUSTER: dict[int, IPv4Network | IPv6Network] = {
    4: ip_network("10.244.0.0/16"),
    6: ip_network("fd00:10:244::/48"),
}
_SUBNET = {4: 24, 6: 64}
_PORT, _VNI, _MTU = 8472, 1, 1450
_DETECTION = "net/ipv6/conf/default/accept_dad"
"""Off, so that a second is not spent on finding out that nobody else has a new device's own address."""
_FIRST = 2
"""Of a subnet's addresses: 0 is the tunnel's, 1 the bridge's."""

Subnet = IPv4Network | IPv6Network


class Flannel:
    def __init__(self, nodes: Mapping[str, Sequence[str]]) -> None:
        """`nodes`: their addresses on the uplink, with prefix length."""
        self._uplinks = {node: dict(_by_family(own)) for node, own in nodes.items()}
        self.subnets: dict[str, tuple[Subnet, ...]] = {
            node: tuple(_nth(family, number) for family in sorted(uplinks))
            for number, (node, uplinks) in enumerate(self._uplinks.items())
        }
        self._next = dict.fromkeys(nodes, _FIRST)
        self._given: dict[str, tuple[str, ...]] = {}
        """Addresses by the pod's namespace."""

    # --- nodes

    def interior(self, node: str) -> str:
        """Everything of flannel's inside a node, for `ip -batch`."""
        lines = [f"link add {BRIDGE} address {_mac(node, BRIDGE)} type bridge", f"link set {BRIDGE} mtu {_MTU} up"]
        for subnet in self.subnets[node]:
            family, nodad = subnet.version, " nodad" if subnet.version == 6 else ""
            tunnel, local = TUNNELS[family], self._uplinks[node][family]
            lines += [
                f"addr add {subnet[1]}/{subnet.prefixlen} dev {BRIDGE}{nodad}",
                f"link add {tunnel} mtu {_MTU} address {_mac(node, tunnel)} type vxlan id {_VNI} local {local} "
                f"dev {UPLINK} dstport {_PORT} nolearning",
                f"addr add {subnet[0]}/{subnet.max_prefixlen} dev {tunnel}{nodad}",
                f"link set {tunnel} up",
            ]
            for other, there in self._others(node, family):
                lines += [
                    f"neigh add {there[0]} lladdr {_mac(other, tunnel)} dev {tunnel} nud permanent",
                    f"route add {there} via {there[0]} dev {tunnel} onlink",
                ]
        return "\n".join(lines) + "\n"

    def forwarding(self, node: str) -> str:
        """For `bridge -batch`."""
        lines = []
        for family in sorted(self._uplinks[node]):
            tunnel = TUNNELS[family]
            lines += [
                f"fdb add {_mac(other, tunnel)} dev {tunnel} dst {self._uplinks[other][family]} self permanent\n"
                for other, _ in self._others(node, family)
            ]
        return "".join(lines)

    def _others(self, node: str, family: int) -> Iterator[tuple[str, Subnet]]:
        for other, subnets in self.subnets.items():
            if other != node:
                yield from ((other, subnet) for subnet in subnets if subnet.version == family)

    async def build(self, node: str, namespace: str) -> None:
        """Raises CannotDo."""
        for path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            netns.write_sysctl(namespace, path, "1")
        netns.write_sysctl(namespace, _DETECTION, "0")
        await fabric.run("ip", "-n", namespace, "-batch", "-", stdin=self.interior(node))
        if entries := self.forwarding(node):
            await fabric.run("bridge", "-n", namespace, "-batch", "-", stdin=entries)

    # --- pods

    def give(self, node: str, pod: str, asked: Sequence[str] = ()) -> tuple[str, ...]:
        """The pod's addresses, as `host-local` gives them: the next ones; or those that the scenario asks for. Raises
        CannotDo."""
        if asked:
            self._check(node, asked)
            given = tuple(str(ip_address(text)) for text in asked)
        else:
            number, self._next[node] = self._next[node], self._next[node] + 1
            given = tuple(str(subnet[number]) for subnet in self.subnets[node])
        self._given[pod] = given
        return given

    def _check(self, node: str, asked: Sequence[str]) -> None:
        taken = {address: pod for pod, own in self._given.items() for address in own}
        for text in asked:
            address = ip_address(text)
            if not any(address.version == net.version and address in net for net in self.subnets[node]):
                raise CannotDo(f"{text} is not in {' or '.join(map(str, self.subnets[node]))} of {node}")
            if str(address) in taken:
                raise CannotDo(f"{text} is the address of another pod")

    async def plug_in(
        self, node: str, node_namespace: str, pod: str, asked: Sequence[str] = ()
    ) -> tuple[str, tuple[str, ...]]:
        """What the plugin `bridge` does on ADD for the pod in this namespace: the link's name, and the addresses.
        Raises CannotDo."""
        addresses = self.give(node, pod, asked)
        netns.write_sysctl(pod, _DETECTION, "0")
        link = link_name(pod)
        await fabric.run("ip", "-batch", "-", stdin=born(link, node_namespace, pod))
        await fabric.run("ip", "-n", node_namespace, "-batch", "-", stdin=port(link))
        await fabric.run("ip", "-n", pod, "-batch", "-", stdin=self.inside(node, addresses))
        return link, addresses

    async def unplug(self, node_namespace: str, pod: str) -> None:
        """CNI DEL: the link goes with its far end. Raises CannotDo."""
        await fabric.run("ip", "-n", node_namespace, "link", "del", link_name(pod))
        self._given.pop(pod, None)

    def inside(self, node: str, addresses: Sequence[str]) -> str:
        lines = ["link set eth0 up"]
        for text in addresses:
            address = ip_address(text)
            subnet = next(net for net in self.subnets[node] if net.version == address.version)
            nodad = " nodad" if address.version == 6 else ""
            lines.append(f"addr add {text}/{subnet.prefixlen} dev eth0{nodad}")
            lines.append(f"route add default via {subnet[1]} dev eth0")
        return "\n".join(lines) + "\n"


def link_name(pod: str) -> str:
    """As the plugin does it, eight hex digits; here not random ones."""
    return "veth" + sha256(pod.encode()).hexdigest()[:8]


def born(link: str, node_namespace: str, pod: str) -> str:
    """The pair is made in the pod, and its other end moved to the node."""
    return f"link add eth0 netns {pod} mtu {_MTU} type veth peer name {link} netns {node_namespace}\n"


def port(link: str) -> str:
    """With hairpin, as flannel's configuration asks for it."""
    lines = (f"mtu {_MTU} up", f"master {BRIDGE}", "type bridge_slave hairpin on")
    return "".join(f"link set {link} {words}\n" for words in lines)


def _by_family(addresses: Sequence[str]) -> Iterator[tuple[int, str]]:
    for text in addresses:
        interface = ip_interface(text)
        yield interface.version, str(interface.ip)


def _nth(family: int, number: int) -> Subnet:
    cluster, length = CLUSTER[family], _SUBNET[family]
    first = int(cluster.network_address) + (number << (cluster.max_prefixlen - length))
    return IPv4Network((first, length)) if family == 4 else IPv6Network((first, length))


def _mac(node: str, device: str) -> str:
    return (b"\2" + sha256(f"{node} {device}".encode()).digest()[:5]).hex(":")
