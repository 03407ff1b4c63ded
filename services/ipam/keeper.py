"""Keeps the life of the address records: says that they are new, or has them read back when the bus lost them.

    no epoch --evidence?--none--> ready
                   +--some--> recovering --everybody has spoken--> rebuilt from words and memory --> ready
                   +--only older nodes--> what do the first agents say? --nothing of a life before--> ready, the first
    ready --a node turns up that is older and has not spoken--> recovering

Evidence that there were records once: this replica knew some; the stream held something; an agent announces an
endpoint, holds something or names an epoch. A new bus has none of it, and does not wait. A Node that is older than the
stream is a doubt: a cluster is older than what is installed in it, and a bus that was lost looks the same until
somebody speaks. Agents keep the epoch in mind and what they hold on their disks; so the first of them to speak tell
which it is, and time is left for others to contradict.

Awaited are the nodes that may hold something from before: whoever has a Node resource that is older than this life.
Nothing is given while one of them is awaited (fail closed): what it holds is not known. It is awaited until its agent
speaks, or its Node is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Protocol
from uuid import uuid4

from bus_schemas.events import Event
from bus_schemas.ids import NodeName
from bus_schemas.ipam import Epoch
from bus_schemas.subjects import EPOCH, Fact, Stream
from chassis.bus import Bus
from chassis.errors import Conflict
from chassis.health import Health
from services.ipam.core import Core, Decision, Memory
from services.ipam.life import READY, RECOVERING
from services.ipam.recovery import Recovery, older, owners, records
from services.ipam.release import Behind
from services.ipam.settings import Settings
from services.ipam.words import Words

SLACK_S = 5.0
"""A Node that is younger than the loss by no more than this may be older by another clock."""
SHOWN = 3


class Allocator(Protocol):
    """What of `service.Allocator` is used here."""

    core: Core
    memory: Memory

    @property
    def in_sync(self) -> bool: ...

    async def commit(self, decision: Decision) -> bool: ...

    async def read_what_is_behind(self, behinds: Iterable[Behind]) -> None: ...


class Keeper:
    """`words` are those of a steward, complete when `tend` is called."""

    def __init__(
        self,
        bus: Bus,
        allocator: Allocator,
        health: Health,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._allocator = allocator
        self._core = allocator.core
        self._health = health
        self._settings = settings
        self._now = now
        self._heard: tuple[str, set[NodeName]] = ("", set())
        """An epoch, and who spoke in it."""
        self._first_word = inf
        """When somebody spoke first while there was no epoch (Unix time in seconds)."""

    async def tend(self, words: Words) -> float | None:
        """The next steps; in how many seconds to call again, None: when something was heard. Raises BusError."""
        life = self._core.life
        wait = await self._begin(words) if life.epoch is None else None
        if life.epoch is None:
            return wait
        if life.is_anew or not self._allocator.in_sync:
            return None
        epoch = life.epoch
        self._listen(words, epoch.id)
        if epoch.state == READY:
            if missing := self._late(words, epoch):
                await self._say(Epoch(id=epoch.id, state=RECOVERING, began=epoch.began, missing=missing))
                self._tell("recovering", f"Nodes that are older than the address records turned up: {missing}.")
            return None
        missing = self._awaited(words, epoch)
        if missing != epoch.missing:
            await self._say(Epoch(id=epoch.id, state=RECOVERING, began=epoch.began, missing=missing))
            return 0.0
        if missing:
            return None
        if not self._allocator.memory.handles:
            wait = epoch.began + self._settings.recovery_settle_s - self._now()
            if wait > 0:
                return wait
        await self._rebuild(words)
        await self._say(Epoch(id=epoch.id, state=READY, began=epoch.began))
        self._tell("recovered", f"The address records were read back: {len(self._core.ledger.handles)} handles.")
        return None

    # --- the epoch

    async def _begin(self, words: Words) -> float | None:
        """As `tend`."""
        life, core = self._core.life, self._core
        fact = await self._bus.get(EPOCH, ())
        life.heard(fact)
        if life.epoch is not None:
            return None
        stream = await self._bus.life(Stream.BLOCKS)
        evidence = (
            "this replica knows them" if life.ours else "",
            "the stream held something" if stream.written else "",
            "there are endpoints" if words.any_endpoint else "",
            "agents hold something" if words.any_held else "",
            "agents name an earlier life" if words.epochs else "",
        )
        found = [text for text in evidence if text]
        name = uuid4().hex[:12]
        if found:
            epoch = Epoch(id=name, state=RECOVERING, began=self._now())
            epoch = Epoch(id=name, state=RECOVERING, began=epoch.began, missing=self._awaited(words, epoch))
        else:
            doubt = any(older(at, stream.began) for at in core.desired.created.values())
            if doubt and (wait := self._until_believed(words)):
                return None if wait == inf else wait
            epoch = Epoch(id=name, state=READY, began=stream.began, first=doubt)
        await self._say(epoch)
        if found:
            self._tell("recovering", f"The bus lost the address records ({', '.join(found)}); they are read back.")
        return None

    def _until_believed(self, words: Words) -> float:
        """In how many seconds words that speak of nothing before are believed; infinite: there are none yet."""
        if not words.any_word:
            self._first_word = inf
            return inf
        now = self._now()
        self._first_word = min(self._first_word, now)  # a clock that is set back makes it later at most
        return max(0.0, self._first_word + self._settings.recovery_settle_s - now)

    async def _say(self, epoch: Epoch) -> None:
        """A Conflict is another replica's word, and counts. Raises BusError."""
        life = self._core.life
        try:
            sequence = await self._bus.swap(EPOCH, (), epoch, expected=life.sequence)
        except Conflict:
            life.heard(await self._bus.get(EPOCH, ()))
            raise
        life.heard(Fact(EPOCH, (), epoch, sequence))

    # --- who is awaited

    def _listen(self, words: Words, epoch: str) -> None:
        if self._heard[0] != epoch:
            self._heard = (epoch, set())
        self._heard[1].update(node for node in words.holdings if words.has_spoken(node, epoch))

    def _awaited(self, words: Words, epoch: Epoch) -> tuple[NodeName, ...]:
        created = self._core.desired.created
        return tuple(
            sorted(
                node
                for node, at in created.items()
                if not words.has_spoken(node, epoch.id) and (not at or older(at, epoch.began + SLACK_S))
            )
        )

    def _late(self, words: Words, epoch: Epoch) -> tuple[NodeName, ...]:
        """Older nodes that nobody knew of when the records were read back, or begun."""
        if epoch.first:
            return ()
        late = {
            node
            for node, at in self._core.desired.created.items()
            if node not in self._heard[1] and not words.has_spoken(node, epoch.id) and older(at, epoch.began)
        }
        if late:
            ledger = self._core.ledger
            late.difference_update(ledger.owned, ledger.claims, (held.node for held in ledger.handles.values()))
        return tuple(sorted(late))

    # --- reading back

    async def _rebuild(self, words: Words) -> None:
        """Everything that is known to be held is on the bus when it returns. Raises BusError."""
        memory = self._allocator.memory
        collected = records(words, memory.handles)
        owned = owners(words.holdings, memory.owners)
        read: Sequence[Behind] = ()
        while True:
            draft = self._core.draft(self._now())
            recovery = Recovery(draft, self._core.desired, words, owned, read)
            recovery.take_in(collected.records)
            writes = tuple(draft.writes())
            if not writes and not recovery.behind:
                break
            await self._allocator.commit(Decision(writes=writes))
            await self._allocator.read_what_is_behind(recovery.behind)
            read = recovery.behind
        problems = [*collected.conflicts, *recovery.problems]
        for problem in problems:
            self._tell("conflict", problem)
        shown = "; ".join(problems[:SHOWN]) + ("; ..." if len(problems) > SHOWN else "")
        self._health.note("recovery", shown or None)

    def _tell(self, what: str, message: str) -> None:
        self._bus.emit(Event(time=self._now(), domain="ipam", what=what, node=None, object="epoch", message=message))
