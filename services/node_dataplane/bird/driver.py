"""Keeps a running BIRD equal to a wanted configuration, or to none.

    wanted text --> same as bird.conf? --> `configure check` --> `configure` --> bird.conf
    no text     --> routes withdrawn, BIRD ended, bird.conf gone

BIRD itself compares old and new: only protocols that changed in more than their filters and limits are restarted. So
the text is applied whole, and only when it differs. A text that BIRD refuses is set aside with the line that it
complains of; the last good one goes on. A BIRD that ended is started again, ever later while it keeps ending.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from bus_schemas.sessions import SessionState
from services.node_dataplane.bird.control import RECONFIGURED, Control
from services.node_dataplane.bird.process import BirdProcess, Refused
from services.node_dataplane.bird.sessions import moment, sessions
from services.node_dataplane.errors import BirdError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STEADY_S = 60.0
"""A BIRD that ran for so long and ended begins with the first pause again."""
_PLACE = re.compile(r"(?:\S*/)?bird\.(?:new|conf):(\d+):\d+ (.*)")


class BirdDriver:
    def __init__(self, directory: Path, *, has_routes: Callable[[], bool]) -> None:
        """`has_routes`: the kernel holds routes of a BIRD."""
        self.process = BirdProcess(directory)
        self._applied = self.process.text()
        """What BIRD runs with, or is to run with when it is started again."""
        self.wanted = self._applied
        """Until somebody says otherwise, what an earlier life was given."""
        self.version = ""
        self.since = 0.0
        """When BIRD began, as Unix time."""
        self.deaths = 0
        """How often it ended without being told to."""
        self.refusal = ""
        """Why it does not run with what is wanted; empty: it does."""
        self._has_routes = has_routes
        self._control: Control | None = None
        self._refused: str | None = None
        self._pause_s = FIRST_PAUSE_S
        self._not_before = 0.0
        self._started = 0.0

    def close(self) -> None:
        """BIRD runs on."""
        if self._control is not None:
            self._control.close()
            self._control = None

    @property
    def running(self) -> bool:
        """It answered when it was last asked."""
        return self._control is not None

    @property
    def rest_s(self) -> float:
        """How long BIRD is left alone before it is started again."""
        return max(0.0, self._not_before - asyncio.get_running_loop().time())

    async def converge(self) -> None:
        """Raises BirdError when there is no BIRD although there should be."""
        text = self.wanted
        if self._control is None:
            await self._adopt()
        if text is None:
            await self._leave()
        elif self._control is None:
            await self._start(text)
        elif text != self._applied:
            await self._configure(self._control, text)
        else:
            self._accepted()

    async def sessions(self) -> tuple[SessionState, ...]:
        """As they stand; none while BIRD is not running. Raises BirdError when it ended meanwhile."""
        if self._control is None:
            return ()
        try:
            reply = await self._control.ask("show protocols all")
        except BirdError:
            self._lost()
            raise
        return sessions(reply.lines, datetime.now().astimezone())

    async def ended(self) -> None:
        """Returns when the running BIRD has ended."""
        if self._control is not None:
            await self._control.ended()
            self._lost()

    # --- life

    async def _adopt(self) -> None:
        """Take up a BIRD that runs."""
        if self.process.socket.exists():
            try:
                await self._greet(await Control.connect(self.process.socket))
            except BirdError:
                self.close()  # Nobody is there; whoever wants one starts it.

    async def _greet(self, control: Control) -> None:
        self._control = control
        reply = await control.ask("show status")
        for line in reply.lines:
            if line.code == 1000:
                self.version = line.text.removeprefix("BIRD").strip()
            elif "Last reboot on" in line.text:
                told = line.text.partition("Last reboot on ")[2]
                self.since, _ = moment(told, datetime.now().astimezone())

    async def _start(self, text: str) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            return
        if self._started and loop.time() - self._started > STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        self._not_before = loop.time() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        if text not in (self._applied, self._refused):
            self.process.propose(text)
            try:
                await self.process.check()
            except Refused as refused:
                self._refuse(text, str(refused))
            else:
                self._accept(text)
        if self._applied is None:
            return
        control = await self.process.start(recover=self._has_routes())
        self._started = loop.time()
        await self._greet(control)

    async def _configure(self, control: Control, text: str) -> None:
        if text == self._refused:
            return
        self.process.propose(text)
        try:
            refusal = (await control.ask(f'configure check "{self.process.candidate}"')).refusal
            if not refusal:
                reply = await control.ask(f'configure "{self.process.candidate}"')
                refusal = "" if reply.codes & RECONFIGURED else reply.refusal or "it did not take it"
        except BirdError:
            self._lost()
            raise
        if refusal:
            self._refuse(text, refusal)
        else:
            self._accept(text)

    async def _leave(self) -> None:
        """Also for a BIRD that crashed: only another one can take its routes away."""
        if self._control is None and self._applied is not None:
            self.process.kill()
            await self._greet(await self.process.start(recover=False))
        if self._control is not None:
            control, self._control = self._control, None
            try:
                await self.process.leave(control)
            finally:
                control.close()
        self._applied = None
        self._accepted()
        self.version, self.since = "", 0.0

    def _lost(self) -> None:
        self.deaths += 1
        self.close()

    def _accept(self, text: str) -> None:
        """BIRD has taken the candidate."""
        self.process.accept()
        self._applied = text
        self._accepted()

    def _accepted(self) -> None:
        self._refused, self.refusal = None, ""

    def _refuse(self, text: str, said: str) -> None:
        """Remember what was refused, and say which of its lines."""
        self._refused = text
        found = _PLACE.search(said)
        if found is None:
            self.refusal = said
            return
        number, complaint = int(found[1]), found[2]
        lines = text.splitlines()
        line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
        self.refusal = f"line {number}, {_without_password(line)!r}: {complaint}"


def _without_password(line: str) -> str:
    return re.sub(r'(password\s+)"[^"]*"', r'\1"..."', line)
