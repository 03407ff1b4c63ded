"""Where services lead: the endpoint slices, found by the name of their Service alone.

All endpoints count, ready or not, as in Calico: a policy that lets something reach a service must not cut it off from
an endpoint that is about to be ready. A port without a number ("every port") stands for none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from bus_schemas.resources import EndpointSlice
from services.policy_compiler.members import PROTOCOLS, Change, Contents, Member, NamedPort, is_port, packed_all
from services.policy_compiler.selection import SERVICE

SliceKey = tuple[str, str]
"""Namespace and name."""


@final
class SliceMember(Member):
    """One endpoint slice."""

    __slots__ = ("key",)

    def __init__(self, key: SliceKey) -> None:
        super().__init__()
        self.key = key


class Slices:
    def __init__(self) -> None:
        self._members: dict[SliceKey, SliceMember] = {}
        self._contents: dict[SliceKey, Contents] = {}
        self._dirty: set[SliceMember] = set()

    def set(self, key: SliceKey, resource: EndpointSlice | None) -> tuple[str, ...]:
        """Returns what had to be left out."""
        member = self._members.get(key)
        if member is None:
            member = self._members[key] = SliceMember(key)
        self._dirty.add(member)
        self._contents.pop(key, None)
        if resource is None or not resource.service or resource.spec.address_type == "FQDN":
            return ()
        texts = dict.fromkeys(text for endpoint in resource.spec.endpoints for text in endpoint.addresses)
        addresses, rest = packed_all(texts)
        ports = tuple(
            NamedPort(port.name, PROTOCOLS[port.protocol], port.port)
            for port in resource.spec.ports
            if port.port is not None and port.protocol in PROTOCOLS and is_port(port.port)
        )
        labels = {SERVICE: f"{key[0]}/{resource.service}"}
        self._contents[key] = Contents(labels, addresses, ports)
        return tuple(f"endpoints: {text!r} is no address" for text in rest)

    def flush(self) -> Iterator[Change]:
        """The slices that differ from the last flush. Each is brought up to date as it is given."""
        dirty, self._dirty = self._dirty, set()
        for member in dirty:
            before, after = member.now, self._contents.get(member.key)
            if after is None:
                del self._members[member.key]
            if before != after:
                member.now = after
                yield Change(member, before, after)
