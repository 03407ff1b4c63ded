"""What on a machine is Calico's, and the steps that take it away. Pure.

Felix marks nearly all that it makes: devices and links by name, chains and sets by prefix, rules by a comment, nftables
tables by name. Routes of protocol 80 (Felix) and bird (its BIRD) are its own where they lead over a device of Calico's,
or lie in a pool, which its sets of pools name; another routing daemon of the machine may use the same protocols.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from services.node_dataplane.ipip import DEVICE as TUNL
from services.node_dataplane.ipip_device import ALIAS, KERNELS_MTU
from tortie.machine import iptables
from tortie.machine.plan import Kept, Plan, Step
from tortie.machine.state import Link, Machine, Route

PROGRAM = "calico-node"
BINARIES = ("/opt/cni/bin/calico", "/opt/cni/bin/calico-ipam")
NETS = "/etc/cni/net.d"
NOTES = ("/var/lib/cni/networks/k8s-pod-network",)
FILES = (f"{NETS}/calico-kubeconfig", f"{NETS}/calico-tls", *NOTES, "/var/lib/calico", "/run/calico", *BINARIES)
NETWORK = "k8s-pod-network"
BPF = "/sys/fs/bpf/calico"
FELIX, BIRD = 80, 12
PROTOCOLS = (FELIX, BIRD)

_POD_LINK = re.compile(r"cali[0-9a-f]{11}")
_DEVICES = {
    "vxlan.calico": "vxlan",
    "vxlan-v6.calico": "vxlan",
    "wireguard.cali": "wireguard",
    "wg-v6.cali": "wireguard",
    "bpfin.cali": "veth",
    "bpfout.cali": "veth",
}
_CHAIN = re.compile(r"cali-\S+")
_COMMENT = re.compile(r"cali:[A-Za-z0-9_-]{16}")
_IPSET = re.compile(r"cali[46](?:0\S+|t\d+)")
Network = IPv4Network | IPv6Network


def plan(machine: Machine, *, pods: bool, pools: tuple[str, ...] = ()) -> Plan:
    """`pods`: the pods on its links lose them now; otherwise they keep them until they are started again. `pools`:
    ranges that are Calico's beside those that its sets name."""
    links = [link for link in machine.links if _POD_LINK.fullmatch(link.name) and link.kind == "veth"]
    stay = bool(links) and not pods
    steps: list[Step] = []
    kept: list[Kept] = []
    steps += [
        Step("CNI configuration", path, way="move")
        for path, types, _ in machine.networks
        if {"calico", "calico-ipam"} & set(types)
    ]
    steps += iptables.removal(
        machine.iptables,
        chain=lambda name: bool(_CHAIN.fullmatch(name)),
        comment=lambda text: bool(_COMMENT.fullmatch(text)),
    )
    steps += [
        Step("nftables table", f"{table.family} {table.name}", ("nft", "delete", "table", table.family, table.name))
        for table in machine.nft_tables
        if table.name == "calico"
    ]
    steps += [Step("ipset", name, ("ipset", "destroy", name)) for name in machine.ipsets if _IPSET.fullmatch(name)]
    steps += _rules(machine)
    steps += _routes(machine, links, stay, [*map(ip_network, pools), *_pools(machine)], kept)
    marked = bool(steps or links or any(path in machine.files for path in FILES))
    for link in machine.links:
        if link.name in _DEVICES and link.kind == _DEVICES[link.name]:
            steps.append(Step("device", link.name, ("ip", "link", "del", link.name)))
        elif link.name in _DEVICES:
            kept.append(Kept("device", link.name, f"it is of kind {link.kind or 'hardware'}: Calico's is another"))
        elif link.name == TUNL and link.alias != ALIAS and (link.up or link.addresses):
            _give_back(link, marked, steps, kept)
    for link in links:
        if stay:
            kept.append(Kept("link", link.name, "its pod runs; start it again, or say --pods"))
        else:
            steps.append(Step("link", link.name, ("ip", "link", "del", link.name)))
    for path in FILES:
        if path not in machine.files:
            continue
        if stay and (path in (*BINARIES, *NOTES) or path.startswith(NETS)):
            kept.append(Kept("file", path, "runtimes need it to stop the pods that run here"))
        else:
            steps.append(Step("file", path, way="move"))
    notes: tuple[str, ...] = ()
    if BPF in machine.files:
        notes = (f"{BPF}: programs of Calico's eBPF data plane stay attached; set bpfEnabled: false in Calico first",)
    restart = tuple(sorted(_pod(machine, link) for link in links))
    return Plan(tuple(steps), tuple(kept), restart, notes)


def _pools(machine: Machine) -> Iterator[Network]:
    members = [element for *_, elements in machine.nft_sets for element in elements]
    members += [member for _, some in machine.ipset_members for member in some]
    return (ip_network(member, strict=False) for member in members)


def _rules(machine: Machine) -> Iterator[Step]:
    """Those that lead into a table in which routes go over Calico's WireGuard."""
    tables = {(r.family, r.table) for r in machine.routes if r.device in ("wireguard.cali", "wg-v6.cali")} - {
        (4, "main"),
        (6, "main"),
    }
    for rule in machine.rules:
        if (rule.family, rule.table) in tables:
            words = ("priority", str(rule.priority), *rule.words, "table", rule.table)
            yield Step("rule", " ".join(words), ("ip", f"-{rule.family}", "rule", "del", *words))
    for route in machine.routes:
        if (route.family, route.table) in tables and route.number in PROTOCOLS:
            yield Step("route", f"{route.destination} in table {route.table}", route.removal)


def _routes(machine: Machine, links: list[Link], stay: bool, pools: list[Network], kept: list[Kept]) -> Iterator[Step]:
    names = {link.name for link in links}
    for route in machine.routes:
        if route.table != "main":
            continue
        if route.device in names:
            if stay:
                kept.append(Kept("route", route.destination, f"it leads to a pod that runs here ({route.device})"))
            continue  # Or it goes with its link.
        if route.number not in PROTOCOLS:
            continue
        if route.device in _DEVICES or route.device == TUNL:
            yield Step("route", route.destination, route.removal)
        elif machine.bird and route.number == BIRD:
            kept.append(Kept("route", route.destination, "it may be of the BIRD that Tortie runs here"))
        elif _holds(pools, route):
            yield Step("route", route.destination, route.removal)
        else:
            reason = f"protocol {route.protocol}, but in no pool of Calico's that is known here; --pool CIDR names more"
            kept.append(Kept("route", route.destination, reason))


def _holds(pools: list[Network], route: Route) -> bool:
    network = route.network
    return any(
        pool.version == network.version and network.prefixlen >= pool.prefixlen and network.network_address in pool
        for pool in pools
    )


def _give_back(link: Link, marked: bool, steps: list[Step], kept: list[Kept]) -> None:
    if link.kind != "ipip" or not marked:
        kept.append(Kept("device", TUNL, "nothing else of Calico's is here: somebody else may use it"))
        return
    steps += [
        Step("address", f"{address} on {TUNL}", ("ip", "address", "del", address, "dev", TUNL))
        for address in link.addresses
    ]
    back = ("ip", "link", "set", TUNL, "down", "mtu", str(KERNELS_MTU))
    steps.append(Step("device given back to the kernel", TUNL, back))


def _pod(machine: Machine, link: Link) -> str:
    return next((pod.name for pod in machine.pods if link.name in pod.links), f"the pod behind {link.name}")
