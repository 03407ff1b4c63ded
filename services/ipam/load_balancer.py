"""The duty that gives Services of type LoadBalancer their addresses, and says what they have.

Reads   `desired.service`; pools and handles as the allocator of the same replica knows them
Asks    the allocator, like any agent would: use `loadbalancer`, handle `lb-...`, the node of all load balancers
Writes  `ipam.service`, by compare-and-swap

    Service, pool, reservation, configuration --changed--> every Service: next step --> assign, release --> what it has

What could not be given is tried again whenever one of these changes, and every `RETRY_S` (somebody may have released
what was missing).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from bus_schemas.events import Event
from bus_schemas.ipam import (
    Assigned,
    AssignReply,
    Busy,
    Handle,
    Released,
    ReleaseReply,
    ReleaseRequest,
    ServiceAddresses,
    load_balancer_handle,
)
from bus_schemas.subjects import SERVICE_ADDRESSES
from chassis.bus import Bus
from chassis.feed import Feed, Interest
from chassis.pacing import Pacer
from chassis.publication import Publication
from services.ipam.core import Core, Request
from services.ipam.desired import CONFIGURATION, POOL, RESERVATION
from services.ipam.wishes import SERVICE, Give, Keep, Leave, ServiceKey, Services, TakeBack

RETRY_S = 30.0
BUSY_S = 1.0
AT_ONCE = 128
"""Services that are looked after side by side."""

Ask = Callable[[Request], Awaitable[AssignReply | ReleaseReply]]


class LoadBalancer:
    """`core` is the allocator's, to look at; `ask` is how it is asked for changes. `grace_s`: how long a Service that
    nobody speaks of keeps its addresses."""

    def __init__(self, bus: Bus, core: Core, ask: Ask, *, grace_s: float, now: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._core = core
        self._ask = ask
        self._now = now
        self._grace_s = grace_s
        self._services = Services(grace_s)
        self._pacer = Pacer(min_s=0.05, max_s=1.0, retry_s=1.0)
        self._told: dict[ServiceKey, ServiceAddresses] = {}
        """What is said of Services on the bus."""

    async def run(self) -> None:
        """The duty: for ever, from what is so now."""
        self._services = Services(self._grace_s)
        self._told = {}
        publication = Publication(self._bus, [Interest(SERVICE_ADDRESSES)], independent=True)
        interests = map(Interest, (SERVICE, POOL, RESERVATION, CONFIGURATION))
        async with publication, self._bus.follow(*interests) as feed, asyncio.TaskGroup() as tasks:
            tasks.create_task(publication.run(), name="ipam service addresses")
            tasks.create_task(self._read(feed), name="ipam services")
            tasks.create_task(self._again(feed), name="ipam services again")
            await self._pacer.run(lambda: self._settle_all(publication))

    async def _read(self, feed: Feed) -> None:
        while True:
            batch = await feed.next()
            for fact in batch.facts:
                if fact.family is SERVICE:
                    self._services.apply(fact)
            if batch.in_sync:
                self._pacer.mark()

    async def _again(self, feed: Feed) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            if feed.in_sync:
                self._pacer.mark()

    async def _settle_all(self, publication: Publication) -> None:
        held = self._held_by_service()
        keys = sorted({*self._services.known, *held, *self._told})
        busy = False
        for some in _parts(keys):
            outcomes = await asyncio.gather(*(self._settle(key, held.get(key)) for key in some))
            for key, outcome in zip(some, outcomes, strict=True):
                busy |= isinstance(outcome, Busy)
                said = _says(key, reason=outcome.reason) if isinstance(outcome, Busy) else outcome
                publication.want(SERVICE_ADDRESSES, key, said)
                if said is None:
                    self._told.pop(key, None)
                elif isinstance(outcome, Busy):
                    self._told.setdefault(key, said)
                else:
                    self._note(key, said)
        self._services.forget_all_but(self._held_by_service())
        publication.complete()
        await publication.flush()
        if busy:
            asyncio.get_running_loop().call_later(BUSY_S, self._pacer.mark)

    def _note(self, key: ServiceKey, said: ServiceAddresses) -> None:
        """A Service that gets none is an event once, however often it is tried."""
        before, self._told[key] = self._told.get(key), said
        if said.reason and said != before:
            name = "/".join(key)
            message = f"Service {name}: {said.reason}"
            self._bus.emit(Event(time=self._now(), domain="ipam", what="exhausted", object=name, message=message))

    def _held_by_service(self) -> dict[ServiceKey, Handle]:
        """What the Services have, those included that nobody speaks of. A handle that does not say whose it is was
        mended, and belongs to the Service whose name it was made from, if that is known."""
        handles = self._core.ledger.handles
        found = {key: handles.get(load_balancer_handle(*key)) for key in self._services.known}
        for name in self._core.ledger.load_balanced:
            handle = handles[name]
            if load_balancer_handle(handle.namespace, handle.pod) == name:
                found[handle.namespace, handle.pod] = handle
        return {key: handle for key, handle in found.items() if handle is not None}

    async def _settle(self, key: ServiceKey, held: Handle | None) -> ServiceAddresses | Busy | None:
        """What there is to say of the Service when its steps are done; None: nothing."""
        while True:
            match self._services.step(key, held, self._core.desired, self._now()):
                case Keep(addresses=addresses):
                    return _says(key, addresses)
                case Leave(reason=""):
                    return None
                case Leave(reason=reason):
                    return _says(key, reason=reason)
                case TakeBack(handle=handle):
                    reply = await self._ask(ReleaseRequest(handle=handle))
                    if isinstance(reply, Busy):
                        return reply
                    held = self._core.ledger.handles.get(handle)
                    if held is not None:
                        return Busy(reason=f"{', '.join(held.addresses)} are being given back")
                case Give(request=request):
                    reply = await self._ask(request)
                    if isinstance(reply, Assigned):
                        return _says(key, reply.addresses)
                    assert not isinstance(reply, Released)
                    return reply if isinstance(reply, Busy) else _says(key, reason=reply.reason)


def _says(key: ServiceKey, addresses: tuple[str, ...] = (), reason: str = "") -> ServiceAddresses:
    return ServiceAddresses(namespace=key[0], service=key[1], addresses=addresses, reason=reason)


def _parts(keys: Sequence[ServiceKey]) -> Iterator[Sequence[ServiceKey]]:
    for at in range(0, len(keys), AT_ONCE):
        yield keys[at : at + AT_ONCE]
