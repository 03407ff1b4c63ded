"""The events, as server-sent events: from a moment on, and as they happen.

One domain is filtered by the bus; several are picked out here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import msgspec

from bus_schemas.events import Event
from bus_schemas.subjects import EVENT, Fact
from chassis.bus import Bus
from chassis.tail import LOOK_BACK, Tail
from services.api.peers import named
from services.api.sse import EventStream

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def moment(text: str) -> float | None:
    """`since` as unix time: seconds since the epoch, or how long ago (`90s`, `15m`, `2h`, `7d`); empty: from now on.
    Raises ValueError."""
    if not text:
        return None
    unit = _UNITS.get(text[-1])
    return float(text) if unit is None else time.time() - float(text[:-1]) * unit


def count(text: str) -> int:
    """`last`: how many events of the past; empty: none. Raises ValueError."""
    number = int(text or 0)
    if not 0 <= number <= LOOK_BACK:
        raise ValueError
    return number


async def follow(
    bus: Bus,
    stream: EventStream,
    *,
    since: float | None,
    last: int = 0,
    domains: Collection[str],
    owner: Callable[[str], str],
) -> None:
    """Sends the events until the stream ends. Without `since`, the last few first. `owner` of an address: a pod."""
    leading = tuple(domains) if len(domains) == 1 else ()
    tail = Tail(bus, EVENT, *leading, since=since)

    def wanted(fact: Fact) -> bool:
        return not domains or fact.value.domain in domains

    async def send(fact: Fact) -> None:
        event: Event = named(fact.value, owner, time.time())
        await stream.send(event.domain, msgspec.json.encode(event), ident=fact.sequence)

    try:
        if last and since is None:
            for fact in await tail.past(last, wanted):
                await send(fact)
        while stream.running:
            facts = await tail.next()
            if not facts:
                await stream.beat()
            for fact in filter(wanted, facts):
                await send(fact)
    finally:
        await tail.close()
