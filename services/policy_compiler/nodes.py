"""Nodes as peers of cluster policies: by their own labels, for their own addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

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
        self._members: dict[str, NodeMember] = {}
        self._contents: dict[str, Contents] = {}
        self._dirty: set[NodeMember] = set()

    def set(self, name: str, node: Node | None) -> tuple[str, ...]:
        """Returns what had to be left out."""
        member = self._members.get(name)
        if member is None:
            member = self._members[name] = NodeMember(name)
        self._dirty.add(member)
        if node is None:
            self._contents.pop(name, None)
            return ()
        addresses: dict[bytes, None] = {}
        faults: list[str] = []
        for path, text in _addresses(node):
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
