"""The fixed part of the table where addresses and routes are somebody else's: policy is found by address.

                 prerouting/raw      guard: a pod's address comes by its device only; a link of its own brings no other
    pod -> far   forward             `pods_from4`, `pods_from6` -> the pod's egress rules
                                     `pods_to4`, `pods_to6` -> the destination's ingress rules
    pod -> node  input               the same look-up of the sender
    node -> pod  output              not filtered: a node always reaches its own pods

A link that somebody else made has no number of ours, and many of them are ports of one bridge, which is all that a
packet shows here: br_netfilter brings what is switched from port to port through these hooks, as from and to the
bridge. So the address says which pod it is, and guards see to it that it does: here for what is routed from a link of
its own, in a table of the bridge's family (`bridge`) for its ports.

A pod that is not known may still answer its node, which has to ask whether it is well (ESTABLISHED comes first).

Closed is what comes from or goes to a pod's device (`pod_devices`: the bridge of pods, a pod's own link) and is no
known pod's, and what is in the node's own networks of pods (`pod_networks`) and leads elsewhere. What neither names is
none of our business. Neighbour discovery between ports passes: nobody routes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from services.node_dataplane.nft import frame
from services.node_dataplane.nft.chains import Chain
from services.node_dataplane.nft.frame import ESTABLISHED, ND, ROUTER, NodeRules, drop, hook, unknown
from services.node_dataplane.nft.layout import Element, Spot
from services.node_dataplane.nft.names import Way, guard_chain
from services.node_dataplane.nft.sets import (
    ADDRESS_DISPATCH4,
    ADDRESS_DISPATCH6,
    ADDRESSES4,
    ADDRESSES6,
    DEVICE_SOURCES4,
    DEVICE_SOURCES6,
    DEVICES,
    NETS4,
    NETS6,
    SetSpec,
    address_key,
    device_key,
    net_keys,
)

FROM = {4: "pods_from4", 6: "pods_from6"}
TO = {4: "pods_to4", 6: "pods_to6"}
SOURCES = {4: "pod_sources4", 6: "pod_sources6"}
PODS = {4: "pods4", 6: "pods6"}
NETWORKS = {4: "pod_networks4", 6: "pod_networks6"}
POD_DEVICES = "pod_devices"
POD_LINKS = "pod_links"
_FAMILIES = (4, 6)
_IP = {4: "ip", 6: "ip6"}

SETS: dict[str, SetSpec] = {
    FROM[4]: SetSpec(ADDRESS_DISPATCH4, "pod: its egress rules"),
    FROM[6]: SetSpec(ADDRESS_DISPATCH6, "pod: its egress rules"),
    TO[4]: SetSpec(ADDRESS_DISPATCH4, "pod: its ingress rules"),
    TO[6]: SetSpec(ADDRESS_DISPATCH6, "pod: its ingress rules"),
    SOURCES[4]: SetSpec(DEVICE_SOURCES4, "by which device a pod's packets come"),
    SOURCES[6]: SetSpec(DEVICE_SOURCES6, "by which device a pod's packets come"),
    PODS[4]: SetSpec(ADDRESSES4, "pods of this node whose link is known"),
    PODS[6]: SetSpec(ADDRESSES6, "pods of this node whose link is known"),
    NETWORKS[4]: SetSpec(NETS4, "where this node's pods have addresses"),
    NETWORKS[6]: SetSpec(NETS6, "where this node's pods have addresses"),
    POD_DEVICES: SetSpec(DEVICES, "bridges of pods, and pods' own links"),
    POD_LINKS: SetSpec(DEVICES, "known pods' own links"),
    frame.NODES4: frame.SETS[frame.NODES4],
    frame.NODES6: frame.SETS[frame.NODES6],
}

_FROM_DEVICE, _TO_DEVICE = f"iif @{POD_DEVICES}", f"oif @{POD_DEVICES}"


class ByAddress:
    sets: Mapping[str, SetSpec] = SETS

    def chains(self, node: NodeRules) -> dict[str, Chain]:
        found = {
            "pod_egress": Chain(_pod_egress(node)),
            "not_new": Chain(_NOT_NEW),
            "guard": Chain(_GUARD),
            "input_pod": Chain(_input_pod(node)),
            "prerouting": Chain(_PREROUTING, hook("filter", "prerouting", "raw")),
            "input": Chain((f"{_FROM_DEVICE} goto input_pod",), hook("filter", "input", "filter")),
            "forward": Chain(_forward(node), hook("filter", "forward", "filter")),
        }
        if node.endpoint_to_host == "drop":
            found["input_host"] = Chain(_INPUT_HOST, hook("filter", "input", "filter + 1"))
        return found

    def members(self, node: NodeRules) -> dict[str, set[bytes]]:
        nodes = {address_key(address) for address in node.nodes}
        return {
            frame.NODES4: {key for key in nodes if len(key) == 4},
            frame.NODES6: {key for key in nodes if len(key) == 16},
            **{NETWORKS[family]: net_keys(node.pod_networks, family) for family in _FAMILIES},
        }

    def own(self, spot: Spot) -> Iterator[Element]:
        for key in map(address_key, spot.addresses):
            family = _family(key)
            yield SOURCES[family], device_key(spot.device) + key
            yield PODS[family], key
        if not spot.bridged:
            yield POD_LINKS, device_key(spot.device)

    def dispatch(self, way: Way, spot: Spot) -> Iterator[Element]:
        maps = FROM if way == "egress" else TO
        for key in map(address_key, spot.addresses):
            yield maps[_family(key)], key

    def of_pods(self, way: Way) -> str:
        return _FROM_DEVICE if way == "egress" else _TO_DEVICE

    def release(self, spot: Spot) -> None:
        """Nobody has to be told."""


def _family(key: bytes) -> int:
    return 4 if len(key) == 4 else 6


def _each(text: str) -> tuple[str, ...]:
    """A line for each family: `{ip}` is its word, `{n}` its number."""
    return tuple(text.format(ip=_IP[family], n=family) for family in _FAMILIES)


_PREROUTING = (
    *_each(f"iif . {{ip}} saddr @{SOURCES[4][:-1]}{{n}} accept"),
    *_each(f"{{ip}} saddr @{PODS[4][:-1]}{{n}} {drop('spoofed')}"),  # From anywhere but its own link.
    f"iif @{POD_LINKS} goto guard",
)

_GUARD = (
    "ip6 saddr fe80::/10 accept",  # Never forwarded: only the node itself hears it.
    f"ip6 saddr :: icmpv6 type {ND} accept",
    drop("spoofed"),
)

_NOT_NEW = (
    f"{_FROM_DEVICE} {drop('invalid')}",
    f"{_TO_DEVICE} {drop('invalid')}",
    *_each(f"{{ip}} daddr @{PODS[4][:-1]}{{n}} {drop('invalid')}"),
)
"""For what neither belongs to a connection nor may begin one: pods neither send nor get it, others' is their affair."""


def _networks(node: NodeRules, side: str, guard: str) -> tuple[str, ...]:
    families = sorted({6 if ":" in network else 4 for network in node.pod_networks})
    return tuple(f"{_IP[family]} {side} @{NETWORKS[family]} {drop(guard)}" for family in families)


def _pod_egress(node: NodeRules) -> tuple[str, ...]:
    return (
        *_each(f"{{ip}} saddr vmap @{FROM[4][:-1]}{{n}}"),
        f"{_FROM_DEVICE} {drop('no_policy_egress')}",
        *_networks(node, "saddr", "no_policy_egress"),
    )


def _forward(node: NodeRules) -> tuple[str, ...]:
    return (
        ESTABLISHED,
        *unknown(node, "not_new"),
        f"icmpv6 type {ND} {_FROM_DEVICE} accept",
        "jump pod_egress",
        *_each(f"{{ip}} daddr vmap @{TO[4][:-1]}{{n}}"),
        f"{_TO_DEVICE} {drop('no_policy_ingress')}",
        *_networks(node, "daddr", "no_policy_ingress"),
    )


def _input_pod(node: NodeRules) -> tuple[str, ...]:
    return (
        ESTABLISHED,
        f"icmpv6 type {ND} accept",
        f"icmpv6 type {ROUTER} {drop('router_from_pod')}",
        *unknown(node, guard_chain("invalid")),
        "goto pod_egress",
    )


_INPUT_HOST = (
    ESTABLISHED,
    f"{_FROM_DEVICE} icmpv6 type {ND} accept",
    f"{_FROM_DEVICE} {drop('to_host')}",
)
