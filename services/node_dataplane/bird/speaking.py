"""The shell around this node's BIRD.

    Speaker, mesh members ---> record + passwords ---> render ---> driver ---> BIRD
    BIRD ---> sessions ---> health, metrics, events, `sessions.<node>`

Nothing is done before the bus has told the whole record; a BIRD that runs goes on, and one that should run and does not
(the machine was started while the bus was away) is started with what an earlier life was given.

A session that is down never makes the node unready: the others work, and so do the routes that it lost if the node has
a way of its own. It is named in health, with BIRD's reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from bus_schemas.bgp import MeshMember, Secret, Speaker, with_mesh
from bus_schemas.events import Event
from bus_schemas.ids import NodeName
from bus_schemas.sessions import SESSIONS_INTERVAL_S, SESSIONS_TTL_S, Sessions, SessionState
from bus_schemas.subjects import BGP, BGP_MESH, SESSIONS, Fact
from chassis.bus import Bus
from chassis.errors import BusError
from chassis.health import Health
from services.node_dataplane.bird import passwords, words
from services.node_dataplane.bird.driver import BirdDriver
from services.node_dataplane.bird.metrics import DEATHS, FLAPS, SessionMetrics
from services.node_dataplane.bird.render import render
from services.node_dataplane.errors import BirdError

LOOK_S = 1.0
"""Between two looks while something changes,"""
CALM_S = 5.0
"""and while nothing does."""
RECENT_S = 60.0
"""So long health tells of a BIRD that ended."""
BIRD, REFUSED, PASSWORDS, SESSION = "bird", "bgp configuration", "bgp passwords", "bgp"
"""What health names."""


class Speaking:
    def __init__(
        self,
        node: NodeName,
        driver: BirdDriver,
        bus: Bus,
        health: Health,
        *,
        secrets: Path | None,
    ) -> None:
        """`secrets`: where the Secrets with passwords are mounted."""
        self._node = node
        self._driver = driver
        self._bus = bus
        self._health = health
        self._secrets = secrets
        self._speaker: Speaker | None = None
        self._members: dict[str, MeshMember] = {}
        self._whole: Speaker | None = None
        """The record with the mesh; None: one of the two changed."""
        self._rendered: tuple[Mapping[Secret, str], str] | None = None
        """Of `_whole` and these passwords."""
        self._told_all = False
        self._changed = asyncio.Event()
        self._metrics = SessionMetrics()
        self._seen: tuple[SessionState, ...] | None = None
        """None: nothing has been seen of the running BIRD yet."""
        self._fault = ""
        self._deaths = 0
        self._died_at = 0.0
        self._published: tuple[float, Sessions | None] = (0.0, None)

    def close(self) -> None:
        self._metrics.close()
        self._driver.close()

    # --- facts

    def apply(self, fact: Fact) -> None:
        """The node's record, or a member of the mesh; others are not ours."""
        if fact.family is BGP:
            self._speaker = fact.value
        elif fact.family is BGP_MESH:
            if fact.value is None:
                self._members.pop(fact.key[0], None)
            else:
                self._members[fact.key[0]] = fact.value
        else:
            return
        self._whole = None
        self._changed.set()

    def in_sync(self) -> None:
        """Everything has been told once."""
        if not self._told_all:
            self._told_all = True
            self._changed.set()

    # --- tasks

    async def run(self) -> None:
        """For ever."""
        while True:
            self._changed.clear()
            await self._turn()
            await self._rest()

    async def _turn(self) -> None:
        driver = self._driver
        fault, sessions = "", tuple[SessionState, ...]()
        try:
            if self._told_all:
                driver.wanted = self._wanted()
            await driver.converge()
            sessions = await driver.sessions()
        except (BirdError, OSError) as error:
            fault = str(error)
        self._fault = fault
        self._mourn()
        self._look(sessions)
        self._say(sessions)
        await self._publish(sessions)

    def _wanted(self) -> str | None:
        """The text for BIRD; made anew only when what it is made of changed."""
        if self._speaker is None:
            self._health.note(PASSWORDS, None)
            return None
        if self._whole is None:
            self._whole = with_mesh(self._speaker, self._members.values())
            self._rendered = None
        found = passwords.read(self._secrets, passwords.secrets_of(self._whole))
        missing = "; ".join(sorted(set(found.missing.values())))
        self._health.note(PASSWORDS, f"sessions are left out: {missing}" if missing else None)
        if self._rendered is None or self._rendered[0] != found.known:
            self._rendered = found.known, render(self._whole, found.known, log=str(self._driver.process.log))
        return self._rendered[1]

    def _mourn(self) -> None:
        """A BIRD that ended by itself since the last turn, whether or not another one runs already."""
        if self._driver.deaths == self._deaths:
            return
        DEATHS.inc(self._driver.deaths - self._deaths)
        self._deaths = self._driver.deaths
        self._died_at = asyncio.get_running_loop().time()
        FLAPS.inc(sum(session.established for session in self._seen or ()))
        self._seen = ()
        self._emit("bird_ended", str(self._node), "BIRD ended and is started again; its routes stay meanwhile.", {})

    def _look(self, sessions: tuple[SessionState, ...]) -> None:
        self._metrics.show(sessions)
        if not self._driver.running:
            self._seen = () if self._seen else None
            return
        if self._seen is not None:
            for told in words.changes(self._seen, sessions):
                self._emit(*told)
        self._seen = sessions

    def _say(self, sessions: tuple[SessionState, ...]) -> None:
        """In health, what is not as it should be."""
        now, refusal = asyncio.get_running_loop().time(), self._driver.refusal
        if self._fault:
            bird = f"{self._fault}; its routes stay, it is started again"
        elif self._deaths and now - self._died_at < RECENT_S:
            bird = f"it ended within the last {RECENT_S:g} s and was started again; so far {self._deaths} times"
        else:
            bird = ""
        self._health.note(BIRD, bird or None)
        self._health.note(REFUSED, f"BIRD refuses it, the last good one stays: {refusal}" if refusal else None)
        self._health.note(SESSION, words.trouble(sessions) or None)

    async def _rest(self) -> None:
        """Until there is news from the bus, BIRD ends, or it is time to look again."""
        calm = self._driver.running and all(s.established for s in self._seen or ())
        pause = CALM_S if calm or self._driver.wanted is None else LOOK_S
        if not self._driver.running and self._driver.wanted is not None:
            pause = min(pause, self._driver.rest_s + 0.01)
        try:
            async with asyncio.timeout(pause), asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(self._hear_end()) if self._driver.running else None
                await self._changed.wait()
                if listening is not None:
                    listening.cancel()
        except TimeoutError:
            pass

    async def _hear_end(self) -> None:
        await self._driver.ended()
        self._changed.set()

    async def _publish(self, sessions: tuple[SessionState, ...]) -> None:
        at, last = self._published
        if self._driver.wanted is None and not self._driver.running:
            if last is not None:
                self._published = (0.0, None)
                await self._put(None)
            return
        message = Sessions(
            node=self._node,
            running=self._driver.running,
            version=self._driver.version,
            since=self._driver.since,
            fault="; ".join(filter(None, (self._fault, self._driver.refusal))),
            sessions=sessions,
        )
        now = asyncio.get_running_loop().time()
        if message == last and now - at < SESSIONS_INTERVAL_S:
            return
        if await self._put(message):
            self._published = (now, message)

    async def _put(self, message: Sessions | None) -> bool:
        try:
            if message is None:
                await self._bus.delete(SESSIONS, (self._node,))
            else:
                await self._bus.put(SESSIONS, (self._node,), message, ttl_s=SESSIONS_TTL_S)
        except BusError:
            return False  # Health says why; the next look says more.
        return True

    def _emit(self, what: str, object_: str, message: str, detail: dict[str, str]) -> None:
        if what == "lost":
            FLAPS.inc()
        self._bus.emit(
            Event(
                time=time.time(),
                domain="bgp",
                what=what,
                node=self._node,
                object=object_,
                message=message,
                detail=detail,
            )
        )
