"""This node's word about what it holds: its tunnel and warm addresses, and that all of its endpoints are on the bus.

    EPOCH, AFFINITY of the node, HOLDING of the node --feed--+
    sources (tunnel, warm), Announcements -------------------+--> say --> HOLDING

The address service takes nothing away from a node whose word is current, and reads everything back from these words
when the bus lost its memory (a new `Epoch`). So a word must be true when it arrives, whatever is lost meanwhile:

    1. requests that were sent before the epoch was heard of have ended, and what they brought is noted
    2. what the sources list is taken down
    3. a placeholder is on the bus, or our last word: its sequence is known
    4. every endpoint is on the bus, as a direct read of all of them says
    5. the word is swapped on that sequence

A stream that is wiped after 3 makes 5 conflict, one that is wiped later loses the word with the endpoints. A word that
follows its predecessor under the same epoch needs no 4: that the swap succeeds proves that nothing was lost since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from bus_schemas.ids import BlockCidr, HandleId, NodeName
from bus_schemas.ipam import Epoch, Held, Holding
from bus_schemas.subjects import AFFINITY, EPOCH, HOLDING, Rpc
from chassis.bus import Bus
from chassis.errors import BusError, Conflict, Unavailable
from chassis.feed import Batch, Interest
from chassis.pacing import Pacer
from services.node_dataplane.announcements import Announcements
from services.node_dataplane.endpoint_store import Plugin

TOGETHER_S = 0.05
"""Changes that come within this of each other are one word."""
RETRY_S = 0.5

Source = Callable[[], Iterable[Held]]


class Requester(Protocol):
    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any: ...


class Asking:
    """The bus for those who ask for addresses. What a reply brings must be noted (in the endpoint store, or where a
    source lists it) before the asker awaits anything else: then `ended` knows that it is."""

    def __init__(self, bus: Requester) -> None:
        self._bus = bus
        self._under_way: set[object] = set()
        self._one_ended = asyncio.Event()

    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any:
        token = object()
        self._under_way.add(token)
        try:
            return await self._bus.request(rpc, message, timeout_s=timeout_s)
        finally:
            self._under_way.discard(token)
            self._one_ended.set()

    async def ended(self) -> None:
        """Returns when every request that is under way now has ended, and what it brought is noted."""
        before = set(self._under_way)
        while before & self._under_way:
            self._one_ended.clear()
            await self._one_ended.wait()


def unannounced(plugins: Iterable[Plugin], announcements: Announcements) -> Iterator[Held]:
    """What pods have already that the bus is not told of yet: they are still being plugged in."""
    for plugin in plugins:
        endpoint = plugin.endpoint
        if announcements.covers(endpoint) or not endpoint.handle:
            continue
        yield Held(handle=endpoint.handle, addresses=endpoint.addresses, use="workload")
        if endpoint.floating:
            floating = tuple(address for address, _ in endpoint.floating)
            yield Held(handle=HandleId(f"{endpoint.handle}.floating"), addresses=floating, use="floating")


class HoldingReport:
    def __init__(
        self, node: NodeName, bus: Bus, announcements: Announcements, asking: Asking, sources: Sequence[Source]
    ) -> None:
        """`sources`: what the node holds beside its endpoints; say `mark` when one of them lists something else. An
        address that becomes an endpoint's is announced before its source ceases to list it."""
        self._node = node
        self._bus = bus
        self._announcements = announcements
        self._asking = asking
        self._sources = sources
        self._pacer = Pacer(TOGETHER_S, 1.0, RETRY_S)
        self._in_sync = False
        self._epoch: Epoch | None = None
        self._claims: dict[BlockCidr, None] = {}
        self._before: tuple[BlockCidr, ...] = ()
        """The blocks of the last word that an earlier life left."""
        self._sequence: int | None = None
        """Of our word on the bus; 0: there is none."""
        self._said: Holding | None = None
        """Our word on the bus, as long as nothing suggests that it is not there."""

    @property
    def epoch(self) -> str:
        """The life of the address records that the node knows of."""
        return "" if self._epoch is None else self._epoch.id

    def mark(self) -> None:
        """Something else is held. Cheap, synchronous."""
        self._pacer.mark()

    async def run(self) -> None:
        """For ever."""
        interests = (Interest(EPOCH), Interest(AFFINITY, (self._node,)), Interest(HOLDING, (self._node,)))
        async with self._bus.follow(*interests) as feed, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pacer.run(self._say))
            while True:
                self._learn(await feed.next())

    def _learn(self, batch: Batch) -> None:
        for fact in batch.lost:
            if fact.family is HOLDING:
                self._said, self._sequence = None, 0
        for fact in batch.facts:
            if fact.family is EPOCH:
                self._epoch = fact.value or self._epoch
            elif fact.family is AFFINITY:
                if fact.value is None:
                    self._claims.pop(BlockCidr(fact.key[1]), None)
                else:
                    self._claims[BlockCidr(fact.key[1])] = None
            elif self._sequence is None or fact.sequence > self._sequence or fact.value is None:
                if self._sequence is None and fact.value is not None:
                    self._before = fact.value.blocks
                self._said, self._sequence = None, fact.sequence  # not ours, or not ours any more
        self._in_sync = batch.in_sync
        self._pacer.mark()

    async def _say(self) -> None:
        """Raises BusError."""
        if not self._in_sync:
            return
        try:
            await self._say_once()
        except Conflict:
            fact = await self._bus.get(HOLDING, (self._node,))
            self._said, self._sequence = None, fact.sequence
            raise
        except BusError:
            self._said = None  # it may have arrived, or not
            raise

    async def _say_once(self) -> None:
        epoch = self.epoch
        if self._said is None or self._said.epoch != epoch:
            await self._asking.ended()
        word = self._word(epoch)
        if word == self._said:
            return
        if self._said is None or self._said.epoch != epoch:
            if not self._sequence:
                nothing = Holding(node=self._node, complete=False)
                self._sequence = await self._bus.swap(HOLDING, (self._node,), nothing, expected=0)
            await self._announcements.verify()
        await self._announcements.published()
        if unsaid := self._announcements.refused():
            raise Unavailable(f"the bus does not take the endpoints of {', '.join(map(str, unsaid))}")
        assert self._sequence is not None
        self._sequence = await self._bus.swap(HOLDING, (self._node,), word, expected=self._sequence)
        self._said = word

    def _word(self, epoch: str) -> Holding:
        blocks = set(self._claims)
        if self._epoch is None or self._epoch.state != "ready":
            blocks.update(self._before)
        held = [held for source in self._sources for held in source()]
        return Holding(
            node=self._node,
            epoch=epoch,
            held=tuple(sorted(held, key=lambda one: one.handle)),
            blocks=tuple(sorted(blocks)),
        )
