"""The shell of route distribution: the feed into the core, what the core wants onto the bus.

    feed --(nodes, their agents' addresses)--> AddressesOfNodes --> nodes
    feed --(blocks, nodes, pools)---------------> Core --routes--> Summaries --> Publication
      \\---(nodes, pools, BGP resources)--> BgpCore <--routes--/
                                              \\--> speakers, mesh ------------> Publication

Every replica computes; the one that holds the lease writes. `chassis.derivation` has the flow and its guards.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from bus_schemas.events import Event
from bus_schemas.routes import Route
from bus_schemas.subjects import BGP, BGP_MESH, NODE_ADDRESSES, ROUTE, Fact, Family, Key
from chassis.derivation import Derivation
from chassis.feed import Batch
from chassis.pacing import Pacer
from chassis.runner import Context
from services.route_distribution import bgp
from services.route_distribution.bgp import BgpCore
from services.route_distribution.core import READS, Core, Withheld
from services.route_distribution.news import changed
from services.route_distribution.node_addresses import NODE, AddressesOfNodes
from services.route_distribution.settings import Settings
from services.route_distribution.summaries import Summaries

SERVICE = "route_distribution"
WRITES = (ROUTE, BGP_MESH, BGP)
PACKED = (ROUTE, BGP_MESH, NODE, NODE_ADDRESSES)
"""What every agent reads whole."""


async def serve(context: Context[Settings]) -> None:
    settings = context.settings
    nodes, core, summaries, speakers = AddressesOfNodes(), Core(), Summaries(), BgpCore()
    pacer = Pacer(settings.route_flush_min_s, settings.route_flush_max_s, settings.route_retry_s)
    reads = tuple(dict.fromkeys((*READS, *bgp.READS, NODE_ADDRESSES)))
    derivation = Derivation(context, SERVICE, reads=reads, writes=WRITES, pacer=pacer, packed=PACKED)

    def written(family: Family[Any], key: Key, before: Any, after: Any) -> None:
        if family == ROUTE:
            replaced = before if isinstance(before, Route) else None  # what cannot be read is no route
            if (event := changed(key[0], replaced, after, time.time())) is not None:
                context.bus.emit(event)

    derivation.publication.on_written = written

    def hear(batch: Batch) -> None:
        for fact in batch.facts:
            if not nodes.apply(fact):
                core.apply(fact)
                speakers.apply(fact)

    async def derive() -> None:
        clear = nodes.flush()
        for key, value in clear.nodes.items():
            fact = Fact(NODE, ("", key), value)
            core.apply(fact)
            speakers.apply(fact)
        changes = core.flush()
        for cidr, route in summaries.update(changes.routes).items():
            derivation.publication.want(ROUTE, (cidr,), route)
        for cidr, route in changes.routes.items():
            speakers.apply_route(cidr, route)  # BGP announces blocks, as Calico does, however we tell them
        sessions = speakers.flush()
        for node, member in sessions.members.items():
            derivation.publication.want(BGP_MESH, (node,), member)
        for node, speaker in sessions.speakers.items():
            derivation.publication.want(BGP, (node,), speaker)
        derivation.publication.complete()
        raised = (*clear.raised, *changes.raised, *sessions.raised)
        cleared = (*clear.cleared, *changes.cleared, *sessions.cleared)
        report(context, raised, cleared, speak=derivation.lease.held)

    await derivation.run(hear, derive)


def report(context: Context[Settings], raised: Iterable[Withheld], cleared: Iterable[Withheld], *, speak: bool) -> None:
    """Troubles to health, and, from the replica that leads, to the events."""
    for trouble in cleared:
        context.health.note(_cause(trouble), None)
        if speak:
            context.bus.emit(_event("resolved", trouble, f"no longer: {trouble.message}"))
    for trouble in raised:
        context.health.note(_cause(trouble), trouble.message)
        context.log.warning("route withheld", what=trouble.what, object=trouble.object)
        if speak:
            context.bus.emit(_event(trouble.what, trouble, trouble.message))


def _cause(trouble: Withheld) -> str:
    return f"{trouble.what} {trouble.object}"


def _event(what: str, trouble: Withheld, message: str) -> Event:
    return Event(time=time.time(), domain="route", what=what, object=trouble.object, message=message)
