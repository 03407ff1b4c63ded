"""Looks for forgotten addresses and superfluous blocks, and gives back what is proved to be so: the shell of `collect`.

    every TORTIE_COLLECT_INTERVAL_S (sooner when a node left):
        handles, words, candidates, signs of life --observe--> candidates --> bus, metric
                                                   due --> everything read again --> still so? --> release, swapped

What is read again right before the write: the epoch, the handle, the node's endpoints and its word, the sign of life of
its agent. The write swaps on the handle and on its blocks; whatever comes between makes it void.

A deleted node whose agent is dead leaves endpoints behind that nobody withdraws. They go before its addresses: no
policy group may hold an address that is already another pod's. An agent that lives after all finds its endpoints gone
and says them again, which is evidence of life.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, TypeVar

from bus_schemas.events import Event
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Candidate, Handle
from bus_schemas.subjects import CANDIDATE, ENDPOINT, EPOCH, HANDLE, HOLDING, STATUS, Fact
from chassis.bus import Bus, Write
from chassis.errors import BusError, Conflict, Unreadable
from chassis.feed import Interest
from services.ipam import metrics
from services.ipam.cidr import Cidr, parse_address
from services.ipam.collect import Findings, World, give_back, is_listed, may_go, observe, surplus
from services.ipam.core import Decision
from services.ipam.draft import Write as DraftWrite
from services.ipam.keeper import Allocator
from services.ipam.mending import Said, by_blocks, by_records, disagreeing, handle_by_blocks
from services.ipam.release import Behind, release_all
from services.ipam.settings import Settings
from services.ipam.words import Words

SOON_S = 5.0
"""The next look while something of a deleted node is left."""
AGENT = "node_dataplane"
T = TypeVar("T")
AT_ONCE = 500


class Collector:
    def __init__(
        self, bus: Bus, allocator: Allocator, settings: Settings, *, now: Callable[[], float] = time.time
    ) -> None:
        self._bus = bus
        self._allocator = allocator
        self._core = allocator.core
        self._settings = settings
        self._now = now
        self._spare: dict[Cidr, int] = {}
        """Superfluous blocks as the last look found them, by sequence."""
        self._left: set[NodeName] = set()
        """Deleted nodes whose remains the last look found."""
        self._apart: set[HandleId] = set()
        """Handles that the last look found to disagree with their blocks."""
        self._soon = asyncio.Event()

    def look_soon(self) -> None:
        """A node was deleted."""
        self._soon.set()

    async def run(self, words: Words, ready: Callable[[], bool]) -> None:
        """For ever. `words` are complete while `ready`."""
        try:
            await self._run(words, ready)
        finally:
            metrics.CANDIDATES.set(0)  # whoever collects from now on shows them

    async def _run(self, words: Words, ready: Callable[[], bool]) -> None:
        wait = self._settings.collect_interval_s
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            wait = min(SOON_S, self._settings.collect_interval_s)
            if not ready() or self._core.life.closed:
                continue
            try:
                if not await self.look(words):
                    wait = self._settings.collect_interval_s
            except BusError:
                continue

    async def look(self, words: Words) -> bool:
        """One look at everything. Whether to look again soon. Raises BusError."""
        world = await self._world(words)
        known: dict[HandleId, Candidate] = {name: fact.value for name, fact in self._core.candidates.items()}
        found = Findings({}, [])
        async for some in _in_parts(self._core.ledger.handles.values()):
            part = observe(some, known, world)
            found.candidates.update(part.candidates)
            found.due.extend(part.due)
        collected = set()
        by_node: dict[NodeName, list[HandleId]] = {}
        for name in found.due:
            by_node.setdefault(found.candidates[name].node, []).append(name)
        for node, names in by_node.items():
            collected.update(await self._collect(node, [found.candidates[name] for name in names], world))
        candidates = {name: one for name, one in found.candidates.items() if name not in collected}
        await self._show(known, candidates)
        leaving = await self._bury(words, world)
        await self._mend()
        await self._give_back_blocks()
        return leaving or any(one.node in world.gone for one in candidates.values())

    async def _world(self, words: Words) -> World:
        """Who lives is asked of those only on whom something depends."""
        desired = self._core.desired
        asked = {node for node in words.nodes if node not in desired.nodes}
        async for some in _in_parts(self._core.ledger.handles.values()):
            for held in some:
                if not any(words.users(address) & desired.nodes.keys() for address in held.addresses):
                    asked.add(held.node)
        token = self._core.life.token
        return World(
            words=words,
            nodes=desired.nodes.keys(),
            gone=desired.gone_nodes,
            epoch=token,
            alive=await self._alive(asked),
            now=self._now(),
            grace_s=self._settings.leak_grace_s,
        )

    async def _alive(self, nodes: Iterable[NodeName]) -> set[NodeName]:
        asked = sorted(nodes)
        if not asked:
            return set()
        facts = await self._bus.get_many([(STATUS, (AGENT, node)) for node in asked])
        return {
            node
            for node, fact in zip(asked, facts, strict=True)
            if isinstance(fact, Unreadable) or fact.value is not None  # whatever it says, somebody said it
        }

    # --- forgotten addresses

    async def _collect(self, node: NodeName, due: Sequence[Candidate], before: World) -> set[HandleId]:
        """Gives back what still may be; which. Raises BusError."""
        remains = await self._said_by(node)
        epoch = (await self._bus.get(EPOCH, ())).value
        world = before._replace(
            words=Words(remains),
            epoch=epoch.id if epoch is not None and epoch.id == before.epoch else "",
            alive=await self._alive([node]),
            now=self._now(),
        )
        if not world.epoch:
            return set()
        if node not in world.nodes and not await self._remove(remains, world):
            return set()
        facts = await self._bus.get_many([(HANDLE, (candidate.handle,)) for candidate in due])
        collected = set()
        for candidate, fact in zip(due, facts, strict=True):
            if isinstance(fact, Unreadable) or fact.value is None:
                continue
            self._core.learned(fact)
            held = self._core.ledger.handles.get(candidate.handle)
            if held is None or not may_go(held, candidate, world) or is_listed(held, before):
                continue
            if await self._release(held, candidate):
                collected.add(candidate.handle)
        return collected

    async def _release(self, held: Handle, candidate: Candidate) -> bool:
        draft = self._core.draft(self._now())
        outcome = release_all(draft, held)
        if isinstance(outcome, Behind):
            await self._allocator.read_what_is_behind([outcome])
            return False
        addresses = " and ".join(held.addresses)
        draft.tell(
            "collected",
            f"{addresses} of node {held.node} was forgotten ({candidate.reason}) and is free again.",
            node=held.node,
            object=held.handle,
            addresses=",".join(held.addresses),
        )
        done = await self._allocator.commit(Decision(writes=tuple(draft.writes()), events=tuple(draft.events)))
        if done:
            metrics.COLLECTED.inc(len(held.addresses))
        return done

    async def _said_by(self, node: NodeName) -> list[Fact]:
        """What the node's agent has on the bus now."""
        found: list[Fact] = []
        async with self._bus.follow(Interest(ENDPOINT, (node,)), Interest(HOLDING, (node,))) as feed:
            while not feed.in_sync:
                found += [fact for fact in (await feed.next()).facts if fact.value is not None]
        return found

    # --- deleted nodes

    async def _bury(self, words: Words, world: World) -> bool:
        """The remains of nodes that were deleted and whose agents are dead, seen twice. Whether any are left."""
        left = {node for node in words.nodes if node in world.gone and node not in world.alive}
        for node in left & self._left:
            remains = await self._said_by(node)
            await self._remove(remains, world._replace(words=Words(remains), alive=await self._alive([node])))
        self._left = left
        return bool(left)

    async def _remove(self, remains: Sequence[Fact], world: World) -> bool:
        """False: somebody lives there. Raises BusError."""
        for fact in world.words.remains(NodeName(remains[0].key[0])) if remains else ():
            if fact.key[0] in world.alive or fact.key[0] in world.nodes:
                return False
            try:
                await self._bus.swap(fact.family, fact.key, None, expected=fact.sequence)
            except Conflict:
                return False
        return True

    # --- what is shown

    async def _show(self, known: dict[HandleId, Candidate], wanted: dict[HandleId, Candidate]) -> None:
        writes: list[Write] = []
        for name in known.keys() | wanted.keys():
            message: Any = wanted.get(name)
            if message != known.get(name):
                fact = self._core.candidates.get(name)
                writes.append(Write(CANDIDATE, (name,), message, fact.sequence if fact is not None else 0))
        for i in range(0, len(writes), AT_ONCE):
            some = writes[i : i + AT_ONCE]
            try:
                sequences = await self._bus.batch(some)
            except Conflict:
                for found in await self._bus.get_many([(CANDIDATE, write.key) for write in some]):
                    if not isinstance(found, Unreadable):
                        self._core.apply(found)
                return  # the next look says it again
            for write, sequence in zip(some, sequences, strict=True):
                self._core.apply(Fact(CANDIDATE, write.key, write.message, sequence))
        for name in wanted.keys() - known.keys():
            one = wanted[name]
            self._bus.emit(
                Event(
                    time=self._now(),
                    domain="ipam",
                    what="candidate",
                    node=one.node,
                    object=name,
                    message=f"{' and '.join(one.addresses)} looks forgotten: {one.reason}.",
                )
            )
        metrics.CANDIDATES.set(len(wanted))

    # --- half of a batch

    async def _mend(self) -> None:
        """A handle is what the blocks say, where the two were seen to disagree twice and still do when they are read
        again. Nothing is freed by it: what nobody uses looks forgotten from then on."""
        ledger = self._core.ledger
        said: set[Said] = set()
        async for part in _in_parts(ledger.blocks.items()):
            said.update(by_blocks(part))
        recorded: set[Said] = set()
        async for some in _in_parts(ledger.handles.values()):
            recorded.update(by_records(some))
        before, self._apart = self._apart, disagreeing(said, recorded)
        for name in before & self._apart:
            await self._allocator.read_what_is_behind([Behind(name, "", None)])
            known = ledger.fact(HANDLE, (name,))
            blocks = self._blocks_of(name)
            if blocks is None:
                continue
            await self._allocator.read_what_is_behind([Behind(name, "", cidr) for cidr in blocks])
            told = handle_by_blocks(ledger, name, known.value)
            # what changes a handle's part of a block changes the handle: as long as it stands, the blocks are its own
            if told != known.value and ledger.fact(HANDLE, (name,)).sequence == known.sequence:
                write = DraftWrite(HANDLE, (name,), told, known.sequence)
                await self._allocator.commit(Decision(writes=(write,)))

    def _blocks_of(self, name: HandleId) -> list[Cidr] | None:
        """The blocks that have or should have something of the handle; None: it is not known which these are."""
        ledger = self._core.ledger
        blocks = [c for c, block in ledger.blocks.items() if any(a.handle == name for a in block.allocations)]
        held = ledger.handles.get(name)
        for address in map(parse_address, held.addresses if held is not None else ()):
            cidr = ledger.block_at(address)
            if cidr is None:
                pool = self._core.desired.pool_of(address)
                if pool is None:
                    return None
                cidr = pool.cidr.around(address, pool.block_prefix)
            blocks.append(cidr)
        return blocks

    # --- blocks

    async def _give_back_blocks(self) -> None:
        self._spare, due = surplus(self._core.draft(self._now()), self._spare, self._core.desired.nodes.keys())
        for cidr in due:
            draft = self._core.draft(self._now())
            give_back(draft, cidr)
            await self._allocator.commit(Decision(writes=tuple(draft.writes()), events=tuple(draft.events)))


async def _in_parts(many: Iterable[T]) -> AsyncIterator[Sequence[T]]:
    """All that there are now, some at a time: who asks for an address need not wait for a look at a large cluster."""
    whole = list(many)
    for at in range(0, len(whole), AT_ONCE):
        yield whole[at : at + AT_ONCE]
        await asyncio.sleep(0)
