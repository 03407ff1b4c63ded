"""Where a process listens, and what is said when it cannot."""

from __future__ import annotations

import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from chassis.errors import CannotServe
from chassis.listening import claim, listening


async def refusal(listen: str) -> str:
    with pytest.raises(CannotServe) as caught:
        async with listening(web.Application(), listen, setting="TORTIE_X"):
            raise AssertionError("it listens")
    return str(caught.value)


async def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        said = await refusal(where)
        assert said.startswith(f"cannot listen at TORTIE_X: {where}: another process listens there: stop that one")


@pytest.mark.parametrize("listen", ["nowhere", "host:port", ":80", "127.0.0.1:65536", "127.0.0.1:-1"])
async def test_no_address_at_all(listen: str) -> None:
    assert "neither host:port nor unix:/path" in await refusal(listen)


async def test_an_address_of_another_machine() -> None:
    assert "does not have the address" in await refusal("192.0.2.1:0")


async def test_a_socket_that_somebody_answers_at_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with listening(web.Application(), f"unix:{path}", setting="TORTIE_X"):
        assert "another process listens there" in await refusal(f"unix:{path}")
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
            client.get("http://localhost/") as answer,
        ):
            assert answer.status == 404
    assert not path.exists()


async def test_a_socket_that_was_left_behind_is(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with listening(web.Application(), f"unix:{path}", setting="TORTIE_X") as address:
        assert address == f"unix:{path}"


async def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("kept")
    assert "no socket" in await refusal(f"unix:{path}")
    assert path.read_text() == "kept"


async def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    assert "the directory does not exist" in await refusal(f"unix:{tmp_path}/none/a.sock")


def test_nothing_there_is_fine(tmp_path: Path) -> None:
    claim(tmp_path / "a.sock")
