"""A program that listens, run as a user runs it: what it prints, line by line, as it comes."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bus_schemas.events import Event, Severity
from bus_schemas.ids import NodeName
from bus_schemas.subjects import EVENT
from chassis.bus import Bus
from tests.support.waiting import DEADLINE_S
from tortie.lab.processes import clean_environment, tortie_command

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Listener:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """The next line of its standard output."""
        return await self._line(self.process.stdout)

    async def rest(self) -> list[str]:
        """The whole lines that it printed and nobody has read, once it has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            return (await self.process.stdout.read()).decode().split("\n")[:-1]

    async def complaint(self) -> str:
        """The next line of its standard error."""
        return await self._line(self.process.stderr)

    async def complaint_with(self, text: str) -> str:
        while text not in (line := await self.complaint()):
            pass
        return line

    @staticmethod
    async def _line(stream: asyncio.StreamReader | None) -> str:
        assert stream is not None
        async with asyncio.timeout(DEADLINE_S * 2):
            line = await stream.readline()
        assert line, "the program ended"
        return line.decode().rstrip("\n")

    async def end(self, number: int = signal.SIGINT) -> int:
        """Ends it as Ctrl-C does; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


@asynccontextmanager
async def listening(
    command: Sequence[str], environment: Mapping[str, str] | None = None, directory: Path | None = None
) -> AsyncIterator[Listener]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**clean_environment(), "PYTHONUNBUFFERED": "1", **(environment or {})},
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Listener(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def tortie(*arguments: str) -> list[str]:
    return list(tortie_command(*arguments))


def example(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *arguments]


async def say(
    bus: Bus,
    domain: str,
    what: str,
    object_: str = "",
    *,
    node: str = "",
    severity: Severity = "info",
    advice: str = "",
    **detail: str,
) -> int:
    """An event on the bus; its sequence."""
    event = Event(
        time=time.time(),
        domain=domain,
        what=what,
        severity=severity,
        node=NodeName(node) if node else None,
        object=object_,
        advice=advice,
        message=f"{object_ or what} it is.",
        detail=detail,
    )
    return await bus.put(EVENT, (domain, what, node), event)
