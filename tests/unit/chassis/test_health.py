"""Causes, notes, and the three pages."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from chassis.health import Health


def test_causes_make_unready_and_notes_do_not() -> None:
    health = Health()
    assert health.ready
    health.fail("bus", "away")
    health.note("malformed", "1 message")
    assert not health.ready
    assert health.sentences() == ("bus: away", "malformed: 1 message")
    health.ok("bus")
    health.ok("never failed")
    assert health.ready
    health.note("malformed", None)
    assert health.sentences() == ()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "unix"])
async def test_pages(tmp_path: Path, listen: str) -> None:
    health = Health()
    listen = f"unix:{tmp_path}/health.sock" if listen == "unix" else listen
    async with health.serve(listen):
        connector = aiohttp.UnixConnector(f"{tmp_path}/health.sock") if "unix" in listen else None
        base = "http://health" if "unix" in listen else f"http://{health.address}"
        async with aiohttp.ClientSession(connector=connector) as client:
            async with client.get(f"{base}/readyz") as answer:
                assert answer.status == 200
            health.fail("bus", "no connection to 127.0.0.1:4222")
            health.note("malformed", "1 message")
            async with client.get(f"{base}/readyz") as answer:
                assert answer.status == 503
                assert await answer.json() == {
                    "ready": False,
                    "causes": {"bus": "no connection to 127.0.0.1:4222"},
                    "notes": {"malformed": "1 message"},
                }
            async with client.get(f"{base}/livez") as answer:
                assert answer.status == 200
            async with client.get(f"{base}/metrics") as answer:
                assert "python_info" in await answer.text()
    assert health.address == ""


async def test_no_server_when_there_is_no_address() -> None:
    health = Health()
    async with health.serve(""):
        assert health.address == ""
