"""Keeps a few addresses assigned ahead, so that CNI ADD waits for no address service, nor for the bus.

    asked for:  noted, durable -> rpc -> noted, durable -> a blackhole route, old connections forgotten -> can be taken
    taken:      it becomes the pod's in the store, one durable step; `take_overs` tells the address service later
    given back: when no pod came for long, when its pool is not for this node any more, when pools are exhausted

What is noted survives a restart, and an address whose answer was lost is asked for again under the same handle. While
an address is warm it leads nowhere (a blackhole route), so no connection to it can come to be, and the pod that gets it
need not wait until its former owner's are forgotten.

When the pools are exhausted the node gives back what it keeps, and keeps nothing for a while: an address helps most
where a pod waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import msgspec

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Busy, Held, PoolExhausted, Refused
from bus_schemas.resources import IPPool
from bus_schemas.subjects import ASSIGN, Rpc
from chassis.errors import BusError
from chassis.health import Health
from services.node_dataplane import warm
from services.node_dataplane.endpoint_store import EndpointStore, Warm
from services.node_dataplane.errors import StoreError
from services.node_dataplane.routes import BLACKHOLE, host
from services.node_dataplane.routing import RouteTable
from services.node_dataplane.warm import Demand, Families, Labels, Serving
from services.node_dataplane.wishes import Wishes

REQUEST_S = 5.0
RETRY_S, LONGEST_RETRY_S = 0.5, 30.0
SCARCE_S = 300.0
"""After the pools were exhausted nothing is kept for so long."""
REFRESH_S = 300.0
"""So often the address service is asked whether it still knows of all: somebody may release one by hand."""
QUIET_S = 0.1
"""What was taken is replaced once no pod came for so long; half of the stock at once."""
CAUSE = "warm addresses"


class Bus(Protocol):
    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any: ...


class WarmPool:
    def __init__(
        self,
        node: NodeName,
        store: EndpointStore,
        bus: Bus,
        routes: RouteTable,
        health: Health,
        *,
        count: int,
        idle_s: float,
        forget: Callable[[Iterable[str]], Awaitable[None]],
        debts: Callable[[], None],
        changed: Callable[[], None],
        name: Callable[[], str],
    ) -> None:
        """`forget` old connections of addresses; `debts` is called when a handle is owed, `changed` when something else
        is held; `name` makes up names that nobody used before."""
        self._node = node
        self._store = store
        self._bus = bus
        self._routes = routes
        self._health = health
        self._count = count
        self._forget = forget
        self._debts = debts
        self._changed = changed
        self._name = name
        self._demand = Demand(idle_s)
        self._serving: Serving | None = None
        """None: not known yet, so nothing is given back."""
        self._ready: set[HandleId] = set()
        """Those that lead nowhere and whose connections are forgotten."""
        self._scarce: dict[Families, float] = {}
        self._taken = 0.0
        """When one was last taken."""
        self._refreshed: float | None = None
        """None: not in this life. Whose node was away for long may have lost them."""
        self._wake = asyncio.Event()

    # --- what others ask and say

    def adopt(self) -> None:
        """What an earlier life kept leads nowhere, again."""
        for kept in self._store.warm:
            self._close(kept)

    def want(self, pools: Iterable[IPPool], labels: Labels) -> None:
        """The pools there are, and the labels of the node."""
        here = warm.serving(pools, labels)
        if here != self._serving:
            self._serving = here
            self._scarce.clear()
            self._wake.set()

    def held(self) -> Iterable[Held]:
        """For `holding`."""
        for kept in self._store.warm:
            if kept.addresses:
                yield Held(handle=kept.handle, addresses=kept.addresses, use="warm")

    @property
    def ready(self) -> int:
        """How many can be taken."""
        return len(self._ready)

    @property
    def stocked(self) -> bool:
        """A pod that asks for nothing in particular would get an address at once."""
        return self.fits(Wishes(), None)

    def fits(self, wishes: Wishes, namespace: Labels | None) -> bool:
        """`take` would give one now."""
        return self._serving is not None and self._find(warm.fits(wishes, namespace, self._serving)) is not None

    def take(self, wishes: Wishes, namespace: Labels | None) -> Warm | None:
        """One that fits, which is the caller's from now on: it must be a pod's in the store before anything is awaited.
        `namespace`: the labels of the pod's, None where they are not known."""
        now = asyncio.get_running_loop().time()
        if wishes.particular or self._serving is None:
            return None
        self._demand.note(wishes.families, now)
        self._wake.set()
        found = self._find(warm.fits(wishes, namespace, self._serving))
        if found is not None:
            self._taken = now
            self._ready.discard(found.handle)
            self._store.no_longer_warm(found.handle)
        return found

    def _find(self, families: Families) -> Warm | None:
        return next(
            (kept for kept in self._store.warm if kept.families == families and kept.handle in self._ready), None
        )

    # --- the task

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        self._demand.note((), loop.time())
        for kept in self._store.warm:
            self._demand.note(kept.families, loop.time())
        retry_s = RETRY_S
        while True:
            await self._woken()
            try:
                problem = await self._settle()
            except OSError as error:
                problem = f"the kernel cannot be configured: {error}"
            self._health.note(CAUSE, problem or None)
            if problem:
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
                self._wake.set()
            else:
                retry_s = RETRY_S

    async def _woken(self) -> None:
        """Returns when there may be something to do."""
        loop = asyncio.get_running_loop()
        due = [self._demand.changes_in(loop.time()), *(until - loop.time() for until in self._scarce.values())]
        try:
            async with asyncio.timeout(min((REFRESH_S, *(s for s in due if s is not None)))):
                await self._wake.wait()
        except TimeoutError:
            pass
        if len(self._ready) > self._count // 2:
            await asyncio.sleep(max(0.0, self._taken + QUIET_S - loop.time()))
        self._wake.clear()

    async def _settle(self) -> str:
        """What stands in the way, or empty."""
        if self._serving is None:
            return ""
        now = asyncio.get_running_loop().time()
        self._scarce = {families: until for families, until in self._scarce.items() if until > now}
        plan = warm.plan(self._store.warm, self._serving, self._demand.live(now), self._count, frozenset(self._scarce))
        try:
            await self._give_back(plan.give_back)
            for families in plan.ask:
                self._store.keep_warm(Warm(handle=warm.handle(self._node, self._name()), families=families))
            await self._store.save()
            again = self._refreshed is None or now - self._refreshed >= REFRESH_S
            self._refreshed = now if again else self._refreshed
            doubtful = [kept for kept in self._store.warm if again or not kept.addresses]
            problems = await asyncio.gather(*map(self._ask, doubtful))
            await self._store.save()
        except StoreError as error:
            return str(error)
        await self._prepare()
        return next(filter(None, problems), "")

    async def _ask(self, kept: Warm) -> str:
        """What stands in the way, or empty."""
        request = AssignRequest(
            node=self._node,
            handle=kept.handle,
            families=() if kept.addresses else kept.families,
            addresses=kept.addresses,
            use="warm",
        )
        try:
            reply = await self._bus.request(ASSIGN, request, timeout_s=REQUEST_S)
        except BusError as error:
            return f"the address service does not answer ({error})"
        if kept not in self._store.warm:
            return ""  # A pod took it meanwhile.
        match reply:
            case Assigned(addresses=addresses):
                self._store.keep_warm(msgspec.structs.replace(kept, addresses=addresses))
                self._changed()
                return ""
            case Refused() | PoolExhausted() if kept.addresses:
                self._ready.discard(kept.handle)
                self._store.keep_warm(msgspec.structs.replace(kept, addresses=()))
                self._open(kept)
                self._changed()
                return f"{', '.join(kept.addresses)} was released behind our back"
            case PoolExhausted():
                self._scarce[kept.families] = asyncio.get_running_loop().time() + SCARCE_S
                self._wake.set()  # The next plan gives back what there is.
                return ""
            case Refused(reason=reason) | Busy(reason=reason):
                return str(reason)
        return f"unexpected answer {reply!r}"

    async def _give_back(self, handles: Iterable[HandleId]) -> None:
        going = [kept for kept in self._store.warm if kept.handle in handles]
        for kept in going:
            self._ready.discard(kept.handle)
            self._store.no_longer_warm(kept.handle)
            self._store.owe(kept.handle)
            self._open(kept)
        if going:
            await self._store.save()
            self._routes.flush()
            self._debts()
            self._changed()

    async def _prepare(self) -> None:
        fresh = [kept for kept in self._store.warm if kept.addresses and kept.handle not in self._ready]
        for kept in fresh:
            self._close(kept)
        self._routes.flush()
        if fresh:
            await self._forget([address for kept in fresh for address in kept.addresses])
        self._ready.update(kept.handle for kept in fresh)

    def _open(self, kept: Warm) -> None:
        for address in kept.addresses:
            self._routes.want(host(address), None, local=True)

    def _close(self, kept: Warm) -> None:
        for address in kept.addresses:
            self._routes.want(host(address), BLACKHOLE, local=True)
