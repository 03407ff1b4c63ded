"""Where a node is reached: what its agent found, and how that goes together with the Node resource.

    spec.bgp.ipv4Address of the Node      the administrator's word: it goes before everything
    NodeAddresses of the node's agent     what it found on its devices, or was told by its settings
    InternalIP of the Node                what is left while nothing is heard of the agent

The agent does not write the Node resource, which is the administrator's; whoever needs a node's address reads both
and asks `address_of`, or takes the Node that `completed` makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bus_schemas.codec import Message
from bus_schemas.ids import NodeName
from bus_schemas.resources import Node
from bus_schemas.resources.core import NodeBgp

FAMILIES = (4, 6)


class OwnAddress(msgspec.Struct, frozen=True, kw_only=True):
    address: str
    """With its subnet: `10.0.0.15/24`."""
    since: float
    """Unix time in seconds at which the node took it. Of two nodes with one address the older stays."""


class NodeAddresses(Message, tag="nodeaddresses/1", frozen=True, kw_only=True):
    """What a node's agent says of the node's own addresses. It stays while the agent is silent."""

    node: NodeName
    ipv4: OwnAddress | None = None
    """None: none was found yet."""
    ipv6: OwnAddress | None = None
    without: tuple[int, ...] = ()
    """Families of which the node is to have no address (`TORTIE_IP=none`)."""

    def of(self, family: int) -> OwnAddress | None:
        return self.ipv4 if family == 4 else self.ipv6


def said_of(node: Node, family: int) -> str:
    """The administrator's word, with a prefix length; empty where there is none."""
    bgp = node.spec.bgp
    known = "" if bgp is None else bgp.ipv4_address if family == 4 else bgp.ipv6_address
    return known if not known or "/" in known else f"{known}/{32 if family == 4 else 128}"


def internal_of(node: Node, family: int) -> str:
    """The InternalIP of the Node (or Calico's own record of it), plain; empty where there is none."""
    for candidate in node.spec.addresses:
        if candidate.type in ("InternalIP", "CalicoNodeIP") and (":" in candidate.address) == (family == 6):
            return candidate.address
    return ""


def address_of(node: Node, found: NodeAddresses | None, family: int) -> str:
    """The node's address on the fabric with its prefix length; empty when it has none."""
    said = said_of(node, family)
    if said or found is None:
        return said or node.address(family)
    own = found.of(family)
    if own is not None:
        return own.address
    return "" if family in found.without else node.address(family)


def since(node: Node, found: NodeAddresses | None, family: int) -> float:
    """When the node took its address; 0.0 for one that its resource tells, which is older than any."""
    own = found.of(family) if found is not None and not said_of(node, family) else None
    return own.since if own is not None and own.address == address_of(node, found, family) else 0.0


def completed(node: Node, addresses: Mapping[int, str]) -> Node:
    """The Node with these addresses by family, and no others to be reached at; itself where nothing changes."""
    if all(addresses.get(family, "") == node.address(family) for family in FAMILIES):
        return node
    bgp = msgspec.structs.replace(
        node.spec.bgp or NodeBgp(), ipv4_address=addresses.get(4, ""), ipv6_address=addresses.get(6, "")
    )
    kept = tuple(
        a
        for a in node.spec.addresses
        if a.type not in ("InternalIP", "CalicoNodeIP") or addresses.get(6 if ":" in a.address else 4)
    )
    return msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, bgp=bgp, addresses=kept))


def with_found(node: Node, found: NodeAddresses | None) -> Node:
    """The Node with the address that its agent found, where it says none itself."""
    return completed(node, {family: address_of(node, found, family) for family in FAMILIES})
