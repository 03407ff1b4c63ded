"""Host endpoints in the table: where a packet meets the policy of the devices that it enters and leaves by. Pure.

                prerouting   raw + 1     raw_in        doNotTrack: an allow is final, and the packet is not tracked
                             mangle      prednat       preDNAT: before a service's address becomes a pod's
    -> node     input        filter + 2  in            normal policy
    through     forward      filter + 2  forward_in    applyOnForward, of the device that it entered by
                             filter + 3  forward_out   and of the one that it leaves by; pods' own policy comes first
    node ->     output       raw + 1     raw_out       doNotTrack
                             filter      out           normal policy
                postrouting  mangle      out           the same, of what was redirected by DNAT: the output hook saw the
                                                       device of the address before

Each place (a `Stage`) looks the device up in a map of its own, which leads to the chain of the host endpoint's rule
group: `host_<stage>_<h>`, with the chains of policies that pods use, too. None of the base chains exists while no host
endpoint governs a device, and those of a stage only while a host endpoint has something to say there.

An allow by a doNotTrack or preDNAT policy holds for the later stages of the device by which the packet entered (or
which the node sends it by). The bit ACCEPTED of the packet's mark carries that. A policy's `accept` ends its base chain
at once, so the bit is set before the policies are asked, and cleared when none of them decided; the base chain that
follows the raw stage finds what is not to be tracked. Tiers have no default in these stages: others come.

The host endpoint `*` stands for pods' links, too, where packets are forwarded or may yet be, as in Calico: what goes
from pod to pod on one node has passed two devices of the node. Normal policy never concerns pods: a node reaches its
own, and what they send to it is for their policy and the endpoint-to-host action.

Where connections are cut, TCP that comes to the node or leaves it begins with a SYN (`frame.midstream`), but for
failsafe ports. Nobody is asked about established connections (but in the raw stages, which know of none), neighbour
discovery, tunnels between known nodes, and failsafe ports, of which there are none for what is forwarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from bus_schemas.policy import Direction, HostAttachment, TierRules
from services.node_dataplane.nft import failsafe
from services.node_dataplane.nft.chains import Chain
from services.node_dataplane.nft.frame import (
    ESTABLISHED,
    INVALID,
    IPIP,
    NODES4,
    NODES6,
    NodeRules,
    hook,
    midstream,
)
from services.node_dataplane.nft.governed import EVERY, LOOPBACK, Governed
from services.node_dataplane.nft.names import Way, host_chain
from services.node_dataplane.nft.sets import DISPATCH, SetSpec

ACCEPTED = 0x08000000
"""The bit of packet marks that is ours; kube-proxy's are 0x4000 and 0x8000. No other bit is touched."""

_SET = f"meta mark set meta mark | 0x{ACCEPTED:08x}"
_CLEAR = f"meta mark set meta mark & 0x{ACCEPTED ^ 0xFFFFFFFF:08x}"
_IS_SET = f"meta mark & 0x{ACCEPTED:08x} == 0x{ACCEPTED:08x}"
_ND = "{ 130, 131, 132, 133, 134, 135, 136, 143 }"
"""Multicast listeners (130 to 132, 143), routers and neighbours (133 to 136): without them a host is not on IPv6."""

OPEN_IN, OPEN_OUT, OPEN_RAW_IN, OPEN_RAW_OUT = "host_open_in", "host_open_out", "host_open_raw_in", "host_open_raw_out"
"""Chains with what no policy can close."""
PASS = "host_pass"
"""Chain of a device whose own host endpoint has nothing to say in a stage where that of all other devices has."""
REDIRECTED = "host_redirected"

StageName = Literal["raw_in", "prednat", "in", "forward_in", "forward_out", "raw_out", "out"]


class Stage(NamedTuple):
    name: StageName
    way: Way
    said: Callable[[HostAttachment], Direction]
    begin: tuple[str, ...]
    """Rules before the policies."""
    early: bool = False
    """Tiers have no default, and an allow holds for later stages."""
    pods: bool = False
    """The host endpoint of all other devices stands for pods' links, too."""

    @property
    def map(self) -> str:
        return f"hosts_{self.name}"

    @property
    def undecided(self) -> str:
        """The last rule in place of the direction's default; empty: the default."""
        return _CLEAR if self.early else ""

    def framed(self, chain: Chain) -> Chain:
        """A rule group's chain with what comes before its policies."""
        return Chain((*self.begin, *chain.lines), comment=chain.comment)

    def direction(self, host: HostAttachment) -> Direction | None:
        """None: the host endpoint has nothing to say here, and whatever comes goes on."""
        said = self.said(host)
        if not said.tiers and not said.profiles and said.preview is None and (self.early or said.default == "allow"):
            return None
        if not self.early:
            return said
        preview = None if said.preview is None else _open_ended(said.preview)
        return Direction(tiers=_open_ended(said.tiers), default="allow", preview=preview)


def _open_ended(tiers: tuple[TierRules, ...]) -> tuple[TierRules, ...]:
    return tuple(msgspec.structs.replace(tier, default="pass") for tier in tiers)


def _untracked(said: Callable[[HostAttachment], Direction]) -> Callable[[HostAttachment], Direction]:
    """As in Calico, the host endpoint `*` has no untracked policy."""
    return lambda host: Direction() if host.interface == EVERY else said(host)


STAGES: tuple[Stage, ...] = (
    Stage("raw_in", "ingress", _untracked(lambda h: h.untracked_ingress), (f"jump {OPEN_RAW_IN}", _SET), early=True),
    Stage("raw_out", "egress", _untracked(lambda h: h.untracked_egress), (f"jump {OPEN_RAW_OUT}", _SET), early=True),
    Stage(
        "prednat", "ingress", lambda h: h.pre_dnat_ingress, (INVALID, f"jump {OPEN_IN}", _SET), early=True, pods=True
    ),
    Stage("in", "ingress", lambda h: h.ingress, (INVALID, f"jump {OPEN_IN}")),
    Stage("out", "egress", lambda h: h.egress, (INVALID, f"jump {OPEN_OUT}")),
    Stage("forward_in", "ingress", lambda h: h.forward_ingress, (INVALID,), pods=True),
    Stage("forward_out", "egress", lambda h: h.forward_egress, (INVALID,), pods=True),
)

SETS: dict[str, SetSpec] = {
    stage.map: SetSpec(DISPATCH, f"device: host endpoint's rules, {stage.name}") for stage in STAGES
}


_STAGES: Mapping[StageName, Stage] = {stage.name: stage for stage in STAGES}


class Group(NamedTuple):
    """A rule group of host endpoints: what the chain of its name consists of."""

    stage: Stage
    direction: Direction


class Plan(NamedTuple):
    groups: Mapping[str, Group]
    """Chain -> rule group."""
    uses: Mapping[str, frozenset[str]]
    """Host endpoint that governs a device -> its chains."""
    maps: Mapping[str, Mapping[str, str]]
    """Map of a stage -> device -> chain."""
    chains: Mapping[str, Chain]
    """Base chains and what they need besides rule groups."""


def plan(
    hosts: Mapping[str, HostAttachment], governed: Governed, node: NodeRules, of_pods: Callable[[Way], str]
) -> Plan:
    """`of_pods` matches what comes from (egress), or goes to, a pod's device."""
    active = {*governed.by_device.values(), *filter(None, (governed.others,))}
    groups: dict[str, Group] = {}
    by_stage: dict[StageName, dict[str, str]] = {stage.name: {} for stage in STAGES}
    for host in sorted(active):
        for stage in STAGES:
            direction = stage.direction(hosts[host])
            if direction is not None:
                chain = host_chain(stage.name, direction)
                groups[chain] = Group(stage, direction)
                by_stage[stage.name][host] = chain
    maps: dict[str, dict[str, str]] = {}
    for stage in STAGES:
        chain_of = by_stage[stage.name]
        fallback = PASS if governed.others in chain_of else ""
        devices = {device: chain_of.get(host, fallback) for device, host in governed.by_device.items()}
        maps[stage.map] = {device: chain for device, chain in devices.items() if chain}
    uses = {host: frozenset(c[host] for c in by_stage.values() if host in c) for host in active}
    return Plan(groups, uses, maps, _chains(node, by_stage, governed.others, of_pods) if active else {})


def faults(host: HostAttachment) -> tuple[str, ...]:
    """What it asks for in vain."""
    if host.interface == EVERY and (host.untracked_ingress.tiers or host.untracked_egress.tiers):
        return ("doNotTrack policies do not apply to the interface *",)
    return ()


# --- chains


def _chains(
    node: NodeRules,
    by_stage: Mapping[StageName, Mapping[str, str]],
    others: str | None,
    of_pods: Callable[[Way], str],
) -> dict[str, Chain]:
    def ask(stage: StageName) -> tuple[str, ...]:
        return tuple(_ask(_STAGES[stage], by_stage[stage].get(others) if others is not None else None, of_pods))

    made = {
        OPEN_IN: Chain((*_always_in(node), *failsafe.inbound(node.failsafe_inbound), *midstream(node))),
        OPEN_OUT: Chain((*_always_out(node), *failsafe.outbound(node.failsafe_outbound), *midstream(node))),
        PASS: Chain(("accept",)),
        "host_raw_in": Chain((_CLEAR,), hook("filter", "prerouting", "raw + 1")),
        "host_raw_out": Chain((_CLEAR,), hook("filter", "output", "raw + 1")),
        "host_in": Chain((ESTABLISHED, f"{_IS_SET} accept", *ask("in")), hook("filter", "input", "filter + 2")),
        "host_out": Chain(
            (ESTABLISHED, f"{_IS_SET} accept", "ct status dnat accept", *ask("out")),
            hook("filter", "output", "filter"),
        ),
        "host_forwarded": Chain((f"ct state new ct status dnat {_SET}",), hook("filter", "forward", "filter + 4")),
        "host_postrouting": Chain(
            (ESTABLISHED, f"ct status dnat goto {REDIRECTED}"), hook("filter", "postrouting", "mangle")
        ),
        REDIRECTED: Chain((f"{_IS_SET} accept", *ask("out"))),
    }
    failsafes = (node.failsafe_inbound, node.failsafe_outbound)
    if by_stage["raw_in"]:
        made[OPEN_RAW_IN] = Chain((*_always_in(node), *failsafe.raw_inbound(*failsafes)))
        made["host_raw_in"] = Chain((_CLEAR, *ask("raw_in")), made["host_raw_in"].hook)
        made["host_notrack_in"] = Chain((f"{_IS_SET} notrack",), hook("filter", "prerouting", "raw + 2"))
    if by_stage["raw_out"]:
        made[OPEN_RAW_OUT] = Chain((*_always_out(node), *failsafe.raw_outbound(*failsafes)))
        made["host_raw_out"] = Chain((_CLEAR, *ask("raw_out")), made["host_raw_out"].hook)
        made["host_notrack_out"] = Chain((f"{_IS_SET} notrack",), hook("filter", "output", "raw + 2"))
    if by_stage["prednat"]:
        made["host_prednat"] = Chain(
            (ESTABLISHED, f"{_IS_SET} accept", *ask("prednat")), hook("filter", "prerouting", "mangle")
        )
    if by_stage["forward_in"]:
        made["host_forward_in"] = Chain(
            (ESTABLISHED, f"{_IS_SET} accept", *ask("forward_in")), hook("filter", "forward", "filter + 2")
        )
    if by_stage["forward_out"]:
        made["host_forward_out"] = Chain((ESTABLISHED, *ask("forward_out")), hook("filter", "forward", "filter + 3"))
    return made


def _ask(stage: Stage, others: str | None, of_pods: Callable[[Way], str]) -> Iterator[str]:
    """The device's own host endpoint, else that of all other devices."""
    device = "iifname" if stage.way == "ingress" else "oifname"
    yield f"{device} vmap @{stage.map}"
    if others is not None:
        yield f'{device} "{LOOPBACK}" accept'
        if not stage.pods:
            yield f"{of_pods('egress' if stage.way == 'ingress' else 'ingress')} accept"
        yield f"goto {others}"


def _always_in(node: NodeRules) -> Iterator[str]:
    yield f"icmpv6 type {_ND} accept"
    if node.vxlan_port is not None:
        yield f"udp dport {node.vxlan_port} ip saddr @{NODES4} accept"
        yield f"udp dport {node.vxlan_port} ip6 saddr @{NODES6} accept"
    if node.ipip:
        yield f"{IPIP} ip saddr @{NODES4} accept"
    for port in node.wireguard_ports:
        yield f"udp dport {port} ip saddr @{NODES4} accept"
        yield f"udp dport {port} ip6 saddr @{NODES6} accept"


def _always_out(node: NodeRules) -> Iterator[str]:
    yield f"icmpv6 type {_ND} accept"
    if node.vxlan_port is not None:
        yield f"udp dport {node.vxlan_port} ip daddr @{NODES4} accept"
        yield f"udp dport {node.vxlan_port} ip6 daddr @{NODES6} accept"
    if node.ipip:
        yield f"{IPIP} ip daddr @{NODES4} accept"
    for port in node.wireguard_ports:
        yield f"udp dport {port} ip daddr @{NODES4} accept"
        yield f"udp dport {port} ip6 daddr @{NODES6} accept"
