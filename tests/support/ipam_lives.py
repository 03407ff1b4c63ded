"""Replicas, keepers, collectors and agents that a test advances one bus operation at a time.

    Coroutines of `services.ipam.keeper` and `.collector` run on a `ModelBus`, which stops before every operation: the
    test says who goes on, who is killed there, and what happens in between. No event loop, no clock.

A `Store` (tests/support/ipam) is the bus; `wipe` loses the records as a purged or re-created stream does. A
`LivingReplica` is a core behind a feed that lags, as `services.ipam.service` runs it through the lives of the records.
A `ModelAgent` keeps the promises of `services.node_dataplane.holding` and of the agent's debts, and no others.
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Coroutine, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bus_schemas.endpoints import Endpoint
from bus_schemas.events import Event
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Busy, Epoch, Holding, Released, ReleaseRequest
from bus_schemas.resources import Metadata, Node
from bus_schemas.subjects import (
    AFFINITY,
    BLOCK,
    CANDIDATE,
    DESIRED,
    ENDPOINT,
    EPOCH,
    HANDLE,
    HOLDING,
    STATUS,
    Fact,
    Family,
    Key,
    Stream,
)
from chassis.bus import Life, Write
from chassis.errors import Conflict
from chassis.feed import Batch, Interest
from services.ipam.core import READS, Core, Decision, Memory, Reply, Request, stands
from services.ipam.limits import Limits
from services.ipam.release import Behind
from services.ipam.words import Words
from tests.support.ipam import START, Store, StoreConflict

RECORDS = (EPOCH, CANDIDATE, BLOCK, AFFINITY, HANDLE)
WIPED = Fact(EPOCH, (), "wiped", 0)
"""In the log where the records were lost."""


def stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Records(Store):
    """The bus, whose records can be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life(START, False)
        self.lives = 0

    def wipe(self, now: float, *, made_anew: bool) -> None:
        for family in RECORDS:
            self.lose(family)
        self.log.append(WIPED)
        self.lives += 1
        self.life = Life(now, False) if made_anew else Life(self.life.began, True)

    def swap(self, writes: Sequence[Write]) -> list[int]:
        for write in writes:
            found = self.get(write.family, write.key)
            expected = found.sequence if write.expected == 0 and found.value is None else write.expected
            if found.sequence != expected:
                raise Conflict(write.family.name, expected=write.expected or 0, actual=found.sequence)
            if write.family in RECORDS:
                self.life = self.life._replace(written=True)
        return [self._append(write.family, write.key, write.message) for write in writes]

    def snapshot(self, families: Iterable[Family[Any]]) -> list[Fact]:
        """Tombstones included, as a feed tells them."""
        wanted = tuple(families)
        found = [fact for where, fact in self._last.items() if where[0] in wanted]
        return sorted(found, key=lambda fact: (wanted.index(fact.family), fact.sequence))


@types.coroutine
def _turn() -> Generator[None, None, None]:
    """Others may go first, or we are killed here."""
    yield


class ModelBus:
    """What keepers and collectors use of a `Bus`."""

    def __init__(self, store: Records) -> None:
        self._store = store
        self.alive: set[str] = set()
        self.events: list[Event] = []

    async def get(self, family: Family[Any], key: Key) -> Fact:
        await _turn()
        return self._get(family, key)

    def _get(self, family: Family[Any], key: Key) -> Fact:
        if family is STATUS:
            return Fact(family, key, "alive" if key[1] in self.alive else None, 1)
        return self._store.get(family, key)

    async def get_many(self, keys: Sequence[tuple[Family[Any], Key]]) -> list[Fact]:
        await _turn()
        return [self._get(*where) for where in keys]

    async def swap(self, family: Family[Any], key: Key, message: Any, *, expected: int) -> int:
        return (await self.batch([Write(family, key, message, expected)]))[0]

    async def batch(self, writes: Sequence[Write]) -> list[int]:
        await _turn()
        return self._store.swap(writes)

    async def life(self, stream: Stream) -> Life:
        await _turn()
        return self._store.life

    def emit(self, event: Event) -> None:
        self.events.append(event)

    @asynccontextmanager
    async def follow(self, *interests: Interest) -> AsyncIterator[OneSnapshot]:
        await _turn()
        yield OneSnapshot(self._store, interests)


class OneSnapshot:
    """A feed that says what there is, and no more."""

    def __init__(self, store: Records, interests: Sequence[Interest]) -> None:
        self._facts = [
            fact
            for fact in store.snapshot([interest.family for interest in interests])
            if any(fact.family is i.family and fact.key[: len(i.leading)] == i.leading for i in interests)
        ]
        self.in_sync = False

    async def next(self) -> Batch:
        self.in_sync = True
        return Batch(self._facts, frozenset(), True)


class LivingReplica:
    """As `service.Allocator` around its core, and what its steward hears."""

    def __init__(self, store: Records, limits: Limits) -> None:
        self.store = store
        self._limits = limits
        self.restart()

    def restart(self) -> None:
        self.core = Core(self._limits)
        self.memory = Memory()
        self.words = Words()
        self._complete = False
        self._read_all()

    @property
    def in_sync(self) -> bool:
        return True

    def _read_all(self) -> None:
        self._at = len(self.store.log)
        for fact in self.store.snapshot(READS):
            self.core.apply(fact)
        self.words = Words(self.store.snapshot((ENDPOINT, HOLDING)))
        self._complete = bool(self.core.life.token)

    def hear(self, facts: int | None = None) -> None:
        """The next facts of the log, or all of them."""
        until = len(self.store.log) if facts is None else min(len(self.store.log), self._at + facts)
        while self._at < until:
            fact = self.store.log[self._at]
            self._at += 1
            if fact is WIPED:
                self._lost()
            elif fact.family in (ENDPOINT, HOLDING):
                self.words.apply(fact)
            else:
                self.core.apply(fact)
            self._complete |= bool(self.core.life.token)
        self.live_on()

    def _lost(self) -> None:
        self.core.life.heard(Fact(EPOCH, (), None, 0))
        for where in [
            *((BLOCK, (cidr.text,)) for cidr in self.core.ledger.blocks),
            *((AFFINITY, (node, cidr.text)) for node, cidr in self.core.ledger.affinities),
            *((HANDLE, (handle,)) for handle in self.core.ledger.handles),
        ]:
            self.core.learned(Fact(*where, None, 0))  # type: ignore[arg-type]

    def live_on(self) -> None:
        """In the records' present life, if that is another."""
        if self.core.life.is_anew:
            complete = self._complete
            memory = self.core.begin_anew()
            if complete:
                self.memory = memory
            self._read_all()

    async def commit(self, decision: Decision) -> bool:
        await _turn()
        try:
            sequences = self.store.batch(decision.writes)
        except StoreConflict:
            for write in decision.writes:
                self.core.learned(self.store.get(write.family, write.key))
            return False
        self.store.life = self.store.life._replace(written=True)
        self.core.committed(decision.writes, sequences)
        return True

    async def read_what_is_behind(self, behinds: Iterable[Behind]) -> None:
        await _turn()
        for behind in behinds:
            self.core.learned(self.store.get(HANDLE, (behind.handle,)))
            if behind.block is not None:
                self.core.learned(self.store.get(BLOCK, (behind.block.text,)))

    async def settle(self, request: Request, now: float) -> Reply:
        """As `Allocator._settle` for one request."""
        for _ in range(12):
            if self.core.ledger.lost:
                await _turn()
                self.core.life.heard(self.store.get(EPOCH, ()))
            life = self.core.life.token
            if not life:
                return Busy(reason=self.core.life.closed)
            decision = self.core.decide([request], now)
            if not await self.commit(decision):
                continue
            [reply] = decision.replies
            if reply is not None:
                await _turn()
                self.core.life.heard(self.store.get(EPOCH, ()))
                if self.core.life.token != life:
                    continue
                believed = [fact for facts in decision.rests_on.values() for fact in facts]
                read = [self.store.get(fact.family, fact.key) for fact in believed]
                if all(map(stands, believed, read)):
                    return reply
                for fact in read:
                    self.core.learned(fact)
            await self.read_what_is_behind(decision.behind)
        return Busy(reason="too many rounds")

    async def repair(self, now: float) -> None:
        """As `Allocator.tend`."""
        for _ in range(6):
            if self.core.life.closed:
                return
            decision = self.core.repairs(now)
            if not decision.writes:
                return
            await self.commit(decision)


@dataclass
class Ask:
    """A request of an agent under way."""

    request: AssignRequest
    epoch: str
    """What the agent knew when it asked."""
    life: int
    """The agent's."""
    awaited: bool = True
    reply: Reply | None = None


@dataclass
class ModelAgent:
    node: NodeName
    created: float
    pods: dict[HandleId, tuple[str, ...]] = field(default_factory=dict)
    """Durable, as are the debts."""
    owed: list[HandleId] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    epoch: str = ""
    alive: bool = True
    life: int = 0

    def resource(self) -> Fact:
        metadata = Metadata(name=self.node, creation_timestamp=stamp(self.created))
        return Fact(DESIRED[Node], ("", self.node), Node(metadata=metadata))

    def announce(self, store: Records) -> None:
        """The bus has every endpoint and no other."""
        wanted = {("default", handle): addresses for handle, addresses in self.pods.items()}
        for fact in store.snapshot((ENDPOINT,)):
            if fact.key[0] == self.node and fact.key[1:] not in wanted and fact.value is not None:
                store.put(fact._replace(value=None))
        for key, addresses in wanted.items():
            endpoint = Endpoint(
                node=self.node,
                namespace="default",
                name=key[1],
                container=key[1],
                handle=key[1],
                link="tor",
                addresses=addresses,
            )
            if store.get(ENDPOINT, (self.node, *key)).value != endpoint:
                store.put(Fact(ENDPOINT, (self.node, *key), endpoint))

    def listen(self, store: Records) -> None:
        """It follows the epoch, and keeps the last one in mind."""
        epoch: Epoch | None = store.get(EPOCH, ()).value
        self.epoch = epoch.id if epoch is not None else self.epoch

    def speak(self, store: Records) -> None:
        """Its word, unless an answer to what was asked before the epoch was heard of may still come."""
        self.listen(store)
        if any(ask.awaited and ask.epoch != self.epoch for ask in self.asks):
            return
        self.announce(store)
        blocks = tuple(a.cidr for a in store.values(AFFINITY) if a.node == self.node)
        store.put(Fact(HOLDING, (self.node,), Holding(node=self.node, epoch=self.epoch, blocks=blocks)))

    def ask(self, request: AssignRequest) -> Ask:
        asked = Ask(request, self.epoch, self.life)
        self.asks.append(asked)
        return asked

    def hear(self, asked: Ask) -> None:
        """The answer arrives, if there is one and somebody waits for it."""
        if asked not in self.asks or asked.reply is None:
            return
        self.asks.remove(asked)
        handle = asked.request.handle
        if isinstance(asked.reply, Assigned):
            self.pods[handle] = asked.reply.addresses
            if handle in self.owed:
                self.owed.remove(handle)
        else:
            self._owe(handle)

    def give_up(self, asked: Ask) -> None:
        if asked in self.asks:
            self.asks.remove(asked)
            self._owe(asked.request.handle)

    def delete(self, handle: HandleId) -> None:
        if self.pods.pop(handle, None) is not None:
            self._owe(handle)

    def _owe(self, handle: HandleId) -> None:
        if handle not in self.owed and handle not in self.pods:
            self.owed.append(handle)

    def die(self) -> None:
        self.alive = False
        self.life += 1
        self.asks.clear()

    def paid(self, request: ReleaseRequest, reply: Reply) -> None:
        if isinstance(reply, Released) and request.handle in self.owed:
            self.owed.remove(request.handle)


@dataclass
class Running:
    """A coroutine between two operations."""

    replica: int
    life: int
    """The replica's: it dies with it."""
    coroutine: Coroutine[Any, Any, Any]
    asked: Ask | None = None
    release: tuple[ModelAgent, ReleaseRequest] | None = None
    done: bool = False
    result: Any = None

    def step(self) -> None:
        """To the next operation, or to the end. What the bus refuses ends it: it is tried again another time."""
        try:
            self.coroutine.send(None)
        except StopIteration as end:
            self.done, self.result = True, end.value
        except Conflict:
            self.done = True

    def kill(self) -> None:
        self.coroutine.close()
        self.done = True
