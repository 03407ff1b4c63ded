"""Network sets: labelled lists of networks, found by the selectors that find pods.

NetworkSet, GlobalNetworkSet -- labels, nets --+--> NetworkSetMember.now
Namespace (of the first) ------ pcns. labels --+
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_network
from typing import NamedTuple, final

from bus_schemas.resources import GlobalNetworkSet, NetworkSet
from services.policy_compiler.labels import Labels, of_network_set
from services.policy_compiler.members import Change, Contents, Member
from services.policy_compiler.parents import Parents


class NetworkSetKey(NamedTuple):
    namespace: str
    """Empty: a global one."""
    name: str


@final
class NetworkSetMember(Member):
    """One network set."""

    __slots__ = ("key",)

    def __init__(self, key: NetworkSetKey) -> None:
        super().__init__()
        self.key = key


class _Set(NamedTuple):
    labels: Labels
    addresses: tuple[bytes, ...]
    nets: tuple[bytes, ...]


class NetworkSets:
    def __init__(self, parents: Parents) -> None:
        self._parents = parents
        self._members: dict[NetworkSetKey, NetworkSetMember] = {}
        self._of_namespace: dict[str, set[NetworkSetMember]] = {}
        self._sets: dict[NetworkSetMember, _Set] = {}
        self._dirty: set[NetworkSetMember] = set()

    def __len__(self) -> int:
        return len(self._members)

    def set(self, key: NetworkSetKey, resource: NetworkSet | GlobalNetworkSet | None) -> tuple[str, ...]:
        """Returns what had to be left out."""
        member = self._members.get(key)
        if member is None:
            member = self._members[key] = NetworkSetMember(key)
            self._of_namespace.setdefault(key.namespace, set()).add(member)
        self._dirty.add(member)
        if resource is None:
            self._sets.pop(member, None)
            return ()
        addresses, nets, faults = _packed(resource.spec.nets)
        self._sets[member] = _Set(resource.metadata.labels, addresses, nets)
        return faults

    def namespace_changed(self, name: str) -> None:
        if name:
            self._dirty.update(self._of_namespace.get(name, ()))

    def flush(self) -> Iterator[Change]:
        """The sets that differ from the last flush. Each is brought up to date as it is given."""
        dirty, self._dirty = self._dirty, set()
        for member in dirty:
            before, after = member.now, self._contents(member)
            if after is None:
                self._forget(member)
            if before != after:
                member.now = after
                yield Change(member, before, after)

    def _contents(self, member: NetworkSetMember) -> Contents | None:
        found = self._sets.get(member)
        if found is None:
            return None
        namespace = member.key.namespace
        labels = of_network_set(found.labels, namespace, self._parents.namespaces.get(namespace, {}))
        return Contents(labels, found.addresses, nets=found.nets)

    def _forget(self, member: NetworkSetMember) -> None:
        del self._members[member.key]
        siblings = self._of_namespace[member.key.namespace]
        siblings.discard(member)
        if not siblings:
            del self._of_namespace[member.key.namespace]


def _packed(texts: Iterable[str]) -> tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[str, ...]]:
    """Addresses and networks, each once, and the faults."""
    addresses: dict[bytes, None] = {}
    nets: dict[bytes, None] = {}
    faults: list[str] = []
    for at, text in enumerate(texts):
        member = packed_net(text)
        if member is None:
            faults.append(f"spec.nets[{at}]: {text!r} is not a CIDR")
        elif len(member) in (4, 16):
            addresses[member] = None
        else:
            nets[member] = None
    return tuple(addresses), tuple(nets), tuple(faults)


@lru_cache(maxsize=1 << 16)
def packed_net(text: str) -> bytes | None:
    """As a group holds it: the masked address and its prefix length, or the address alone when that is all. None: no
    CIDR. Host bits are cleared, as Calico does."""
    try:
        net = ip_network(text, strict=False)
    except ValueError:
        return None
    address = net.network_address.packed
    return address if net.prefixlen == net.max_prefixlen else address + bytes((net.prefixlen,))
