"""The shell of the policy compiler: the feed into the core, what the core wants onto the bus.

    feed (policies and all that they speak of) --> Core.apply --> pacer --> Core.flush --> Publication (groups, rules,
                                                                                              attachments, statuses)

Every replica computes all of it, and writes the shards that it holds. `chassis.derivation` has the flow and its guards,
`chassis.shares` says who holds what.
"""

from __future__ import annotations

import time

from bus_schemas.subjects import ATTACHMENT, DIRECTION, GROUP, HOST_ATTACHMENT, POLICY_STATUS, RULES
from chassis.bus import Bus
from chassis.derivation import Derivation
from chassis.feed import Batch, Interest
from chassis.pacing import Pacer
from chassis.publication import Publication
from chassis.runner import Context
from services.policy_compiler import metrics
from services.policy_compiler.core import READS, WRITES, Changes, Core
from services.policy_compiler.faults import Fault
from services.policy_compiler.longevity import Longevity
from services.policy_compiler.news import News
from services.policy_compiler.references import names
from services.policy_compiler.settings import Settings
from services.policy_compiler.withheld import Withheld

SERVICE = "policy_compiler"
NOTHING_DESIRED = "nothing desired"
"""The cause under which health says that policy is kept although nothing asks for it."""
UNREADABLE = "desired policy"
"""The cause under which it says that it cannot begin, see `withheld`."""
NOTED_FAULTS = 10
"""How many faults health spells out; the rest is a number."""


async def serve(context: Context[Settings]) -> None:
    settings = context.settings
    core = Core()
    longevity = Longevity()
    pacer = Pacer(settings.policy_flush_min_s, settings.policy_flush_max_s, settings.policy_retry_s)
    derivation = Derivation(
        context,
        SERVICE,
        reads=READS,
        writes=WRITES,
        pacer=pacer,
        shards=settings.policy_shards,
        names=names,
        warm_bytes=settings.policy_warm_mb * 1_000_000,
    )
    news = News(context.bus.emit, derivation.lease.covers, core.governed)
    derivation.lease.on_change(lambda _held: news.look_again(time.time()))
    withheld = Withheld()
    begun = False

    def hear(batch: Batch) -> None:
        withheld.hear(batch)
        for fact in batch.facts:
            core.apply(fact)
        if batch.in_sync:
            longevity.hear(len(batch.facts))
        else:
            longevity.keep()

    async def derive() -> bool:
        nonlocal begun
        if not begun and withheld.why:
            context.health.fail(UNREADABLE, f"compiled policy stays as it is until these can be read: {withheld.why}")
            return False
        context.health.ok(UNREADABLE)
        if not begun and core.is_blank and await _anything_published(context.bus):
            context.health.note(NOTHING_DESIRED, "compiled policy is kept, though nothing asks for it any more")
            return True
        context.health.note(NOTHING_DESIRED, None)
        with metrics.FLUSH_SECONDS.time():
            changes = core.flush() if begun else longevity.first_flush(core)
        first, begun = not begun, True
        want(derivation.publication, changes)
        derivation.publication.complete()
        measure(core, changes)
        report(context, core, changes)
        news.tell(changes, time.time(), first=first)
        return True

    def settled() -> None:
        longevity.settle()
        for what, size in core.sizes.items():
            metrics.SIZES.labels(what).set(size)

    await derivation.run(hear, derive, settled)


async def _anything_published(bus: Bus) -> bool:
    """Policy was compiled once. That DESIRED was wiped is no wish to remove it (ARCHITECTURE section 3, rule 6)."""
    async with bus.follow(*map(Interest, WRITES)) as feed:
        while True:
            batch = await feed.next()
            if any(fact.value is not None for fact in batch.facts):
                return True
            if batch.in_sync:
                return False


def want(publication: Publication, changes: Changes) -> None:
    """In the order in which the segments of a group are to be written."""
    for segment, group in changes.groups.items():
        publication.want(GROUP, (segment.group, str(segment.segment)), group)
    for uid, rules in changes.rules.items():
        publication.want(RULES, (uid,), rules)
    for direction, shared in changes.directions.items():
        publication.want(DIRECTION, (direction,), shared)
    for workload, attachment in changes.attachments.items():
        publication.want(ATTACHMENT, workload, attachment)
    for host, host_attachment in changes.hosts.items():
        publication.want(HOST_ATTACHMENT, host, host_attachment)
    for resource, status in changes.statuses.items():
        publication.want(POLICY_STATUS, resource, status)


def measure(core: Core, changes: Changes) -> None:
    if changes.raised or changes.cleared:
        metrics.FAULTS.set(len(core.faults))
    for family, count in (
        (GROUP, len(changes.groups)),
        (RULES, len(changes.rules)),
        (DIRECTION, len(changes.directions)),
        (ATTACHMENT, len(changes.attachments)),
        (HOST_ATTACHMENT, len(changes.hosts)),
        (POLICY_STATUS, len(changes.statuses)),
    ):
        if count:
            metrics.MESSAGES.labels(family.name).inc(count)


def report(context: Context[Settings], core: Core, changes: Changes) -> None:
    """What could not be compiled: to health and to the log."""
    if changes.raised or changes.cleared:
        context.health.note("not compiled", summary(core.faults))
    for fault in changes.raised:
        context.log.warning("not compiled", object=fault.object, fault=fault.message)


def summary(faults: list[Fault]) -> str | None:
    """One line for health; None when there is nothing to say."""
    if not faults:
        return None
    said = [f"{fault.object}: {fault.message}" for fault in faults[:NOTED_FAULTS]]
    if len(faults) > NOTED_FAULTS:
        said.append(f"and {len(faults) - NOTED_FAULTS} more")
    return "; ".join(said)
