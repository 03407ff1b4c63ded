"""What on a machine is flannel's, and the steps that take it away. Pure.

flannel marks little. Its devices are told by name and kind, its chains by name, routes of its host-gw backend by lying
in the network of its `subnet.env` with a gateway, and the bridge `cni0`, whose name other plugins use as well, by
having the first address of the node's subnet in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network

from tortie.machine import iptables
from tortie.machine.plan import Kept, Plan, Step
from tortie.machine.state import Link, Machine

PROGRAM = "flanneld"
BRIDGE = "cni0"
ENV = "/run/flannel/subnet.env"
BINARIES = ("/opt/cni/bin/flannel",)
RUN = "/run/flannel"
FILES = (RUN, "/var/lib/cni/flannel", "/var/lib/cni/networks/cbr0", *BINARIES)
NETWORK = "cbr0"
"""The name that flannel's manifest gives its CNI network."""

_DEVICES = (
    (re.compile(r"flannel(-v6)?\.\d+"), "vxlan"),
    (re.compile(r"flannel\.ipip"), "ipip"),
    (re.compile(r"flannel-wg(-v6)?"), "wireguard"),
)
WHILE_PODS = "runtimes need it to stop the pods that run here"
_NFT = (("ip", "flannel-ipv4"), ("ip6", "flannel-ipv6"))
_CHAIN = re.compile(r"FLANNEL-[A-Z0-9-]+")


def plan(machine: Machine, *, pods: bool) -> Plan:
    """`pods`: the pods on its bridge lose their links now; otherwise they keep them until they are started again."""
    ports = [link for link in machine.links if link.master == BRIDGE]
    bridge = machine.link(BRIDGE)
    known = bridge is not None and bridge.kind == "bridge" and _is_subnets(machine, bridge)
    stay = bool(ports) and known and not pods
    steps: list[Step] = []
    kept: list[Kept] = []
    steps += [Step("CNI configuration", path, way="move") for path, types, _ in machine.networks if "flannel" in types]
    steps += iptables.removal(machine.iptables, chain=lambda name: bool(_CHAIN.fullmatch(name)), comment=_is_comment)
    steps += [
        Step("nftables table", f"{table.family} {table.name}", ("nft", "delete", "table", table.family, table.name))
        for table in machine.nft_tables
        if (table.family, table.name) in _NFT
    ]
    steps += _host_gateway_routes(machine)
    for link in machine.links:
        kind = next((kind for name, kind in _DEVICES if name.fullmatch(link.name)), "")
        if kind == link.kind and kind:
            steps.append(Step("device", link.name, ("ip", "link", "del", link.name)))
        elif kind:
            kept.append(Kept("device", link.name, f"it is of kind {link.kind or 'hardware'}: flannel's is a {kind}"))
    if stay:
        kept.append(Kept("device", BRIDGE, f"{len(ports)} pods are on it; start them again, or say --pods"))
    elif known and bridge is not None:
        steps += [Step("link", port.name, ("ip", "link", "del", port.name)) for port in ports]
        steps.append(Step("device", BRIDGE, ("ip", "link", "del", BRIDGE)))
    elif bridge is not None:
        kept.append(
            Kept("device", BRIDGE, f"its address is not that of the node's subnet in {ENV}: it may be another's")
        )
    for path in FILES:
        if path not in machine.files:
            continue
        if stay:
            kept.append(Kept("file", path, WHILE_PODS if path != RUN else f"by it {BRIDGE} is known for flannel's"))
        else:
            steps.append(Step("file", path, way="move"))
    restart = sorted(_pod(machine, port) for port in ports) if known else []
    return Plan(tuple(steps), tuple(kept), tuple(restart))


def _networks(machine: Machine, *names: str) -> Iterator[str]:
    env = dict(machine.subnet_env)
    for name in names:
        yield from filter(None, (text.strip() for text in env.get(name, "").split(",")))


def _is_subnets(machine: Machine, bridge: Link) -> bool:
    held = {ip_interface(address) for address in bridge.addresses}
    return any(ip_interface(text) in held for text in _networks(machine, "FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"))


def _host_gateway_routes(machine: Machine) -> Iterator[Step]:
    """One a node; over the uplink, so no device of flannel's tells them. flannel has the kernel's default protocol."""
    networks = [ip_network(text) for text in _networks(machine, "FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK")]
    for route in machine.routes:
        inside = any(
            route.family == net.version
            and ip_address(route.network.network_address) in net
            and route.network.prefixlen > net.prefixlen
            for net in networks
        )
        goes_with_device = any(name.fullmatch(route.device) for name, _ in _DEVICES)
        plain = bool(route.gateway) and route.table == "main" and route.protocol in ("boot", "unspec", "")
        if inside and plain and not goes_with_device:
            yield Step("route", route.destination, route.removal)


def _is_comment(text: str) -> bool:
    return text in ("flanneld masq", "flanneld forward")


def _pod(machine: Machine, port: Link) -> str:
    return next((pod.name for pod in machine.pods if port.name in pod.links), f"the pod behind {port.name}")
