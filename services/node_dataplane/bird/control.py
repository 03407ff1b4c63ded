"""Speaks with a running BIRD by its control socket, as `birdc` does.

A command is a line; the reply is lines that begin with a four-digit code, a blank after the code of the last one:

    1002-Mesh_10_0_0_16 BGP        ---        up     12:06:02.542  Established      code 1002, more follows
    1006-  BGP state:          Established                                         code 1006
         Neighbor address: 10.0.0.16                                               a blank: the code of the line before
    0000                                                                           done

Codes from 8000 on are refusals: 8xxx by what was asked for, 9xxx by how it was asked.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from services.node_dataplane.errors import BirdError

DEADLINE_S = 5.0
LIMIT = 1 << 20
"""Bytes of one line."""

RECONFIGURED = frozenset({3, 4, 5})
"""Done, under way, or waiting for one that is under way."""
BAD_CONFIGURATION = 8002


class Line(NamedTuple):
    code: int
    text: str


class Reply(NamedTuple):
    lines: tuple[Line, ...]

    @property
    def codes(self) -> frozenset[int]:
        return frozenset(line.code for line in self.lines)

    @property
    def refusal(self) -> str:
        """What BIRD complains of; empty: nothing."""
        return "; ".join(line.text for line in self.lines if line.code >= 8000)


def parse(raw: str, code: int) -> tuple[Line, bool]:
    """One line after one of `code`; whether it is the reply's last. Raises BirdError."""
    if raw[:1] in (" ", "+"):  # "+": a word of BIRD's log, which nobody asked for
        return Line(code, raw[1:]), False
    head, mark = raw[:4], raw[4:5]
    if not (head.isascii() and head.isdecimal()) or mark not in ("", " ", "-"):
        raise BirdError(f"BIRD's control socket says {raw!r}, which is no reply")
    return Line(int(head), raw[5:]), mark != "-"


class Control:
    """One connection; one question at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, socket: Path) -> Control:
        """Raises BirdError when nobody, or nobody who is BIRD, listens."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                reader, writer = await asyncio.open_unix_connection(socket, limit=LIMIT)
                made = cls(reader, writer)
                await made._reply()
        except TimeoutError as error:
            raise BirdError("BIRD takes a connection and says nothing") from error
        except OSError as error:
            raise BirdError(f"{socket}: {error.strerror or error}") from error
        return made

    def close(self) -> None:
        self._writer.close()

    async def ask(self, command: str) -> Reply:
        """Raises BirdError when BIRD is gone or silent; a refusal is a reply."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                self._writer.write(f"{command}\n".encode())
                await self._writer.drain()
                return await self._reply()
        except TimeoutError as error:
            raise BirdError(f"BIRD does not answer {command!r}") from error
        except (OSError, ValueError) as error:
            raise BirdError(f"BIRD's control socket broke off: {error}") from error

    async def ended(self) -> None:
        """Returns when BIRD closes the connection: it has ended. Nothing must be asked meanwhile."""
        with suppress(ConnectionError):  # a way to end, too
            while await self._reader.read(1024):
                pass

    async def _reply(self) -> Reply:
        lines: list[Line] = []
        code = 0
        while True:
            raw = await self._reader.readline()
            if not raw.endswith(b"\n"):
                raise BirdError("BIRD closed its control socket")
            line, last = parse(raw.decode(errors="replace").rstrip("\r\n"), code)
            code = line.code
            lines.append(line)
            if last:
                return Reply(tuple(lines))
