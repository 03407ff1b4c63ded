"""The shell around the core: requests wait in a queue for each node, one worker a node answers all that wait at once.

    rpc assign, release --> queue of the node --> worker: core.decide -> commits -> core.committed -> replies
                                                     ^                      | conflict
                                                     +-- read the keys <----+ pause, longer every time
    feed --> core.apply --> tend: core.repairs -> commits

The clock, the dice, the bus and the counting are here. A reply is sent when what it says is stored and, where it only
repeats what is stored, when that was read again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bus_schemas.ids import NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Busy, PoolExhausted, Released
from bus_schemas.subjects import ASSIGN, BLOCK, EPOCH, HANDLE, RELEASE, Fact, Family, Key, family_of
from chassis.bus import Bus, Write
from chassis.errors import Conflict, Rejected, Unavailable, Unreadable
from chassis.feed import Batch, Feed, Interest
from chassis.health import Health
from chassis.pacing import Pacer
from chassis.runner import Context
from services.ipam import metrics
from services.ipam.commits import Commits
from services.ipam.core import READS, WRITES, Core, Decision, Memory, Reply, Request, stands
from services.ipam.duties import Duties, Duty
from services.ipam.limits import Limits
from services.ipam.load_balancer import LoadBalancer
from services.ipam.reads import Reads
from services.ipam.release import Behind
from services.ipam.settings import Settings
from services.ipam.steward import Steward
from services.ipam.usage import Meter, Usage

REQUESTS_AT_ONCE = 256
"""Requests that one decision answers at most: a batch holds up to 1,000 writes."""
MAX_WAITING = 10_000
"""Requests that may wait for one node; more are told that it is busy."""
NODES_AT_ONCE = 256
"""Nodes whose requests are being decided and written; the others wait for their turn. As many as fill a batch while
another is on its way: with more of them all would be answered at the end of a storm, and most of them too late, rather
than one after the other."""
MAX_OPEN = 30_000
"""Requests that may be open at once, of all nodes. What waits here costs a few kilobytes and goes in large batches;
what is turned away comes again and again, and a storm of that is more work than the addresses (see
benchmarks/RESULTS.md, "Storms")."""
FAULTS_SHOWN = 5
SOON_S = 0.05
LOOK_S = 1.0

NOT_IN_SYNC = "ipam has not yet read its pools and blocks"


@dataclass
class _Waiting:
    request: Request
    reply: asyncio.Future[Reply]


class Allocator:
    """One replica at work. `now` is Unix time in seconds; `dice` makes replicas that collided pause differently."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        health: Health,
        tasks: asyncio.TaskGroup,
        *,
        now: Callable[[], float] = time.time,
        dice: random.Random | None = None,
    ) -> None:
        self.core = Core(settings.limits)
        self._bus = bus
        self._settings = settings
        self._health = health
        self._tasks = tasks
        self._now = now
        self._dice = dice or random.Random()
        self._in_sync = False
        self.on_sync: Callable[[], None] = lambda: None
        """Called when everything was read once."""
        self.on_limits: Callable[[Limits], None] = lambda limits: None
        """Called with what holds now whenever something was heard."""
        self.on_heard: Callable[[Batch], None] = lambda batch: None
        """Called with everything that was heard, once the core knows it."""
        self.memory = Memory()
        """What was so before the bus lost the records, as far as this replica knew all of it."""
        self._complete = False
        """The ledger was that of a life in which addresses are given."""
        self._meter = Meter()
        self._queues: dict[NodeName, deque[_Waiting]] = {}
        self._turns = asyncio.Semaphore(NODES_AT_ONCE)
        self._commits = Commits(bus, tasks)
        self._reads = Reads(bus, tasks)
        self._tending = Pacer(min_s=0.05, max_s=1.0, retry_s=1.0)
        self._alarm: asyncio.TimerHandle | None = None
        self.load_balancer = LoadBalancer(bus, self.core, self.answer, grace_s=settings.leak_grace_s, now=now)
        health.fail("ipam", NOT_IN_SYNC)

    # --- what is so

    @property
    def in_sync(self) -> bool:
        return self._in_sync

    async def follow(self) -> None:
        """For ever: tells the core what the bus says, and everything anew when the records have begun another life."""
        while True:
            async with self._bus.follow(*map(Interest, READS)) as feed:
                await self._follow(feed)
            served, self._in_sync = self._in_sync, False
            memory = self.core.begin_anew()
            if served and self._complete:
                self.memory = memory  # one that began to read already forgets nothing of what was known before
            self._complete = False
            self._health.fail("ipam", NOT_IN_SYNC)

    async def _follow(self, feed: Feed) -> None:
        """Until the records have begun another life."""
        life = self.core.life
        while not life.is_anew:
            batch = await feed.next()
            for fact in batch.lost:
                if fact.family is EPOCH:
                    life.heard(fact)
                elif fact.family in WRITES:
                    self.core.learned(fact)
            for fact in batch.facts:
                self.core.apply(fact)
            for unreadable in batch.unreadable:
                self._cannot_read(unreadable)
            if batch.in_sync and not self._in_sync:
                self._in_sync = True
                self._health.ok("ipam")
                self.on_sync()
            self._complete |= bool(life.token)
            self._show()
            self.on_limits(self.core.limits)
            self.on_heard(batch)
            if self._in_sync:
                self._tending.mark()

    async def tend(self) -> None:
        """For ever: gives back, adopts and restores what nobody asks for."""
        await self._tending.run(self._repair)

    async def _repair(self) -> None:
        """Raises what the bus does: it is tried again. A refusal does not pass by itself, so it is named."""
        try:
            await self._repair_all()
        except Rejected as error:
            self._health.note("ipam refused", f"the bus refuses what has to be repaired: {error}")
            raise
        self._health.note("ipam refused", None)

    async def _repair_all(self) -> None:
        failures = 0
        if self.core.life.epoch is None:
            await self._look_for_the_epoch()
        while not self.core.life.closed:
            decision = self.core.repairs(self._now())
            if not decision.writes:
                self._set_alarm()
                return
            if not await self.commit(decision):
                failures += 1
                await self._pause(failures)

    async def _look_for_the_epoch(self) -> None:
        """The feed may have told all that it will: a server that lags behind seemed to have lost it."""
        self.core.life.heard(await self._bus.get(EPOCH, ()))
        self._show()
        if self.core.life.epoch is None:
            self._wake(LOOK_S)

    def _set_alarm(self) -> None:
        """What cools down is looked after when it has."""
        due = self.core.due
        if due is not None:
            self._wake(max(SOON_S, due - self._now()))

    def _wake(self, after_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(after_s, self._tending.mark)

    def _show(self) -> None:
        if closed := self.core.life.closed:
            self._health.fail("epoch", closed)
        else:
            self._health.ok("epoch")
        faults = [
            f"{' '.join((family.name, *filter(None, key)))}: {text}" for (family, key), text in self.core.faults.items()
        ]
        shown = "; ".join(faults[:FAULTS_SHOWN]) + ("; ..." if len(faults) > FAULTS_SHOWN else "")
        self._health.note("ipam set aside", shown or None)

    def usage(self) -> Usage:
        """How addresses are used right now."""
        desired = self.core.desired
        return self._meter.read(self.core.ledger, desired.pools.values(), desired.reserved)

    # --- requests

    async def answer(self, request: Request) -> Reply:
        """The handler of both requests."""
        kind = "assign" if isinstance(request, AssignRequest) else "release"
        with metrics.SECONDS.labels(kind).time():
            reply = await self._queued(request)
        match reply:
            case Assigned(repeated=True):
                metrics.REPEATED.inc()
            case Assigned(addresses=addresses):
                metrics.ASSIGNED.inc(len(addresses))
            case Released(addresses=addresses):
                metrics.RELEASED.inc(len(addresses))
            case _:
                metrics.UNMET.labels(type(reply).__name__).inc()
        metrics.REQUESTS.labels(kind, _outcome(reply)).inc()
        return reply

    async def _queued(self, request: Request) -> Reply:
        if not self._in_sync:
            return Busy(reason=NOT_IN_SYNC)
        if closed := self.core.life.closed:
            return Busy(reason=closed)
        node = self.core.node_of(request)
        queue = self._queues.get(node)
        if queue is None:
            queue = self._queues[node] = deque()
            self._tasks.create_task(self._work(node, queue), name=f"ipam {node}")
        if len(queue) >= MAX_WAITING:
            return Busy(reason=f"{len(queue)} requests of node {node} wait already")
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        return await waiting.reply

    async def _work(self, node: NodeName, queue: deque[_Waiting]) -> None:
        """Until nothing waits for the node."""
        while queue:
            async with self._turns:
                taken = [queue.popleft() for _ in range(min(len(queue), REQUESTS_AT_ONCE))]
                metrics.BATCHED.observe(len(taken))
                try:
                    await self._settle(taken)
                except (Unavailable, Rejected) as error:
                    self._reply_all(taken, Busy(reason=f"the bus does not take the change: {error}"))
        del self._queues[node]

    async def _settle(self, waiting: Sequence[_Waiting]) -> None:
        """Decides and writes until everybody has an answer."""
        failures = 0
        while waiting and failures < self._settings.attempts:
            if self.core.ledger.lost:
                await self._look_for_the_epoch()  # a record vanished: are all of them gone?
            life = self.core.life.token
            if not life:
                self._reply_all(waiting, Busy(reason=self.core.life.closed))
                return
            decision = self.core.decide([w.request for w in waiting], self._now())
            replies: Sequence[Reply | None] = [None] * len(waiting)
            progress = await self.commit(decision)
            if progress:
                replies = await self._confirmed(decision, life)
                progress = bool(decision.writes) or None not in replies
                await self.read_what_is_behind(decision.behind)
            for one, reply in zip(waiting, replies, strict=True):
                if reply is not None:
                    _reply(one, reply)
            waiting = [one for one, reply in zip(waiting, replies, strict=True) if reply is None]
            if waiting and not progress:
                failures += 1
                await self._pause(failures)
        self._reply_all(waiting, Busy(reason=f"other changes came first {failures} times; ask again"))

    async def commit(self, decision: Decision) -> bool:
        """All of a decision's writes. False: it is void, or nobody knows; the keys were read again."""
        if decision.writes:
            writes = [Write(w.family, w.key, w.message, w.expected) for w in decision.writes]
            try:
                with self.core.under_way(decision):
                    sequences = await self._commits.commit(writes)
            except (Conflict, Unavailable) as error:
                if isinstance(error, Conflict):
                    metrics.CONFLICTS.inc()
                await self._read_again([(w.family, w.key) for w in decision.writes])
                return False
            self.core.committed(decision.writes, sequences)
        for event in decision.events:
            self._bus.emit(event)
        return True

    async def _confirmed(self, decision: Decision, life: str) -> list[Reply | None]:
        """The replies that still stand after what they rest on was read again: the life of the records, first of all,
        in which they were decided."""
        replies = list(decision.replies)
        if not any(replies):
            return replies
        rests_on = [(index, fact) for index, facts in decision.rests_on.items() for fact in facts]
        epoch, *facts = await self._reads.get_many(
            [(EPOCH, ()), *((fact.family, fact.key) for _, fact in rests_on)],
        )
        self.core.life.heard(Fact(EPOCH, (), None, epoch.sequence) if isinstance(epoch, Unreadable) else epoch)
        if self.core.life.token != life:
            self._show()
            self._tending.mark()
            return [None] * len(replies)
        for (index, believed), fact in zip(rests_on, facts, strict=True):
            if isinstance(fact, Unreadable):
                self._cannot_read(fact)
                replies[index] = None
            elif not stands(believed, fact):
                self.core.learned(fact)
                replies[index] = None
        return replies

    async def read_what_is_behind(self, behinds: Iterable[Behind]) -> None:
        keys: list[tuple[Family[Any], Key]] = []
        for behind in behinds:
            keys.append((HANDLE, (behind.handle,)))
            if behind.block is not None:
                keys.append((BLOCK, (behind.block.text,)))
        await self._read_again(keys)

    async def _read_again(self, keys: Sequence[tuple[Family[Any], Key]]) -> None:
        if keys:
            for fact in await self._reads.get_many(keys):
                if isinstance(fact, Unreadable):
                    self._cannot_read(fact)
                else:
                    self.core.learned(fact)

    def _cannot_read(self, unreadable: Unreadable) -> None:
        """Ours is set aside and mended; of the others the last good value stands, and the feed has named it."""
        found = family_of(unreadable.subject, WRITES)
        if found is not None:
            self.core.cannot_read(*found, unreadable.sequence, str(unreadable))
            if self._in_sync:
                self._tending.mark()

    async def _pause(self, failures: int) -> None:
        longest = min(self._settings.max_backoff_s, self._settings.backoff_s * 2**failures)
        await asyncio.sleep(self._dice.uniform(0, longest))

    def _reply_all(self, waiting: Iterable[_Waiting], reply: Reply) -> None:
        for one in waiting:
            _reply(one, reply)


def _outcome(reply: Reply) -> str:
    """The word for a reply in the metrics."""
    if isinstance(reply, Assigned) and reply.repeated:
        return "repeated"
    return {Assigned: "assigned", Released: "released", Busy: "busy", PoolExhausted: "exhausted"}.get(
        type(reply), "refused"
    )


def _reply(waiting: _Waiting, reply: Reply) -> None:
    if not waiting.reply.done():
        waiting.reply.set_result(reply)


def _duties(allocator: Allocator, steward: Steward) -> dict[str, Duty]:
    """What one replica does on behalf of all, by name."""

    async def balance() -> None:
        await steward.opened()
        await allocator.load_balancer.run()

    return {"steward": steward.run, "load balancer": balance}


async def serve(context: Context[Settings]) -> None:
    """Runs a replica until `context.stopping`; what waits then is still answered."""
    bus = context.bus
    context.heartbeat.detail.update(context.settings.told)
    async with asyncio.TaskGroup() as tasks:
        allocator = Allocator(bus, context.settings, context.health, tasks)
        steward = Steward(bus, allocator, context.health, context.settings)
        allocator.on_heard = steward.heard
        duties = Duties(bus, context.settings.instance, _duties(allocator, steward), fit=lambda: allocator.in_sync)
        allocator.on_sync = duties.became_fit
        allocator.on_limits = lambda limits: context.heartbeat.detail.update(limits.told)
        standing = [
            tasks.create_task(allocator.follow(), name="ipam follow"),
            tasks.create_task(allocator.tend(), name="ipam tend"),
            tasks.create_task(duties.run(), name="ipam duties"),
        ]
        with metrics.shown(allocator.usage):
            handlers = {ASSIGN: allocator.answer, RELEASE: allocator.answer}
            async with bus.serve(handlers, concurrent=MAX_OPEN, waiting=0):
                await context.stopping.wait()
        for task in standing:
            task.cancel()
