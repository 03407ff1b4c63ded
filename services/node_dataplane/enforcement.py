"""Policy from the bus into the kernel, and word to the CNI when a pod's policy is in place.

    endpoints --plug--> PolicyTable --wanted--> interests of the feed --facts--> PolicyTable --flush--> NftDriver
                                                                           |         |
                                             in_place() of waiting ADDs  <-|-programmed
                                                                           |
                                                                        Changes --in the kernel--> cut_due()

    Service, EndpointSlice, ServiceAddresses --> ServiceProxy --flush--> PolicyTable --in the kernel--> served()

A flush waits until every wanted interest has had its snapshot: what the kernel holds is the last good state, and a pod
whose policy is still being read is dropped by default, so to wait is always safe. The first flush waits for the node's
own rules, too.

A restarted agent adopts the table that it finds when it is the one that it would write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Protocol

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName, PodKey, RulesId
from bus_schemas.resources import KINDS
from bus_schemas.subjects import ATTACHMENT, DIRECTION, GROUP, HOST_ATTACHMENT, RULES
from chassis.bus import Bus
from chassis.feed import Feed, Interest
from chassis.health import Health
from services.node_dataplane.cutting import Changes
from services.node_dataplane.denials import Told
from services.node_dataplane.nft.errors import NftError
from services.node_dataplane.nft.governed import Devices
from services.node_dataplane.nft.layout import Layout
from services.node_dataplane.nft.table import Expected, Flush, NodeRules, PolicyTable, Wanted
from services.node_dataplane.nft.transaction import Transaction
from services.node_dataplane.policy_news import PolicyNews
from services.node_dataplane.service_proxy.core import READS, Frontend, ServiceProxy, Target

RETRY_S = 0.5
READINGS = 3
"""Attempts at reading back the table while changes come in between."""
CAUSE = "policy table"
UNPROTECTED = "endpoints without policy"
STRANGERS = "other packet filters"
SERVICES = "service addresses"
_NOTED = 10
"""Sentences of one kind that health spells out."""
HEAVY = 1000
"""Elements and statements from which on a transaction is committed in a thread: it would hold up the event loop."""


class Driver(Protocol):
    def commit(self, transaction: Transaction) -> None: ...

    def adopt(self, transaction: Transaction) -> None: ...

    def exists(self) -> bool: ...

    def verify(self, expected: Expected) -> list[str] | None: ...

    def strangers(self) -> list[str]: ...


class Enforcement:
    def __init__(
        self,
        node: NodeName,
        driver: Driver,
        health: Health,
        report: Callable[[str, str, str], None],
        layout: Layout | None = None,
        proxy: ServiceProxy | None = None,
    ) -> None:
        """`report(what, object, message)` emits an event; `layout` as `PolicyTable` has it; `proxy`: service addresses
        are translated, too."""
        self._table = PolicyTable(layout=layout, services=proxy is not None)
        self._proxy = proxy
        self._serving: dict[Frontend, Target | None] = {}
        """What changed of the frontends, and is not in the kernel yet."""
        self.served: Callable[[Mapping[Frontend, Target | None]], None] = lambda _: None
        """Called with the frontends that changed, when they are in the kernel."""
        self.changes = Changes(self._table)
        self.news = PolicyNews(self._table, self.title)
        self.tell: Callable[[Told], None] = lambda _: None
        """Called with what came into force."""
        self.cut_due: Callable[[], None] = lambda: None
        """Called when a change that cuts connections is in the kernel."""
        self._driver = driver
        self._health = health
        self._report = report
        self._base = (
            Interest(ATTACHMENT, (node,)),
            Interest(HOST_ATTACHMENT, (node,)),
            *(Interest(family) for family in (READS if proxy is not None else ())),
        )
        self._interests: set[Interest] = set()
        self._aimed: Wanted | None = None
        """What the interests were made from."""
        self._feed: Feed | None = None
        self._dirty = asyncio.Event()
        self._committing = asyncio.Lock()
        self._checking = False
        self._first = True
        """The table is being read back in a thread, which holds the text interface for long."""
        self._node: NodeRules | None = None
        self._cutting = False
        """What the table was told of `changes.active`."""
        self._containers: dict[PodKey, str] = {}
        self._programmed: frozenset[PodKey] = frozenset()
        self._blocked: dict[PodKey, str] = {}
        self._waiting: dict[PodKey, asyncio.Future[None]] = {}
        self._replugged: set[PodKey] = set()
        """Plugged in or out since the flush under way began: what it says of them is not of this incarnation."""
        self._begun = asyncio.Event()

    @property
    def synced(self) -> bool:
        """The first snapshot is complete, and in the kernel."""
        return self._begun.is_set()

    async def ready(self) -> None:
        """Returns when the table is in the kernel: whoever is plugged in from now on is closed until it has policy."""
        await self._begun.wait()

    # --- endpoints and settings

    def plug(
        self, endpoint: Endpoint, sources: tuple[str, ...] = (), *, device: int = 0, bridged: bool = False
    ) -> None:
        """`sources`: CIDRs that the pod may send from beside its own addresses; `device` and `bridged` as in
        `nft.layout.Spot`."""
        pod = endpoint.pod
        if self._containers.get(pod) != endpoint.container:
            self._programmed -= {pod}
            self._replugged.add(pod)
        self._containers[pod] = endpoint.container
        self._table.set_endpoint(
            pod,
            endpoint.link,
            endpoint.addresses,
            endpoint.container,
            floating=endpoint.floating,
            sources=sources,
            device=device,
            bridged=bridged,
        )
        self._dirty.set()

    def link_group(self, link: str) -> int:
        """The group of devices in which the table looks for the link of a pod that is plugged in."""
        return self._table.link_groups.of(link)

    def unplug(self, pod: PodKey) -> None:
        self._containers.pop(pod, None)
        self._programmed -= {pod}
        self._replugged.add(pod)
        waiting = self._waiting.pop(pod, None)
        if waiting is not None:
            waiting.set_result(None)  # Whoever still waits asks again.
        self._table.remove_endpoint(pod)
        self._dirty.set()

    def set_node(self, rules: NodeRules, *, cut: bool = False) -> None:
        """`cut`: every policy's changes cut what they do not allow."""
        self.changes.set_everywhere(cut)
        self._node = rules
        self._tell_node(rules)
        self._dirty.set()

    def _tell_node(self, rules: NodeRules) -> None:
        self._cutting = self.changes.active
        self._table.set_node(msgspec.structs.replace(rules, tcp_by_syn_only=self._cutting))

    def set_pod_devices(self, devices: Set[int]) -> None:
        """By address: the devices behind which there are pods, known or not."""
        self._table.set_pod_devices(devices)
        self._dirty.set()

    def set_devices(self, devices: Devices) -> None:
        """The node's own devices, which host endpoints govern."""
        if self._table.set_devices(devices):
            self._dirty.set()

    def set_node_addresses(self, addresses: Iterable[bytes]) -> None:
        """Those on which node ports are served."""
        if self._proxy is not None and self._proxy.set_node_addresses(addresses):
            self._dirty.set()

    @property
    def table(self) -> PolicyTable:
        """For questions only."""
        return self._table

    @property
    def programmed(self) -> frozenset[PodKey]:
        """Pods whose whole policy is in the kernel."""
        return self._programmed

    def title(self, policy: RulesId) -> str:
        """`<Kind>/<namespace>/<name>`, also of a policy that is gone."""
        rules = self._table.rules(policy)
        if rules is not None:
            return rules.policy
        kind, _, rest = policy.partition("/")
        return f"{KINDS[kind].KIND}/{rest}" if kind in KINDS else policy

    async def in_place(self, endpoint: Endpoint) -> None:
        """Returns when the kernel enforces the whole policy of this incarnation of the pod."""
        pod = endpoint.pod
        while pod not in self._programmed or self._containers.get(pod) != endpoint.container:
            waiting = self._waiting.get(pod)
            if waiting is None:
                waiting = self._waiting[pod] = asyncio.get_running_loop().create_future()
            await asyncio.shield(waiting)

    def obstacle(self, pod: PodKey) -> str:
        """Why a pod's policy is not in place; empty when it is."""
        if pod in self._programmed:
            return ""
        if cause := self._health.causes.get(CAUSE):
            return cause
        if not self.synced:
            return "the bus has not yet told this node its policies"
        return self._blocked.get(pod, "policy_compiler has not attached any policy to it")

    # --- tasks

    async def follow(self, bus: Bus) -> None:
        """For ever: facts into the table, and what it wants into the feed."""
        async with bus.follow(*self._base) as feed:
            self._feed = feed
            self._dirty.set()
            while True:
                batch = await feed.next()
                for fact in batch.facts:
                    if self._proxy is not None and self._proxy.apply(fact):
                        continue
                    for whole in self._table.unfold(fact):
                        self.changes.note(whole)
                        self.news.note(whole)
                        self._table.learn(whole)
                self._dirty.set()

    async def run(self) -> None:
        """For ever: the table into the kernel."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if self._feed is None:
                continue
            self._aim(self._feed)
            if not (self._feed.in_sync and self._node is not None):
                continue  # The batch that completes the snapshot, or the node's rules, come back here.
            if not await self._flush():
                await asyncio.sleep(RETRY_S)
                self._dirty.set()

    def _aim(self, feed: Feed) -> None:
        """Follow what the table wants, and nothing else."""
        wanted = self._table.wanted()
        if wanted is self._aimed:
            return
        self._aimed = wanted
        interests = {Interest(RULES, (rules,)) for rules in wanted.rules}
        interests |= {Interest(GROUP, (group,)) for group in wanted.groups}
        interests |= {Interest(DIRECTION, (direction,)) for direction in wanted.directions}
        feed.add(*(interests - self._interests))
        feed.discard(*(self._interests - interests))
        self._interests = interests

    async def _flush(self) -> bool:
        async with self._committing:
            self._replugged.clear()
            self.changes.begin()
            self.news.begin()
            if self._node is not None and self._cutting != self.changes.active:
                self._tell_node(self._node)
            if self._proxy is not None and (changes := self._proxy.flush()):
                self._table.set_services(changes)
                self._serving.update(changes.frontends)
            flush = self._table.flush()
            if flush.transaction is not None and not await self._enter(flush.transaction):
                return False
        self._settled(flush)
        if self._proxy is not None:
            serving, self._serving = self._serving, {}
            self.served(serving)
        for told in self.news.committed():
            self.tell(told)
        if self.changes.committed():
            self.cut_due()
        return True

    async def _enter(self, transaction: Transaction) -> bool:
        """Into the kernel; the first time, what an earlier life left there is adopted when it is the same."""
        first, self._first = self._first, False
        if not (first and transaction.whole and self._inherited()):
            return await self._commit(transaction)
        self._table.committed(transaction)
        self._driver.adopt(transaction)
        expected = self._table.expected()
        assert expected is not None, "a table that was just settled is settled"
        try:
            differences = await asyncio.to_thread(self._driver.verify, expected)
        except NftError as error:
            differences = [str(error)]
        return differences == [] or await self._commit(self._table.whole())

    def _inherited(self) -> bool:
        """There is a table of an earlier life."""
        try:
            return self._driver.exists()
        except NftError:
            return False  # The commit will say what is wrong.

    async def _commit(self, transaction: Transaction) -> bool:
        try:
            if transaction.whole or transaction.weight > HEAVY or (self._checking and transaction.elements is None):
                await asyncio.to_thread(self._driver.commit, transaction)
            else:
                self._driver.commit(transaction)
        except NftError as error:
            self._table.failed(transaction)
            self._health.fail(CAUSE, f"the kernel refuses the policy table: {error}")
            return False
        self._table.committed(transaction)
        self._health.ok(CAUSE)
        return True

    def _settled(self, flush: Flush) -> None:
        self._begun.set()
        self._programmed = flush.programmed - self._replugged
        self._blocked = dict(flush.blocked)
        for pod in [pod for pod in self._waiting if pod in self._programmed]:
            self._waiting.pop(pod).set_result(None)
        faults = self._table.faults()
        self._health.note("policies not understood", "; ".join(faults) or None)
        self._health.note("host endpoints", "; ".join(self._table.host_faults()) or None)
        if self._proxy is not None:
            self._health.note(SERVICES, _some(self._proxy.faults()) or None)
        text = "; ".join(f"{pod}: {why}" for pod, why in sorted(flush.blocked.items())[:10])
        more = len(flush.blocked) - 10
        self._health.note(UNPROTECTED, f"{text}{f' and {more} more' if more > 0 else ''}" if text else None)

    async def check(self, *, deep: bool) -> None:
        """What somebody else did to the table is undone, with an event. `deep` reads back the whole table, otherwise it
        is only asked whether the table is there. Raises NftError when the kernel cannot be asked."""
        if not self.synced:
            return
        damage = await self._damage(deep=deep)
        if deep:
            chains = await asyncio.to_thread(self._driver.strangers)
            told = f"{', '.join(chains)} drop by default what they do not know: pods need an accept there"
            self._health.note(STRANGERS, told if chains else None)
        if not damage:
            return
        async with self._committing:
            repaired = await self._commit(self._table.whole())
        if repaired:
            told = "; ".join(damage[:5])
            self._report("repaired", "table inet tortie", f"The policy table was written anew: {told}.")
        self._dirty.set()

    async def _damage(self, *, deep: bool) -> list[str]:
        if not self._driver.exists():
            return ["it was gone"]
        self._checking = True
        try:
            for _ in range(READINGS if deep else 0):
                expected = self._table.expected()
                if expected is None:
                    break  # A change is due: the next check looks again.
                damage = await asyncio.to_thread(self._driver.verify, expected)
                if damage is not None:
                    return damage
        finally:
            self._checking = False
        return []


def _some(sentences: Sequence[str]) -> str:
    more = len(sentences) - _NOTED
    return "; ".join(sentences[:_NOTED]) + (f" and {more} more" if more > 0 else "")
