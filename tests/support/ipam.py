"""Builders of pools, nodes and requests, and a bus in memory with exactly the promises that the allocator relies on.

`Store` knows compare-and-swap on every key's sequence and batches that happen whole or not at all. A `Replica` is a
core that sees the store's log as far as it likes, and what `services.ipam.service` does around a core, one step at a
time, so that a test can stop it, kill it or let others go first between any two steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import AssignRequest, Block, Busy, Handle, ReleaseRequest
from bus_schemas.resources import IPAMConfiguration, IPPool, IPReservation, Metadata, Namespace, Node
from bus_schemas.resources.core import NodeSpec
from bus_schemas.resources.pools import IPAM_CONFIGURATION, IPAMConfigurationSpec, IPPoolSpec, IPReservationSpec
from bus_schemas.subjects import AFFINITY, BLOCK, DESIRED, HANDLE, Fact, Family, Key
from services.ipam.block import fault
from services.ipam.cidr import Cidr, parse, parse_address
from services.ipam.core import Core, Decision, Reply, Request, stands
from services.ipam.draft import Write
from services.ipam.limits import Limits

START = 1_700_000_000.0
"""When a test's time begins, Unix seconds."""


def pool(name: str, cidr: str, **spec: Any) -> Fact:
    return desired(IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr, **spec)))


def node(name: str, **labels: str) -> Fact:
    return desired(Node(metadata=Metadata(name=name, labels=labels)))


def ranged(name: str, *pod_cidrs: str) -> Fact:
    """A node with ranges of its own."""
    return desired(Node(metadata=Metadata(name=name), spec=NodeSpec(pod_cidrs=pod_cidrs)))


def reservation(name: str, *cidrs: str) -> Fact:
    return desired(IPReservation(metadata=Metadata(name=name), spec=IPReservationSpec(reserved_cidrs=cidrs)))


def configuration(**spec: Any) -> Fact:
    """What holds for all of address management."""
    meta = Metadata(name=IPAM_CONFIGURATION)
    return desired(IPAMConfiguration(metadata=meta, spec=IPAMConfigurationSpec(**spec)))


def namespace(name: str, **labels: str) -> Fact:
    return desired(Namespace(metadata=Metadata(name=name, labels=labels)))


def desired(resource: Any) -> Fact:
    return Fact(DESIRED[type(resource)], resource.key, resource, 1)


def without(fact: Fact) -> Fact:
    return fact._replace(value=None)


def ask(handle: str, on: str = "n1", **fields: Any) -> AssignRequest:
    return AssignRequest(node=NodeName(on), handle=HandleId(handle), **fields)


def give_back(handle: str, **fields: Any) -> ReleaseRequest:
    return ReleaseRequest(handle=HandleId(handle), **fields)


class StoreConflict(Exception):
    """A key of the batch was not at the expected sequence: nothing was written."""


class Store:
    """The bus: a log of facts, and the last one of every key."""

    def __init__(self) -> None:
        self.log: list[Fact] = []
        self._last: dict[tuple[Family[Any], Key], Fact] = {}

    def get(self, family: Family[Any], key: Key) -> Fact:
        return self._last.get((family, key)) or Fact(family, key, None, 0)

    def put(self, fact: Fact) -> None:
        """What others write: resources."""
        self._append(fact.family, fact.key, fact.value)

    def batch(self, writes: Sequence[Write]) -> list[int]:
        if any(self.get(w.family, w.key).sequence != w.expected for w in writes):
            raise StoreConflict
        return [self._append(w.family, w.key, w.message) for w in writes]

    def lose(self, family: Family[Any]) -> None:
        """Everything of a family is gone, without a tombstone."""
        self._last = {where: fact for where, fact in self._last.items() if where[0] is not family}

    def existing(self) -> list[tuple[Family[Any], Key]]:
        return [where for where, fact in self._last.items() if fact.value is not None]

    def values(self, family: Family[Any]) -> list[Any]:
        return [f.value for f in self._last.values() if f.family is family and f.value is not None]

    def _append(self, family: Family[Any], key: Key, value: Any) -> int:
        fact = Fact(family, key, value, len(self.log) + 1)
        self.log.append(fact)
        self._last[family, key] = fact
        return fact.sequence


class Replica:
    """One ipam: a core behind a feed that lags as far as the test wants."""

    def __init__(self, store: Store, limits: Limits = Limits()) -> None:  # noqa: B008
        self.store = store
        self.limits = limits
        self.restart()

    def restart(self) -> None:
        """Killed and started again: it knows nothing, then reads a snapshot."""
        self.core = Core(self.limits)
        self._read = 0
        self.catch_up()

    def catch_up(self, facts: int | None = None) -> None:
        """Hear the next `facts` of the log, or all of the rest."""
        until = len(self.store.log) if facts is None else min(len(self.store.log), self._read + facts)
        for fact in self.store.log[self._read : until]:
            self.core.apply(fact)
        self._read = until

    def skip(self) -> None:
        """Pass over the last message of the log: it is none."""
        self._read = len(self.store.log)

    def commit(self, decision: Decision) -> bool:
        """Write a decision. False: it conflicted, and the keys were read again."""
        try:
            sequences = self.store.batch(decision.writes)
        except StoreConflict:
            for write in decision.writes:
                self.core.learned(self.store.get(write.family, write.key))
            return False
        self.core.committed(decision.writes, sequences)
        return True

    def confirmed(self, decision: Decision) -> list[Reply | None]:
        """The replies that still stand after their handles were read again."""
        replies = list(decision.replies)
        for index, believed in [(i, fact) for i, facts in decision.rests_on.items() for fact in facts]:
            read = self.store.get(believed.family, believed.key)
            if not stands(believed, read):
                self.core.learned(read)
                replies[index] = None
        return replies

    def look_again(self, decision: Decision) -> None:
        """Read what the core is behind on."""
        for behind in decision.behind:
            if behind.block is None:
                self.catch_up()
            else:
                self.core.learned(self.store.get(BLOCK, (behind.block.text,)))
            self.core.learned(self.store.get(HANDLE, (behind.handle,)))

    def answer(self, *requests: Request, now: float = START, rounds: int = 30) -> list[Reply]:
        """Everything that the service does for requests that wait together."""
        replies: list[Reply | None] = [None] * len(requests)
        for _ in range(rounds):
            open_ = [i for i, reply in enumerate(replies) if reply is None]
            if not open_:
                break
            decision = self.core.decide([requests[i] for i in open_], now)
            if self.commit(decision):
                for i, reply in zip(open_, self.confirmed(decision), strict=True):
                    replies[i] = reply
            self.look_again(decision)
        return [Busy(reason="too many rounds") if reply is None else reply for reply in replies]

    def repair(self, now: float = START, rounds: int = 30) -> None:
        """Until nothing is left to do."""
        for _ in range(rounds):
            decision = self.core.repairs(now)
            if not decision.writes:
                return
            self.commit(decision)
        raise AssertionError("repairs do not come to an end")


def cluster(*facts: Fact, replicas: int = 1, limits: Limits = Limits()) -> tuple[Store, list[Replica]]:  # noqa: B008
    """A store with the resources in it, and replicas that have read them."""
    store = Store()
    for fact in facts:
        store.put(fact)
    return store, [Replica(store, limits) for _ in range(replicas)]


def check_invariants(blocks: Iterable[Block], handles: Iterable[Handle]) -> dict[str, str]:
    """No address twice, none lost: address -> handle. Raises AssertionError."""
    given: dict[str, tuple[str, int]] = {}
    spans: list[Cidr] = []
    for block in blocks:
        assert fault(block) is None, (block, fault(block))
        cidr = parse(block.cidr)
        spans.append(cidr)
        for allocation in block.allocations:
            given[str(cidr.address(allocation.ordinal))] = (allocation.handle, allocation.sequence)
    spans.sort()
    for one, next_ in pairwise(spans):
        assert one.family != next_.family or one.last < next_.first, f"{one} and {next_} overlap"
    held: dict[str, tuple[str, int]] = {}
    for handle in handles:
        for address, sequence in zip(handle.addresses, handle.sequences, strict=True):
            assert str(parse_address(address)) == address
            assert address not in held, f"{address} is held twice: {held[address]}, {handle.handle}"
            held[address] = (handle.handle, sequence)
    apart = {address: (given.get(address), held.get(address)) for address in given.keys() | held.keys()}
    apart = {address: both for address, both in apart.items() if both[0] != both[1]}
    assert not apart, f"blocks and handles do not agree: {apart}"
    return {address: handle for address, (handle, _) in held.items()}


def check_store(store: Store) -> dict[str, str]:
    return check_invariants(store.values(BLOCK), store.values(HANDLE))


def affinities(store: Store) -> dict[tuple[str, str], str]:
    """(node, block) -> state."""
    return {(a.node, a.cidr): a.state.value for a in store.values(AFFINITY)}


def owners(store: Store) -> dict[str, str | None]:
    """Block -> node."""
    return {block.cidr: block.node for block in store.values(BLOCK)}
