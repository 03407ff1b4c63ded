"""The text protocol of BIRD's control socket, as birdc 2.0.12 sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.node_dataplane.bird.control import Control, Line, parse
from services.node_dataplane.errors import BirdError

GREETING = b"0001 BIRD 2.0.12 ready.\n"


@pytest.mark.parametrize(
    ("raw", "line", "last"),
    [
        ("0003 Reconfigured", Line(3, "Reconfigured"), True),
        ("1000-BIRD 2.0.12", Line(1000, "BIRD 2.0.12"), False),
        (" Hostname is node1", Line(7, "Hostname is node1"), False),
        ("0000 ", Line(0, ""), True),
        ("0000", Line(0, ""), True),
        ("+a word of the log", Line(7, "a word of the log"), False),
    ],
)
def test_lines(raw: str, line: Line, last: bool) -> None:
    assert parse(raw, 7) == (line, last)


@pytest.mark.parametrize("raw", ["HTTP/1.1 400 Bad Request", "12 too short", "", "00x3 no"])
def test_what_is_no_reply(raw: str) -> None:
    with pytest.raises(BirdError, match="no reply"):
        parse(raw, 0)


@asynccontextmanager
async def played(tmp_path: Path, *replies: bytes) -> AsyncIterator[Control]:
    """A BIRD that greets, gives these replies, and ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        for reply in replies:
            await reader.readline()
            writer.write(reply)
            await writer.drain()
        writer.close()

    path = tmp_path / "ctl"
    async with await asyncio.start_unix_server(serve, path):
        control = await Control.connect(path)
        try:
            yield control
        finally:
            control.close()


async def test_a_reply_is_all_of_its_lines(tmp_path: Path) -> None:
    async with played(tmp_path, b"1000-BIRD 2.0.12\n1011-Router ID is 1.1.1.1\n Hostname is x\n0013 Up\n") as control:
        reply = await control.ask("show status")
    assert [line.code for line in reply.lines] == [1000, 1011, 1011, 13]
    assert reply.refusal == ""


async def test_a_refusal_is_a_reply(tmp_path: Path) -> None:
    said = b"0002-Reading configuration from bird.new\n8002 bird.new:3:1 syntax error\n"
    async with played(tmp_path, said) as control:
        assert (await control.ask("configure check")).refusal == "bird.new:3:1 syntax error"


async def test_a_bird_that_ends_in_the_middle(tmp_path: Path) -> None:
    async with played(tmp_path, b"1002-Mesh_1 BGP\n") as control:
        with pytest.raises(BirdError, match="closed"):
            await control.ask("show protocols")
        await control.ended()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(BirdError, match="No such file"):
        await Control.connect(tmp_path / "nobody")
