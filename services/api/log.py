"""The events, as server-sent events: from a moment or a place on, and as they happen.

    event: <domain>      id: <its sequence>     data: the event and its sequence, JSON
    event: SYNC          id: <where reading stands>   the past has been told; what follows is new (?sync=true)
    event: GAP           events between here and the last one are not on the bus any more

The bus filters one domain; everything else is picked out here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from bus_schemas.event_filter import EventFilter
from bus_schemas.events import Event
from bus_schemas.subjects import EVENT, Fact
from chassis.bus import Bus
from chassis.tail import LOOK_BACK, Tail
from services.api.peers import named
from services.api.sse import EventStream

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Asked(NamedTuple):
    """What a reader of events wants."""

    filter: EventFilter
    since: float | None = None
    """Unix time in seconds; None: from now on."""
    after: int | None = None
    """The sequence of the last event that was read; goes before `since`."""
    last: int = 0
    """So many of the past first, without the others."""
    follow: bool = True
    sync: bool = False
    """To be told when the past ends and what follows is new."""


def asked(query: Mapping[str, str], *, follow: bool, sync: bool) -> Asked:
    """Of a request's query. Raises ValueError with a sentence."""

    def words(name: str) -> frozenset[str]:
        return frozenset(filter(None, query.get(name, "").split(",")))

    wanted = EventFilter(
        domains=words("domain"),
        whats=words("what"),
        nodes=words("node"),
        namespaces=words("namespace"),
        pods=tuple(sorted(words("pod"))),
        severity=query.get("severity", ""),
    )
    try:
        since = moment(query.get("since", ""))
    except ValueError as error:
        raise ValueError("since is a unix time, or how long ago: 90s, 15m, 2h, 7d") from error
    try:
        last = count(query.get("last", ""))
    except ValueError as error:
        raise ValueError(f"last is a number from 0 to {LOOK_BACK}") from error
    after = query.get("after", "")
    if after and not after.isdecimal():
        raise ValueError("after is the sequence of an event, a number")
    return Asked(wanted, since, int(after) if after else None, last, follow, sync)


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


async def follow(bus: Bus, stream: EventStream, wish: Asked, *, owner: Callable[[str], str]) -> None:
    """Sends the events until the stream ends, or the past does. `owner` of an address: a pod."""
    leading = tuple(wish.filter.domains) if len(wish.filter.domains) == 1 else ()
    tail = Tail(bus, EVENT, *leading, since=wish.since, after=wish.after)

    async def send(facts: list[Fact]) -> None:
        if tail.took_gap():
            await stream.send("GAP", b"{}")
        for fact in facts:
            event: Event = named(fact.value, owner, time.time())
            if wish.filter.matches(event):
                body = {**msgspec.to_builtins(event), "sequence": fact.sequence}
                await stream.send(event.domain, msgspec.json.encode(body), ident=fact.sequence)

    def wanted(fact: Fact) -> bool:
        return wish.filter.matches(named(fact.value, owner, time.time()))

    try:
        if wish.last and wish.since is None and wish.after is None:
            await send(await tail.past(wish.last, wanted))
        else:
            while stream.running and (facts := await tail.stored()) is not None:
                if not facts:
                    await stream.beat()
                await send(facts)
        if wish.sync:
            await stream.send("SYNC", b"{}", ident=tail.place)
        while stream.running and wish.follow:
            facts = await tail.next()
            if not facts:
                await stream.beat()
            await send(facts)
    finally:
        await tail.close()
