"""A running api on a real bus, and a client that a test can read."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from chassis.bus import Bus
from chassis.health import Health
from chassis.heartbeat import Heartbeat
from chassis.runner import Context
from services.api.service import serve
from services.api.settings import Settings
from tests.support.waiting import DEADLINE_S, until

Answer = tuple[int, Any]


@dataclass
class Api:
    address: str
    """`unix:/path`, for the command line."""
    tcp: str
    """`http://host:port`."""
    bus: Bus
    health: Health
    session: aiohttp.ClientSession

    async def call(
        self, method: str, path: str, body: str | bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        async with self.session.request(method, f"http://localhost{path}", data=body, headers=headers) as response:
            return response.status, json.loads(await response.read())

    async def get(self, path: str) -> Answer:
        return await self.call("GET", path)

    async def post(self, path: str, body: str | bytes) -> Answer:
        return await self.call("POST", path, body)

    async def stale(self, path: str) -> bool:
        """Whether the answer says of itself that it may be out of date."""
        async with self.session.get(f"http://localhost{path}") as response:
            return bool(response.headers.get("Tortie-Stale"))

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """Server-sent events as (event, data), each awaited with a deadline."""
        async with self.session.get(f"http://localhost{path}") as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            yield _events(response)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    event = ""
    while True:
        async with asyncio.timeout(DEADLINE_S):
            line = (await response.content.readline()).decode().rstrip("\n")
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def running(url: str, directory: Path, *, wait: bool = True) -> AsyncIterator[Api]:
    """The service on the bus at `url`, listening on a socket in `directory` and on a free port; `wait` for its first
    snapshot."""
    address, port = f"unix:{directory}/api.sock", free_port()
    settings = Settings(
        nats_url=url,
        instance="test",
        api_listen=f"127.0.0.1:{port}, {address}",
        api_max_body_bytes=512 * 1024,
    )
    health = Health()
    stopping = asyncio.Event()
    async with (
        Bus.connect(settings, name="api", health=health) as bus,
        asyncio.TaskGroup() as tasks,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(address.removeprefix("unix:"))) as session,
    ):
        context = Context(
            name="api",
            settings=settings,
            bus=bus,
            health=health,
            log=structlog.get_logger(),
            stopping=stopping,
            heartbeat=Heartbeat(bus, "api", "test", health, started=0.0),
        )
        tasks.create_task(serve(context))

        async def started() -> bool:
            return Path(address.removeprefix("unix:")).exists() and not (wait and "mirror" in health.causes)

        await until(started, "the api listens and has read its state")
        try:
            yield Api(address, f"http://127.0.0.1:{port}", bus, health, session)
        finally:
            stopping.set()
