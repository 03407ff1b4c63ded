"""The agent's door for the CNI plugin: a unix socket that only root can open.

The plugin sends one JSON object, `{"env": {"CNI_COMMAND": ...}, "stdin": "..."}`, and closes its side; the answer is
`{"exit": 0, "stdout": "..."}`, and the connection ends. One connection is one call.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from chassis.listening import cannot_listen, claim

LONGEST = 4 << 20
"""Bytes of one request; a GC names every pod of the node."""

Handler = Callable[[Mapping[str, str], str], Awaitable[tuple[int, str]]]


class Request(msgspec.Struct, frozen=True):
    env: dict[str, str]
    stdin: str = ""


class Answer(msgspec.Struct, frozen=True):
    exit: int
    stdout: str


@asynccontextmanager
async def serve(path: str, handler: Handler) -> AsyncIterator[None]:
    """Calls are answered while the context is open. Raises CannotServe when the socket cannot be had."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await _answer(reader, handler)
            writer.write(msgspec.json.encode(answer))
            with suppress(ConnectionError):  # The runtime gave up and killed its plugin; it will say DEL.
                await writer.drain()
        finally:
            writer.close()

    directory = Path(path).parent
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        claim(Path(path))
        old = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(connected, path, limit=LONGEST, backlog=512)
        finally:
            os.umask(old)
    except OSError as error:
        raise cannot_listen(f"TORTIE_CNI_SOCKET: {path}", error) from error
    try:
        yield
    finally:
        server.close()
        with suppress(FileNotFoundError):
            os.unlink(path)


async def _answer(reader: asyncio.StreamReader, handler: Handler) -> Answer:
    data = await reader.read(LONGEST + 1)
    while not reader.at_eof() and len(data) <= LONGEST:
        data += await reader.read(LONGEST + 1)
    if len(data) > LONGEST:
        return _fault(f"the request is longer than {LONGEST} bytes")
    try:
        request = msgspec.json.decode(data, type=Request)
    except msgspec.DecodeError as error:
        return _fault(f"the plugin's request is not understood: {error}")
    code, text = await handler(request.env, request.stdin)
    return Answer(code, text)


def _fault(message: str) -> Answer:
    return Answer(1, msgspec.json.encode({"cniVersion": "1.1.0", "code": 6, "msg": message}).decode())
