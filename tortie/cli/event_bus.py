"""Events read from the bus itself, for machines without an api: `tortie events tail --bus`.

The server keeps what has not been read, so a slow terminal slows the reading and nothing else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import msgspec

from bus_schemas.event_filter import EventFilter
from bus_schemas.subjects import EVENT, Fact
from chassis.bus import Bus
from chassis.errors import SettingsError
from chassis.health import Health
from chassis.logs import configure
from chassis.settings import ServiceSettings
from chassis.tail import Tail
from services.api.log import moment
from tortie.cli.errors import Misused, Unreachable
from tortie.cli.output import note

CONNECT_S = 5.0
CAUSE = "bus"
BACK = "connected again; reading goes on where it stopped"
GAP = "some events between here and the last one are lost: the bus does not hold them any more"


def read(
    url: str, wanted: EventFilter, show: Callable[[dict[str, Any]], None], *, last: int, since: str, follow: bool
) -> None:
    """Shows the events that are wanted, each once. TORTIE_NATS_CREDENTIALS names a file with credentials. Raises
    Unreachable when there is no bus from the start, Misused."""
    try:
        settings = ServiceSettings(
            nats_url=url, nats_credentials=os.environ.get("TORTIE_NATS_CREDENTIALS", ""), health_listen=""
        )
        start = moment(since)
    except SettingsError as error:
        raise Misused(f"--bus: {error}") from error
    except ValueError as error:
        raise Misused("--since is how long ago: 90s, 15m, 2h, 7d") from error
    configure("console", "error")
    asyncio.run(_read(settings, wanted, show, last, start, follow=follow))


async def _read(
    settings: ServiceSettings,
    wanted: EventFilter,
    show: Callable[[dict[str, Any]], None],
    last: int,
    since: float | None,
    *,
    follow: bool,
) -> None:
    health = Health()
    async with Bus.connect(settings, name="events", health=health) as bus:
        try:
            async with asyncio.timeout(CONNECT_S):
                await bus.connected()
        except TimeoutError as error:
            raise Unreachable(f"no bus at {settings.nats_url}: {health.causes.get(CAUSE, 'no answer')}") from error
        leading = tuple(wanted.domains) if len(wanted.domains) == 1 else ()
        tail = Tail(bus, EVENT, *leading, since=since)
        away = False

        def take(facts: list[Fact]) -> None:
            nonlocal away
            if (CAUSE in health.causes) != away:
                away = not away
                note(f"the bus broke off: {health.causes[CAUSE]}; trying again" if away else BACK)
            if tail.took_gap():
                note(GAP)
            for fact in facts:
                if wanted.matches(fact.value):
                    show({**msgspec.to_builtins(fact.value), "sequence": fact.sequence})

        try:
            if last and since is None:
                take(await tail.past(last, lambda fact: wanted.matches(fact.value)))
            else:
                while (facts := await tail.stored()) is not None:
                    take(facts)
            while follow:
                take(await tail.next())
        finally:
            await tail.close()
