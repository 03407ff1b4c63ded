"""The allocator: facts in, and for requests a decision, which is writes to try and answers to give once they are done.

    apply, learned, committed --> Desired (pools, nodes, namespaces)
                                  Ledger  (blocks, affinities, handles, with sequences)
                                     |
    decide(requests, now) -----> Draft: assign / release -----> Decision(writes, replies, rests_on)
    repairs(now) --------------> Draft: affinity steps  ------> Decision(writes)

A decision changes nothing here. Its writes are one atomic batch of compare-and-swaps; when that is done the shell says
so (`committed`), and answers. When it conflicts, the shell reads the keys again (`learned`) and asks again. Requests
without a reply are asked again after the commit: they wait for the second phase of a claim, or for room in a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from bus_schemas.events import Event
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import (
    LOAD_BALANCER,
    Affinity,
    AffinityState,
    Assigned,
    AssignReply,
    AssignRequest,
    Busy,
    Handle,
    PoolExhausted,
    Refused,
    ReleaseReply,
    ReleaseRequest,
    tunnel_handles,
)
from bus_schemas.subjects import AFFINITY, BLOCK, CANDIDATE, EPOCH, HANDLE, Fact, Family, Key
from services.ipam.affinity import Verdict, next_step, take_step, verdict
from services.ipam.assign import Waiting, assign
from services.ipam.block import Withholding
from services.ipam.cidr import Cidr, parse, parse_address
from services.ipam.desired import CONFIGURATION, NAMESPACE, NODE, POOL, RESERVATION, Desired
from services.ipam.draft import Draft, Write
from services.ipam.ledger import Ledger, Where
from services.ipam.life import Life
from services.ipam.limits import Limits
from services.ipam.mending import mended
from services.ipam.release import Behind, handle_of, release, release_all

READS = (POOL, RESERVATION, CONFIGURATION, NODE, NAMESPACE, EPOCH, CANDIDATE, BLOCK, AFFINITY, HANDLE)
"""The epoch comes first: what vanished with it was lost, not deleted."""
WRITES = (BLOCK, AFFINITY, HANDLE)

REPAIRS_AT_ONCE = 64
"""Claims and tunnel handles that one `repairs` looks after: a conflict on one spoils the batch for all of them."""

ROOM = 800
"""A decision that has touched so many keys takes no further request: what one request adds (`assign.MAX_ADDRESSES`)
still fits in an atomic batch of 1,000 writes."""

Request = AssignRequest | ReleaseRequest
Reply = AssignReply | ReleaseReply


@dataclass(frozen=True)
class Decision:
    writes: tuple[Write, ...] = ()
    """All or none of them, in this order."""
    replies: tuple[Reply | None, ...] = ()
    """One for each request, true once the writes are done; None: ask again then."""
    rests_on: Mapping[int, tuple[Fact, ...]] = field(default_factory=dict)
    """By index of the request: what its reply only read. Read it again before answering, see `stands`."""
    behind: tuple[Behind, ...] = ()
    """Why some requests have no reply although they wait for no write: read these blocks again, or let the feed catch
    up."""
    events: tuple[Event, ...] = ()
    """What will have happened."""


def stands(believed: Fact, read: Fact) -> bool:
    """Whether what a reply rests on is still so. What is remembered only is on no bus, so it is not."""
    if believed.value is None or read.value is None:
        return believed.value is read.value
    return read.sequence == believed.sequence


class Memory(NamedTuple):
    """What was so in an earlier life of the records."""

    handles: tuple[Handle, ...] = ()
    owners: Mapping[Cidr, NodeName] = {}


class Core:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.life = Life()
        self.desired = Desired()
        self.ledger = Ledger()
        self.candidates: dict[HandleId, Fact] = {}
        """Handles that look forgotten."""
        self._unsettled: set[Cidr] = set()
        """Blocks and claims to look after; they stay until nothing is left to do."""
        self._under_way: Counter[Cidr] = Counter()
        """Blocks that decisions claim which are being written."""
        self._changed_pools: dict[str, set[Cidr]] = {}
        """Pools that changed since the last look after blocks, and where they are and were."""
        self._departed: set[NodeName] = set()
        """Nodes that left and may still have tunnel addresses."""
        self._later: dict[Cidr, float] = {}
        """Blocks that go when their addresses have cooled down, and when that is (Unix time in seconds)."""

    # --- what is so

    @property
    def limits(self) -> Limits:
        """As they are now: the service's settings, and what IPAMConfiguration says."""
        return self._limits.configured(self.desired.configuration)

    def apply(self, fact: Fact) -> None:
        """From the feed, in any order, any number of times."""
        if fact.family is POOL:
            before = self.desired.pools.get(fact.key[1])
            self.desired.apply_pool(fact)
            after = self.desired.pools.get(fact.key[1])
            if before != after or fact.value is None:
                cidrs = {pool.cidr for pool in (before, after) if pool is not None}
                self._changed_pools.setdefault(fact.key[1], set()).update(cidrs)
        elif fact.family is RESERVATION:
            self.desired.apply_reservation(fact)
        elif fact.family is CONFIGURATION:
            self.desired.apply_configuration(fact)
            self._unsettled.update(self._later)
        elif fact.family is NODE:
            name = NodeName(fact.key[1])
            ranges = {*self.desired.pod_cidrs(name)}
            self.desired.apply_node(fact)
            self._unsettle_node(name)
            for pool in ranges ^ {*self.desired.pod_cidrs(name)}:
                self._unsettled.update(self.ledger.within(pool.cidr))
        elif fact.family is NAMESPACE:
            self.desired.apply_namespace(fact)
        elif fact.family is EPOCH:
            self.life.heard(fact)
        elif fact.family is CANDIDATE:
            self.candidates.pop(HandleId(fact.key[0]), None)
            if fact.value is not None:
                self.candidates[HandleId(fact.key[0])] = fact
        elif fact.value is None and not fact.sequence and self.life.epoch is None:
            self.ledger.learned(fact)  # it was not deleted: all is lost
        elif self.ledger.apply(fact):
            self._unsettle(fact)

    def learned(self, fact: Fact) -> None:
        """From a direct read of a key that conflicted, or of one that a wiped stream no longer holds."""
        self.ledger.learned(fact)
        self._unsettle(fact)

    def cannot_read(self, family: Family[Any], key: Key, sequence: int, reason: str) -> None:
        """From the feed or a direct read: what lies under one of our keys is no message."""
        self.ledger.cannot_read(family, key, sequence, reason)

    def begin_anew(self) -> Memory:
        """The records have another life: everything is to be told again. What was so in the former one."""
        owners = {cidr: block.node for cidr, block in self.ledger.blocks.items() if block.node is not None}
        memory = Memory(tuple(self.ledger.handles.values()), owners)
        self.ledger = Ledger()
        self.candidates.clear()
        self._unsettled.clear()
        self._later.clear()
        self.life.begin_anew()
        return memory

    def committed(self, writes: Iterable[Write], sequences: Iterable[int]) -> None:
        """The writes of a decision are done; `sequences` in their order."""
        facts = [Fact(w.family, w.key, w.message, s) for w, s in zip(writes, sequences, strict=True)]
        self.ledger.committed(facts)
        for fact in facts:
            self._unsettle(fact)

    @property
    def faults(self) -> Mapping[Where, str]:
        """What is on the bus and cannot be worked with: it is left alone, and so are its addresses."""
        pools: dict[Where, str] = {(POOL, ("", name)): text for name, text in self.desired.malformed_pools.items()}
        reserved = self.desired.reserved.faults
        reservations: dict[Where, str] = {(RESERVATION, ("", "")): "; ".join(reserved)} if reserved else {}
        return {**self.ledger.faults, **pools, **reservations}

    def node_of(self, request: Request) -> NodeName:
        """The node whose turn it is: requests with the same answer wait in one queue. Empty: nobody knows."""
        if request.node is not None:
            return request.node
        draft = Draft(self.ledger)
        try:
            handle = handle_of(draft, request) if isinstance(request, ReleaseRequest) else request.handle
        except ValueError:
            return NodeName("")
        held = None if handle is None else self.ledger.handles.get(handle)
        return NodeName("") if held is None else held.node

    # --- what to do

    def decide(self, requests: Sequence[Request], now: float) -> Decision:
        """`now`: Unix time in seconds."""
        limits = self.limits
        draft = self.draft(now)
        replies: list[Reply | None] = []
        concerned: list[HandleId | None] = []
        waiting: set[HandleId | None] = set()
        behind: list[Behind] = []
        for request in requests:
            if isinstance(request, AssignRequest):
                handle: HandleId | None = request.handle
            else:
                handle = _released_handle(draft, request)
            concerned.append(handle)
            if (handle is not None and handle in waiting) or draft.touched >= ROOM:
                replies.append(None)
                continue
            reply: Reply | Waiting | Behind
            if handle is not None and (HANDLE, (handle,)) in self.ledger.unreadable:
                reply = Busy(reason=f"handle {handle}: {self.ledger.faults[HANDLE, (handle,)]}")
            elif handle is not None and (HANDLE, (handle,)) in self.ledger.faults:
                reply = Refused(reason=f"handle {handle}: {self.ledger.faults[HANDLE, (handle,)]}")
            elif isinstance(request, AssignRequest):
                reply = assign(draft, self.desired, limits, request)
                self._remember_use(draft, request.handle, reply)
            else:
                reply = release(draft, request)
            if isinstance(reply, Waiting | Behind):
                waiting.add(handle)
                replies.append(None)
                if isinstance(reply, Behind):
                    behind.append(reply)
            else:
                replies.append(reply)
        for reason in dict.fromkeys(reply.reason for reply in replies if isinstance(reply, PoolExhausted)):
            node = requests[0].node
            if node != LOAD_BALANCER:  # its Services ask again and again: `load_balancer` tells what is new
                draft.tell("exhausted", reason, node=node, object=node or "")
        writes = draft.writes()
        assert writes or behind or None not in replies, "a request waits for nothing"
        return Decision(
            writes=tuple(writes),
            replies=tuple(replies),
            rests_on=_rests_on(draft, requests, replies, concerned),
            behind=tuple(behind),
            events=tuple(draft.events),
        )

    def _remember_use(self, draft: Draft, handle: HandleId, reply: object) -> None:
        """Who asks again for what looks forgotten uses it: that it does is written, so that nobody takes it away."""
        held = draft.handle(handle)
        if isinstance(reply, Assigned) and reply.repeated and held is not None and handle in self.candidates:
            draft.set_handle(handle, msgspec.structs.replace(held, assigned=draft.now))

    def repairs(self, now: float) -> Decision:
        """The next steps of claims that are not as they should be, and of nodes that left; before that, what a wiped
        stream lost, and what cannot be read any more. No writes: all is well."""
        if self.ledger.lost:
            return Decision(writes=self._restored())
        if writes := mended(self.ledger, self.desired, now):
            return Decision(writes=tuple(writes[:REPAIRS_AT_ONCE]))
        if self._changed_pools:
            self._unsettle_pools()
        draft = self.draft(now)
        steps = 0
        for node in sorted(self._departed):
            found = (self.ledger.handles.get(handle) for handle in tunnel_handles(node))
            tunnels = [held for held in found if held is not None]
            if node not in self.desired.gone_nodes or not tunnels:
                self._departed.discard(node)
            for held in tunnels if node in self._departed and steps < REPAIRS_AT_ONCE else ():
                release_all(draft, held)
                steps += 1
        # what is due later than a rest lasts was put off by a clock that has been set back since
        rest = draft.withholding.cooldown_s
        self._unsettled.update(cidr for cidr, due in self._later.items() if not now < due <= now + rest)
        for cidr in sorted(self._unsettled):
            if steps >= REPAIRS_AT_ONCE:
                break
            self._later.pop(cidr, None)
            taken = self._settle(draft, cidr)
            steps += taken
            if not taken:
                self._unsettled.discard(cidr)
        return Decision(writes=tuple(draft.writes()), events=tuple(draft.events))

    @property
    def due(self) -> float | None:
        """When there may be something to repair although nobody said anything (Unix time in seconds); None: never."""
        return min(self._later.values(), default=None)

    def draft(self, now: float) -> Draft:
        """A change of the ledger in the making."""
        return Draft(self.ledger, Withholding(now, self.limits.cooldown_s, self.desired.reserved), self._under_way)

    @contextmanager
    def under_way(self, decision: Decision) -> Iterator[None]:
        """While a decision is being written, others keep off the blocks that it claims: nodes that begin at the same
        moment, and whose order of blocks begins at the same place, would make each other's decisions void."""
        claimed = [
            parse(write.key[1])
            for write in decision.writes
            if isinstance(write.message, Affinity) and write.message.state is AffinityState.PENDING
        ]
        self._under_way.update(claimed)
        try:
            yield
        finally:
            self._under_way.subtract(claimed)
            for cidr in claimed:
                if not self._under_way[cidr]:
                    del self._under_way[cidr]

    def _restored(self) -> tuple[Write, ...]:
        order = [family.name for family in WRITES]
        lost = sorted(self.ledger.lost, key=lambda where: (order.index(where[0].name), where[1]))
        facts = [self.ledger.fact(family, key) for family, key in lost[:REPAIRS_AT_ONCE]]
        return tuple(Write(fact.family, fact.key, fact.value, fact.sequence) for fact in facts)

    def _settle(self, draft: Draft, cidr: Cidr) -> int:
        """How many steps it took."""
        if (BLOCK, (cidr.text,)) in self.ledger.faults:
            return 0
        # What this draft changed already is looked after once that is committed.
        block = self.ledger.blocks.get(cidr)
        if draft.block(cidr) is not block or draft.changed(cidr):
            return 1
        nodes = set(self.ledger.claimants.get(cidr, ()))
        steps = 0
        unwanted = False
        if block is not None:
            pool = self.desired.pool_of_block(cidr, block)
            if pool is not None and pool.name != block.pool:
                draft.move(cidr, pool.name)
                draft.tell("moved", f"It is part of {pool} now.", node=block.node, object=cidr.text, before=block.pool)
                return 1
            if block.node is not None:
                nodes.add(block.node)
            elif draft.unused(cidr):
                draft.remove(cidr)
                draft.tell("removed", "Nobody's block is empty and goes.", node=None, object=cidr.text)
                steps += 1
            else:
                unwanted = True
        for node in sorted(nodes):
            judged = verdict(self.desired, node, cidr, block)
            step = next_step(draft.affinity(node, cidr), block, node, judged, empty=draft.unused(cidr))
            unwanted |= judged is not Verdict.KEEP
            if step is not None:
                take_step(draft, step, node, cidr)
                steps += 1
        if unwanted and not steps and not draft.given(cidr) and (cooling := draft.cooling(cidr)):
            self._later[cidr] = max(cooling) + draft.withholding.cooldown_s
        return steps

    def _unsettle(self, fact: Fact) -> None:
        if fact.family is HANDLE:
            if fact.value is not None and fact.value.node in self.desired.gone_nodes:
                self._departed.add(fact.value.node)
            return
        if (fact.family, fact.key) not in self.ledger.faults:
            with suppress(ValueError):  # what was under a key that is no network is gone
                self._unsettled.add(parse(fact.key[-1]))

    def _unsettle_node(self, node: NodeName) -> None:
        self._unsettled |= self.ledger.owned.get(node, set()) | self.ledger.claims.get(node, set())
        if node in self.desired.gone_nodes:
            self._departed.add(node)

    def _unsettle_pools(self) -> None:
        """What lies, or lay, in the pools that changed: one look at everything for all of them."""
        names, cidrs = {*self._changed_pools}, {cidr for both in self._changed_pools.values() for cidr in both}
        self._changed_pools.clear()
        ledger = self.ledger
        for pool in cidrs:
            self._unsettled.update(ledger.within(pool))
        claimed = [cidr for cidr in ledger.claimants if cidr not in ledger.blocks]
        self._unsettled.update(cidr for cidr in claimed if any(pool.holds(cidr) for pool in cidrs))
        self._unsettled.update(cidr for cidr, block in ledger.blocks.items() if block.pool in names)


def _released_handle(draft: Draft, request: ReleaseRequest) -> HandleId | None:
    try:
        return handle_of(draft, request)
    except ValueError:
        return None


def _rests_on(
    draft: Draft, requests: Sequence[Request], replies: Sequence[Reply | None], handles: Sequence[HandleId | None]
) -> dict[int, tuple[Fact, ...]]:
    rests: dict[int, tuple[Fact, ...]] = {}
    for index, (request, reply, handle) in enumerate(zip(requests, replies, handles, strict=True)):
        if reply is None:
            continue
        believed = [] if handle is None else [draft.believed(handle)]
        if isinstance(reply, Refused) and isinstance(request, AssignRequest):
            if request.takes_over is not None:
                believed.append(draft.believed(request.takes_over))
            believed += [draft.believed_block(cidr) for cidr in _blocks_of(draft, request)]
        if found := tuple(fact for fact in believed if fact is not None):
            rests[index] = found
    return rests


def _blocks_of(draft: Draft, request: AssignRequest) -> set[Cidr]:
    """The blocks of the addresses that a request names, as far as they can be worked with."""
    found: set[Cidr] = set()
    for text in request.addresses:
        with suppress(ValueError):
            cidr = draft.ledger.block_at(parse_address(text))
            if cidr in draft.ledger.blocks:
                found.add(cidr)
    return found
