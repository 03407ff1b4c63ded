"""Floating addresses of this node's pods: translated to the pod's own, both ways.

    prerouting, output     to the floating address: the destination becomes the pod's own
    postrouting            pod -> itself by its floating address: the source becomes that, so that the answer comes by
                           the node, too
                           pod -> outside of all pools: the source becomes the floating address, before masquerading
                           would make it the node's

Policy stands between the two: it sees the pod's own address. Answers are translated back by the kernel's memory of the
connection. A NAT hook costs every new connection something, so these chains exist while a pod has such an address and
the configuration allows it.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.node_dataplane.nft.chains import Chain
from services.node_dataplane.nft.frame import NODES4, NODES6, POOLS4, POOLS6, NodeRules, hook

_POOLS = {"ip": (POOLS4, NODES4), "ip6": (POOLS6, NODES6)}
_OUTPUT = "-100"
"""nft has a name for this priority at the prerouting hook alone."""


def chains(pairs: Iterable[tuple[str, str]], node: NodeRules) -> dict[str, Chain]:
    """`pairs` as `Endpoint.floating` has them, of all pods; none: no chains."""
    ordered = sorted(pairs)
    if not (ordered and node.floating):
        return {}
    inwards = tuple(f"{_ip(own)} daddr {floating} dnat {_ip(own)} to {own}" for floating, own in ordered)
    outwards = []
    first: dict[str, str] = {}
    for floating, own in ordered:
        first.setdefault(own, floating)
    for own, floating in first.items():
        ip = _ip(own)
        pools, nodes = _POOLS[ip]
        far = f"{ip} daddr != @{pools}" + (f" {ip} daddr != @{nodes}" if node.exclude_nodes else "")
        outwards.append(f"{ip} saddr {own} {ip} daddr {own} snat {ip} to {floating}")
        outwards.append(f"{ip} saddr {own} {far} snat {ip} to {floating}")
    return {
        "floating_in": Chain(inwards, hook("nat", "prerouting", "dstnat")),
        "floating_own": Chain(inwards, hook("nat", "output", _OUTPUT)),
        "floating_out": Chain(tuple(outwards), hook("nat", "postrouting", "srcnat - 1")),
    }


def _ip(address: str) -> str:
    return "ip6" if ":" in address else "ip"
