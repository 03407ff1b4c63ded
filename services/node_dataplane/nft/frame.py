"""The fixed part of the table: hooks, dispatch by link, guards, tunnels, outgoing NAT.

                 prerouting/raw      guard: a pod sends from its own addresses, and into no tunnel; they are not tracked
    pod -> far   forward             pod_egress -> `pods_from` map -> the pod's egress rules
                                     `pods_to` map -> the destination's ingress rules
    pod -> node  input               pod_egress -> `pods_from` map
                 input + 1           the endpoint-to-host action, for what the pod's policy accepted
    node -> pod  output              not filtered: a node always reaches its own pods
    pod -> world postrouting/srcnat  masquerade

What the source pod may send must still be what the destination may receive, and in nft an accept ends a base chain: so
what egress rules allow returns to the base chain, which goes on to the ingress rules (see `chains`). A pod link that is
in no map is dropped both ways: its policy is not there yet. Established flows are accepted first, so a change of policy
touches new connections alone.

A pod's link is told by its group of devices, which it is born in, and not by its name, which would be copied for each
packet: the first bits say that it is a pod's, all of them whose (see `link_groups`). What has such a name and is not in
a pod's group opens no connection to the node or to the world, nor does the world to it.

A base chain costs every packet of every connection, and a NAT hook every new connection, so one that has nothing to do
does not exist. Each guard drops in a chain of its own, which counts and reports.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from services.node_dataplane.nft.attribution import GUARDS, Claims, guard_denial
from services.node_dataplane.nft.chains import Chain
from services.node_dataplane.nft.failsafe import INBOUND, OUTBOUND, Failsafe
from services.node_dataplane.nft.names import LINK_GROUP, LINK_GROUP_MASK, LINK_PREFIX, guard_chain
from services.node_dataplane.nft.sets import (
    ADDRESSES4,
    ADDRESSES6,
    NETS4,
    NETS6,
    POD_DISPATCH,
    SOURCES4,
    SOURCES6,
    SetSpec,
    address_key,
    net_keys,
)

FROM = "pods_from"
TO = "pods_to"
POD_SOURCES4 = "pod_sources4"
POD_SOURCES6 = "pod_sources6"
NODES4 = "nodes4"
NODES6 = "nodes6"
MASQUERADE4 = "masquerade_pools4"
MASQUERADE6 = "masquerade_pools6"
POOLS4 = "pools4"
POOLS6 = "pools6"
FOREIGN_SOURCES = "foreign_sources"
"""The chain of `foreign_sources`."""

SETS: dict[str, SetSpec] = {
    FROM: SetSpec(POD_DISPATCH, "pod link: egress rules of its pod"),
    TO: SetSpec(POD_DISPATCH, "pod link: ingress rules of its pod"),
    POD_SOURCES4: SetSpec(SOURCES4, "what pods may send from"),
    POD_SOURCES6: SetSpec(SOURCES6, "what pods may send from"),
    NODES4: SetSpec(ADDRESSES4, "known nodes"),
    NODES6: SetSpec(ADDRESSES6, "known nodes"),
    MASQUERADE4: SetSpec(NETS4, "pools with natOutgoing"),
    MASQUERADE6: SetSpec(NETS6, "pools with natOutgoing"),
    POOLS4: SetSpec(NETS4, "all pools"),
    POOLS6: SetSpec(NETS6, "all pools"),
}

POD = f'"{LINK_PREFIX}*"'
_IN_GROUP = f"& 0x{LINK_GROUP_MASK:08x} == 0x{LINK_GROUP:08x}"
_NOT_IN_GROUP = f"& 0x{LINK_GROUP_MASK:08x} != 0x{LINK_GROUP:08x}"
FROM_POD, TO_POD = f"iifgroup {_IN_GROUP}", f"oifgroup {_IN_GROUP}"
ND = "{ 130, 131, 132, 133, 135, 136, 143 }"
"""Multicast listener queries, reports and dones, router solicitation, neighbour solicitation and advertisement: without
them a pod has no IPv6 neighbours."""
ROUTER = "{ 134, 137 }"
"""Router advertisements and redirects: a node that took one from a pod would send its traffic there."""
IPIP = "ip protocol 4"
ESTABLISHED = "ct state established,related accept"
INVALID = f"ct state invalid goto {guard_chain('invalid')}"
_MIDSTREAM = "ct state new tcp flags & (syn | ack) == ack"
"""A TCP packet from the middle of a connection that the kernel has no memory of, which it would take for the first of a
new one, in whichever direction it goes."""


class NodeRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says about this node as a whole."""

    masquerade_pools: tuple[str, ...] = ()
    """CIDRs of the pools with natOutgoing, both families."""
    all_pools: tuple[str, ...] = ()
    """CIDRs of all pools: never masqueraded towards."""
    nodes: tuple[str, ...] = ()
    """Addresses (no mask) of all known nodes, this one included: who may send VXLAN here."""
    exclude_nodes: bool = False
    """natOutgoingExclusions IPPoolsAndHostIPs: towards `nodes` pods keep their own address."""
    vxlan_port: int | None = None
    """UDP port of VXLAN; None: there is none to guard."""
    ipip: bool = False
    """There is a tunnel of IP in IP to guard."""
    wireguard_ports: tuple[int, ...] = ()
    """Host endpoints' policies do not close these between nodes. Who may send there is for the keys to say."""
    tunnel_links: tuple[str, ...] = ("vxlan.tortie",)
    """The tunnel devices: what goes into them keeps its address."""
    allow_vxlan_from_workloads: bool = False
    allow_ipip_from_workloads: bool = False
    endpoint_to_host: Literal["accept", "drop", "return"] = "accept"
    """For traffic from a pod to this node that the pod's policy allows. An accept is not final over other tables of the
    host, so it and `return` are the same."""
    spoofing: bool = False
    """Pods may send from the networks that they ask for (workloadSourceSpoofing Any); see `foreign_sources`."""
    floating: bool = False
    """Floating addresses are translated (floatingIPs Enabled); see `floating`."""
    log_prefix: str = "calico-packet"
    log_limit: str = ""
    """Of each rule that logs, `<n>/<unit> burst <n> packets`; empty: as often as a packet comes."""
    tcp_by_syn_only: bool = False
    """Pods' TCP connections begin with a SYN or not at all. So what was cut stays cut: else the next packet of
    whichever end may call the other would take it up again."""
    pod_networks: tuple[str, ...] = ()
    """CIDRs in which this node's pods have their addresses, where these are somebody else's (`by_address`)."""
    failsafe_inbound: tuple[Failsafe, ...] = INBOUND
    """Ports of this node that no host endpoint's policy closes."""
    failsafe_outbound: tuple[Failsafe, ...] = OUTBOUND
    """Ports that this node may reach, whatever its host endpoints' policies say."""


def chains(node: NodeRules) -> dict[str, Chain]:
    found = {
        "pod_egress": Chain((f"iifgroup vmap @{FROM}", drop("no_policy_egress"))),
        "not_new": Chain(_NOT_NEW),
        "guard": Chain(_guard(node)),
        "input_pod": Chain(_input_pod(node)),
        "prerouting": Chain(_prerouting(node), hook("filter", "prerouting", "raw")),
        "input": Chain(_input(node), hook("filter", "input", "filter")),
        "forward": Chain(_forward(node), hook("filter", "forward", "filter")),
    }
    if node.vxlan_port is not None or node.ipip:
        found["tunnel"] = Chain((f"ip saddr @{NODES4} notrack", f"ip6 saddr @{NODES6} notrack"))
        found["output"] = Chain(_output(node), hook("filter", "output", "raw"))
    if node.endpoint_to_host == "drop":
        found["input_host"] = Chain(_INPUT_HOST, hook("filter", "input", "filter + 1"))
    if node.masquerade_pools:
        found["postrouting"] = Chain(_postrouting(node), hook("nat", "postrouting", "srcnat"))
    return found


def guards() -> tuple[dict[str, Chain], Claims]:
    """The chains of the guards' drops."""
    claims = Claims()
    return {
        guard_chain(guard): Chain((claims.report(guard_denial(guard)), f"counter name {guard} drop"))
        for guard in GUARDS
    }, claims


def members(node: NodeRules) -> dict[str, set[bytes]]:
    """Elements of the sets that the configuration fills."""
    nodes = {address_key(address) for address in node.nodes}
    return {
        NODES4: {key for key in nodes if len(key) == 4},
        NODES6: {key for key in nodes if len(key) == 16},
        MASQUERADE4: net_keys(node.masquerade_pools, 4),
        MASQUERADE6: net_keys(node.masquerade_pools, 6),
        POOLS4: net_keys(node.all_pools, 4),
        POOLS6: net_keys(node.all_pools, 6),
    }


def unknown(node: NodeRules, chain: str) -> tuple[str, ...]:
    """What neither belongs to a connection nor may begin one goes to the chain."""
    begun = (f"{_MIDSTREAM} goto {chain}",) if node.tcp_by_syn_only else ()
    return (f"ct state invalid goto {chain}", *begun)


def midstream(node: NodeRules) -> tuple[str, ...]:
    """Where connections are cut, what would take one up again in its middle is dropped."""
    return unknown(node, guard_chain("invalid"))[1:]


def drop(guard: str) -> str:
    return f"goto {guard_chain(guard)}"


def hook(type_: str, hook: str, priority: str) -> str:
    return f"type {type_} hook {hook} priority {priority}; policy accept;"


def _prerouting(node: NodeRules) -> tuple[str, ...]:
    lines = [f"{FROM_POD} goto guard"]
    if node.vxlan_port is not None:
        lines.append(f"udp dport {node.vxlan_port} goto tunnel")
    if node.ipip:
        lines.append(f"{IPIP} goto tunnel")
    return tuple(lines)


def _guard(node: NodeRules) -> tuple[str, ...]:
    lines = []
    if node.vxlan_port is not None and not node.allow_vxlan_from_workloads:
        lines.append(f"udp dport {node.vxlan_port} {drop('vxlan_from_pod')}")
    if node.ipip and not node.allow_ipip_from_workloads:
        lines.append(f"{IPIP} {drop('ipip_from_pod')}")
    lines += [
        f"iifgroup . ip saddr @{POD_SOURCES4} accept",
        f"iifgroup . ip6 saddr @{POD_SOURCES6} accept",
        "ip6 saddr fe80::/10 accept",  # Never forwarded: only the node itself hears it.
        f"ip6 saddr :: icmpv6 type {ND} accept",
    ]
    if node.spoofing:
        lines.append(f"jump {FOREIGN_SOURCES}")
    lines.append(drop("spoofed"))
    return tuple(lines)


_STRANGERS = (
    f"oifname {POD} {drop('no_policy_ingress')}",
    f"iifname {POD} iifgroup {_NOT_IN_GROUP} {drop('no_policy_egress')}",
)
_NOT_NEW = (f"{FROM_POD} {drop('invalid')}", f"{TO_POD} {drop('invalid')}", *_STRANGERS)
"""For what neither belongs to a connection nor may begin one: pods neither send nor get it, others' is their affair."""


def _forward(node: NodeRules) -> tuple[str, ...]:
    """What a new connection meets is put so that one between a pod and the world passes as few rules and chains as can
    be: each is a line of the processor's cache."""
    return (
        ESTABLISHED,
        *unknown(node, "not_new"),
        f"{FROM_POD} jump pod_egress",
        f"oifgroup vmap @{TO}",
        f"{TO_POD} {drop('no_policy_ingress')}",
        *_STRANGERS,
    )


def _output(node: NodeRules) -> tuple[str, ...]:
    lines = []
    if node.vxlan_port is not None:
        lines += [
            f"udp dport {node.vxlan_port} ip daddr @{NODES4} notrack",
            f"udp dport {node.vxlan_port} ip6 daddr @{NODES6} notrack",
        ]
    if node.ipip:
        lines.append(f"{IPIP} ip daddr @{NODES4} notrack")
    return tuple(lines)


def _input(node: NodeRules) -> tuple[str, ...]:
    lines = [f"iifname {POD} goto input_pod"]
    if node.vxlan_port is not None:
        lines += [
            f"udp dport {node.vxlan_port} ip saddr @{NODES4} accept",
            f"udp dport {node.vxlan_port} ip6 saddr @{NODES6} accept",
            f"udp dport {node.vxlan_port} {drop('vxlan_from_stranger')}",
        ]
    if node.ipip:
        lines += [f"{IPIP} ip saddr @{NODES4} accept", f"{IPIP} {drop('ipip_from_stranger')}"]
    return tuple(lines)


def _input_pod(node: NodeRules) -> tuple[str, ...]:
    lines = [f"iifgroup {_NOT_IN_GROUP} {drop('no_policy_egress')}"]
    if node.vxlan_port is not None:
        lines.append(f"udp dport {node.vxlan_port} {drop('vxlan_from_pod')}")
    if node.ipip:
        lines.append(f"{IPIP} {drop('ipip_from_pod')}")
    routers = f"icmpv6 type {ROUTER} {drop('router_from_pod')}"
    begun = unknown(node, guard_chain("invalid"))
    return (*lines, ESTABLISHED, f"icmpv6 type {ND} accept", routers, *begun, "goto pod_egress")


_INPUT_HOST = (
    ESTABLISHED,
    f"iifname {POD} icmpv6 type {ND} accept",
    f"iifname {POD} {drop('to_host')}",
)


def _postrouting(node: NodeRules) -> tuple[str, ...]:
    lines = [f'oifname "{link}" accept' for link in node.tunnel_links]
    for ip, masquerade, pools, nodes in (("ip", MASQUERADE4, POOLS4, NODES4), ("ip6", MASQUERADE6, POOLS6, NODES6)):
        far = f"{ip} daddr != @{pools}" + (f" {ip} daddr != @{nodes}" if node.exclude_nodes else "")
        lines.append(f"{ip} saddr @{masquerade} {far} masquerade fully-random")
    return tuple(lines)
