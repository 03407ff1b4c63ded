"""healthCheckNodePort: what a load balancer hears of a node."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from chassis.health import Health
from services.node_dataplane.service_proxy.core import HealthPort
from services.node_dataplane.service_proxy.health_ports import CAUSE, HealthPorts
from tests.support.waiting import eventually


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def ports(health: Health) -> AsyncIterator[HealthPorts]:
    made = HealthPorts(health)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.run())
        yield made
        running.cancel()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def ask(port: int) -> tuple[int, object]:
    """(status, body); status 0: nobody listens."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as answer:
            return answer.status, await answer.json()
    except aiohttp.ClientConnectorError:
        return 0, None


async def test_it_says_whether_there_is_an_endpoint(ports: HealthPorts) -> None:
    port = free_port()
    ports.want({port: HealthPort("shop", "web", 2)})
    await eventually(lambda: port in ports.listening)
    service = {"namespace": "shop", "name": "web"}
    assert await ask(port) == (200, {"service": service, "localEndpoints": 2, "serviceProxyHealthy": True})
    ports.want({port: HealthPort("shop", "web", 0)})
    assert await ask(port) == (503, {"service": service, "localEndpoints": 0, "serviceProxyHealthy": True})
    ports.want({})
    await eventually(lambda: not ports.listening)
    assert await ask(port) == (0, None)


async def test_a_port_that_somebody_has_is_named_and_does_not_stop_the_others(
    ports: HealthPorts, health: Health
) -> None:
    port = free_port()
    with socket.create_server(("", 0)) as taken:
        theirs = int(taken.getsockname()[1])
        ports.want({theirs: HealthPort("shop", "a", 1), port: HealthPort("shop", "b", 1)})
        await eventually(lambda: CAUSE in health.notes)
    assert health.notes[CAUSE] == f"nobody answers on port {theirs} of shop/a: EADDRINUSE"
    assert (await ask(port))[0] == 200
