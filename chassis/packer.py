"""Who keeps the packs of large families (`chassis.packs`): the leader of the service that knows them, now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bus_schemas.subjects import PACK, Family
from chassis import jetstream
from chassis.bus import Bus, Write
from chassis.errors import Rejected, Unavailable
from chassis.jetstream import Stored, StreamInfo
from chassis.packs import TTL_S, pack
from chassis.session import Session

LEAST = 1000
"""Families of fewer keys are not packed: reading them is cheap."""
PERIOD_S = 2.0
"""How often the packer looks whether a pack is due."""
APART_S = 30.0
"""Two packs of a family are at least so far apart."""
TAIL = 500
"""A pack is made anew when more than this was written since, and more than a tenth of its keys."""
REFRESH_S = TTL_S / 2


class _Made(NamedTuple):
    created: str
    upto: int
    keys: int
    at: float


class Packer:
    """`run` is the task that keeps the packs."""

    def __init__(
        self, bus: Bus, families: Sequence[Family[Any]], *, wanted: Callable[[], bool], least: int = LEAST
    ) -> None:
        """`wanted`: asked at each turn."""
        self._bus = bus
        self._families = families
        self._wanted = wanted
        self._least = least
        self._made: dict[str, _Made] = {}

    async def run(self) -> None:
        """For ever. Without a server there is nothing to pack: the next turn asks again."""
        while True:
            await asyncio.sleep(PERIOD_S)
            if not self._families or not self._wanted():
                continue
            try:
                await self.turn()
            except (Unavailable, Rejected) as error:
                self._bus.health.note("packs", f"the packs of large families are not kept: {error}")
            else:
                self._bus.health.note("packs", None)

    async def turn(self) -> None:
        """Packs what is due. Raises Unavailable, Rejected."""
        session = await self._bus.session()
        for family in self._families:
            info = await jetstream.stream_info(session, family.stream)
            if info is not None and self._due(family, info):
                await self._pack(session, family, info)

    def _due(self, family: Family[Any], info: StreamInfo) -> bool:
        made = self._made.get(family.name)
        if made is None or made.created != info.created:
            return True
        age = asyncio.get_running_loop().time() - made.at
        behind = info.state.last_seq - made.upto
        if made.keys < self._least:
            return behind >= self._least - made.keys  # only then can they have become many
        return age > REFRESH_S or (age > APART_S and behind > max(TAIL, made.keys // 10))

    async def _pack(self, session: Session, family: Family[Any], info: StreamInfo) -> None:
        """What is written while we read has a sequence beyond `upto`: whoever reads the pack reads that, too."""
        messages: list[Stored] = []
        async for some in jetstream.snapshot(session, family.stream, [family.filter()]):
            messages += [message for message in some if message.payload]
        now = asyncio.get_running_loop().time()
        self._made[family.name] = _Made(info.created, info.state.last_seq, len(messages), now)
        if len(messages) < self._least:
            return
        parts = await asyncio.to_thread(pack, info.created, info.state.last_seq, messages)
        await self._bus.batch([Write(PACK, (family.name, str(p.part)), p, ttl_s=TTL_S) for p in parts])
