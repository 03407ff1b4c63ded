"""Nodes as peers of cluster policies: by their own labels, for their own addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from bus_schemas.node_addresses import NodeAddresses, with_found
from bus_schemas.resources import Node
from services.policy_compiler.members import Change, Contents, Member, packed

ADDRESS_TYPES = frozenset({"InternalIP", "ExternalIP", "CalicoNodeIP", ""})
"""The others (host names) say nothing about packets."""


@final
class NodeMember(Member):
    """One node."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Nodes:
    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._found: dict[str, NodeAddresses] = {}
        """What agents say of their nodes' addresses."""
        self._members: dict[str, NodeMember] = {}
        self._contents: dict[str, Contents] = {}
        self._dirty: set[NodeMember] = set()

    def find(self, name: str, found: NodeAddresses | None) -> tuple[str, ...]:
        """What the node's agent says of its addresses. Returns what had to be left out."""
        if found is None:
            self._found.pop(name, None)
        else:
            self._found[name] = found
        return self.set(name, self._nodes.get(name)) if name in self._nodes else ()

    def set(self, name: str, node: Node | None) -> tuple[str, ...]:
        """Returns what had to be left out."""
        if node is None:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = node
        member = self._members.get(name)
        if member is None:
            member = self._members[name] = NodeMember(name)
        self._dirty.add(member)
        if node is None:
            self._contents.pop(name, None)
            return ()
        addresses: dict[bytes, None] = {}
        faults: list[str] = []
        for path, text in _addresses(with_found(node, self._found.get(name))):
            address = packed(text)
            if address is None:
                faults.append(f"{path}: {text!r} is no address")
            else:
                addresses[address] = None
        self._contents[name] = Contents(node.metadata.labels, tuple(addresses))
        return tuple(faults)

    def flush(self) -> Iterator[Change]:
        """The nodes that differ from the last flush. Each is brought up to date as it is given."""
        dirty, self._dirty = self._dirty, set()
        for member in dirty:
            before, after = member.now, self._contents.get(member.name)
            if after is None:
                del self._members[member.name]
            if before != after:
                member.now = after
                yield Change(member, before, after)


def _addresses(node: Node) -> Iterator[tuple[str, str]]:
    """Every address of the node, with its field."""
    for at, address in enumerate(node.spec.addresses):
        if address.type in ADDRESS_TYPES:
            yield f"spec.addresses[{at}]", address.address.split("/")[0]
    if node.spec.bgp is not None:
        for family, text in (("4", node.spec.bgp.ipv4_address), ("6", node.spec.bgp.ipv6_address)):
            if text:
                yield f"spec.bgp.ipv{family}Address", text.split("/")[0]
