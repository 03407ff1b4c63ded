"""The shell of the bridge: sources into the core, what follows onto the bus, what became of it back.

    Follower (one a source) --hear--> Core --pacer, flush--> Publication --> DESIRED
    Election (the Lease of Kubernetes) --fit--> Lease (of the bus) --may write--^
    feed (agents, compiled policy, addresses) --> Reporting --> API server

Every replica mirrors; the one that Kubernetes' Lease names takes the lease of the bus, too, and writes (decision 35).
Nothing is written before every source has been listed or has said why not, and before the bus has been searched for
the objects of another cluster.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

from bus_schemas.codec import Message
from bus_schemas.events import Event
from bus_schemas.resources import Resource
from bus_schemas.subjects import DESIRED, Family, Key
from chassis.errors import Unreadable
from chassis.feed import Interest
from chassis.lease import Lease
from chassis.pacing import Pacer
from chassis.publication import Publication
from chassis.runner import Context
from services.kube_bridge import claim, metrics, standings
from services.kube_bridge.client import Client
from services.kube_bridge.core import Changed, Changes, Core, Fact, Gone, Listed, Trouble
from services.kube_bridge.cursor import Standing
from services.kube_bridge.discovery import Discovery
from services.kube_bridge.election import Election
from services.kube_bridge.following import Follower
from services.kube_bridge.identity import Identity
from services.kube_bridge.mirror import marked_by
from services.kube_bridge.reporting import READS, Reporting
from services.kube_bridge.settings import Settings
from services.kube_bridge.sources import KINDS_MIRRORED, SOURCES

SERVICE = "kube_bridge"
CLUSTER, INVALID, LEASE = "cluster", "invalid objects", "lease"
NOTED = 10
"""So many troubles health spells out."""
CLAIM_RETRY_S = 10.0
_KIND_OF = {family: kind for kind, family in DESIRED.items()}


async def serve(context: Context[Settings]) -> None:
    async with Client.open(context.settings.kubeconfig, context.settings.kube_context) as client:
        context.log.info("mirroring", server=client.host)
        await Bridge(context, client).run()


class Bridge:
    def __init__(self, context: Context[Settings], client: Client) -> None:
        settings = context.settings
        self._context = context
        self._adopt = settings.kube_adopt
        self._claimed = False
        self.core = Core()
        self._identity = Identity(client)
        self._discovery = Discovery(client, settings.kube_absent_s)
        self.followers = [
            Follower(source, client, self._identity, self._discovery, settings, hear=self._hear, turned=self._turned)
            for source in SOURCES
        ]
        self.election = Election(
            client,
            settings.kube_lease_namespace,
            settings.kube_lease_name,
            f"{settings.instance}_{uuid4().hex[:8]}",
            duration_s=settings.kube_lease_s,
            ready=self._ready,
            turned=self._elected,
        )
        self.lease = Lease(
            context.bus,
            SERVICE,
            settings.instance,
            fit=lambda: self.election.elected and self._ready(),
            keep=lambda: not self.election.other,
        )
        self.lease.on_change(self._leads)
        interests = [Interest(DESIRED[kind]) for kind in KINDS_MIRRORED]
        self.publication = Publication(context.bus, interests, lease=self.lease, spared=self._spared)
        self.reporting = Reporting(
            client,
            self.core,
            self._discovery,
            instance=settings.instance,
            per_s=settings.kube_status_per_s,
            grace_s=settings.kube_node_grace_s,
            leads=lambda: self.lease.held and self.election.elected,
            note=context.health.note,
        )
        self._pacer = Pacer(0.0, 0.1)

    async def run(self) -> None:
        self._context.health.fail(standings.NOTHING, "Kubernetes has not been read yet")
        self.publication.complete()
        async with self.publication, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._claim(), name="claim"),
                tasks.create_task(self.election.run(), name="election"),
                tasks.create_task(self.lease.run(), name="lease"),
                tasks.create_task(self.publication.run(), name="publication"),
                tasks.create_task(self._pacer.run(self._flush), name="flush"),
                tasks.create_task(self._feed(), name="feed"),
                tasks.create_task(self.reporting.run(), name="reporting"),
                *(tasks.create_task(follower.run(), name=follower.source.name) for follower in self.followers),
            ]
            await self._context.stopping.wait()
            for task in running:
                task.cancel()

    # --- who writes

    def _ready(self) -> bool:
        """Everything is as it is now, as far as the server says it."""
        return self._claimed and all(follower.settled for follower in self.followers)

    async def _claim(self) -> None:
        """Until the bus is known to be ours."""
        while True:
            await self._context.bus.connected()
            if not self._identity.uid:
                await asyncio.sleep(0.05)
                continue
            objection = claim.objection(await claim.marks(self._context.bus), self._identity.uid, self._adopt)
            if not objection:
                break
            self._context.health.fail(CLUSTER, objection)
            self._context.log.error("another cluster's bus", reason=objection)
            await asyncio.sleep(CLAIM_RETRY_S)
        self._context.health.ok(CLUSTER)
        self._claimed = True

    def _elected(self) -> None:
        if self.election.hindrance and not self.election.elected:
            self._context.health.fail(LEASE, self.election.hindrance)
        else:
            self._context.health.ok(LEASE)
        self._context.health.note(LEASE, self.election.why or None)
        if self.election.elected:
            self.lease.became_fit()

    def _leads(self, held: bool) -> None:
        metrics.LEADS.set(held)
        self._context.log.info("leads" if held else "does not lead")
        if held:
            self.reporting.everything()

    def _spared(self, family: Family[Any], key: Key, message: Message) -> bool:
        """What is on the bus and not in Kubernetes, and is not for us to remove."""
        kind = _KIND_OF[family]
        if not isinstance(message, Resource) or not self.core.may_remove(kind, (key[0], key[1])):
            return True
        mark = marked_by(message)
        return not mark or (mark != self._identity.uid and self._adopt != self._identity.uid)

    # --- Kubernetes

    def _hear(self, fact: Fact) -> None:
        self.core.apply(fact)
        match fact:
            case Changed(seen):
                self.reporting.touch(seen.source, seen.name)
            case Listed(source, objects):
                for seen in objects:
                    self.reporting.touch(source, seen.name)
            case Gone(source, name):
                self.reporting.touch(source, name)
        self._pacer.mark()

    def _turned(self) -> None:
        stands = [standings.Stand(f.source, f.cursor.standing, f.cursor.why) for f in self.followers]
        said = standings.report(stands, self.core.leftovers())
        for cause, text in said.causes.items():
            if text is None:
                self._context.health.ok(cause)
            else:
                self._context.health.fail(cause, text)
        for note, text in said.notes.items():
            self._context.health.note(note, text)

    # --- the bus

    async def _flush(self) -> None:
        unsure = self.core.unsure()
        if unsure:
            found = await self._context.bus.get_many([(DESIRED[kind], key) for kind, key in unsure])
            for id_, fact in zip(unsure, found, strict=True):
                self.core.recall(id_, None if isinstance(fact, Unreadable) else fact.value)
        with metrics.FLUSH_SECONDS.time():
            changes = self.core.flush()
            for (kind, key), resource in changes.wanted.items():
                self.publication.want(DESIRED[kind], key, resource)
            for kind in changes.completed:
                self.publication.look_again(DESIRED[kind])
        self._report(changes)
        for follower in self.followers:
            if follower.cursor.standing is Standing.FOLLOWING:
                metrics.OBJECTS.labels(follower.source.name).set(self.core.count(follower.source))
        await self.publication.write()

    def _report(self, changes: Changes) -> None:
        if not (changes.raised or changes.cleared):
            return
        troubles = list(self.core.troubles)
        metrics.INVALID.set(len(troubles))
        said = [f"{t.display}: {'; '.join(t.reasons)} ({t.instead})" for t in troubles[:NOTED]]
        if len(troubles) > NOTED:
            said.append(f"and {len(troubles) - NOTED} more")
        self._context.health.note(INVALID, "; ".join(said) or None)
        for trouble in changes.raised:
            self._context.log.warning(trouble.what, object=trouble.display, reasons=trouble.reasons)
        for trouble in changes.cleared:
            self.reporting.trouble(trouble, over=True)
            self._tell("resolved", trouble, "is mirrored as it is, or gone")
        for trouble in changes.raised:
            self.reporting.trouble(trouble, over=False)
            self._tell(trouble.what, trouble, f"{'; '.join(trouble.reasons)} ({trouble.instead})")

    def _tell(self, what: str, trouble: Trouble, message: str) -> None:
        """An event on the bus, from the bridge that leads."""
        if self.lease.held:
            event = Event(time=time.time(), domain="kube", what=what, object=trouble.display, message=message)
            self._context.bus.emit(event)

    async def _feed(self) -> None:
        async with self._context.bus.follow(*(Interest(family) for family in READS)) as feed:
            while True:
                batch = await feed.next()
                for fact in batch.facts:
                    self.reporting.hear(fact)
