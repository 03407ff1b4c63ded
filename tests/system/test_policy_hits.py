"""`tortie policy hits` against a running api on a real bus."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bus_schemas.ids import NodeName
from bus_schemas.policy import Hit, Hits
from bus_schemas.subjects import HITS
from tests.support.api_server import running
from tests.support.nats import Nats
from tests.support.waiting import within
from tortie.cli.main import main


async def test_hits_of_all_nodes(
    nats: Nats, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tortie(line: str) -> str:
        capsys.readouterr()
        assert await asyncio.to_thread(main, line.split()) == 0
        return capsys.readouterr().out

    async with running(nats.url, tmp_path) as api, nats.bus() as bus:
        monkeypatch.setenv("TORTIE_API", api.address)
        await bus.connected()
        assert await tortie("policy hits") == ""
        for number in (1, 2):
            hit = Hit(rules="networkpolicy/default/web", way="ingress", allowed=number, denied=10)
            message = Hits(node=NodeName(f"node{number}"), since=1e9, time=2e9, hits=(hit,))
            await bus.put(HITS, (f"node{number}",), message, ttl_s=60)

        async def both() -> bool:
            return len(json.loads(await tortie("policy hits -o json"))["items"][0]["nodes"]) == 2

        await within(both, "both nodes are heard")
        heading, row = (await tortie("policy hits web -n default")).splitlines()
        assert heading.split()[:4] == ["POLICY", "DIRECTION", "ALLOWED", "DENIED"]
        assert row.split()[:8] == ["NetworkPolicy/default/web", "ingress", "3", "20", "0", "0", "0", "2"]
        assert "allowed: 1" in await tortie("policy hits networkpolicy/web --node node1 -o yaml")
        assert await asyncio.to_thread(main, ["policy", "hits", "other"]) == 1
        assert capsys.readouterr().err == "tortie: there is no policy 'other'\n"
