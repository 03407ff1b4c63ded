"""Whose objects are on the bus: read once before anything is written.

Objects that another cluster was mirrored to are not ours to replace: this may be the wrong bus, or the wrong cluster.
"""

from __future__ import annotations

from collections import Counter

from bus_schemas.resources import Resource
from bus_schemas.subjects import DESIRED
from chassis.bus import Bus
from chassis.feed import Interest
from services.kube_bridge.mirror import marked_by
from services.kube_bridge.sources import KINDS_MIRRORED


async def marks(bus: Bus) -> Counter[str]:
    """How many objects on the bus carry the mark of which cluster."""
    found: Counter[str] = Counter()
    async with bus.follow(*(Interest(DESIRED[kind]) for kind in KINDS_MIRRORED)) as feed:
        while True:
            batch = await feed.next()
            for fact in batch.facts:
                if isinstance(fact.value, Resource) and (mark := marked_by(fact.value)):
                    found[mark] += 1
            if batch.in_sync:
                return found


def objection(found: Counter[str], cluster: str, adopt: str) -> str:
    """Why nothing may be written; empty: it may."""
    others = {mark: count for mark, count in found.items() if mark != cluster}
    if not others or adopt == cluster:
        return ""
    said = ", ".join(f"{count} objects of the cluster {mark}" for mark, count in sorted(others.items()))
    return (
        f"the bus holds {said}; this is the cluster {cluster}: nothing is written. Is this the right bus? If the "
        f"cluster was made anew, set TORTIE_KUBE_ADOPT={cluster}"
    )
