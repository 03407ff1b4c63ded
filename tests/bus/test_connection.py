"""A service may start before the bus, and lose it, and nobody has to do anything about it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from bus_schemas.subjects import ROUTE
from chassis import session as session_module
from chassis.bus import Bus
from chassis.errors import Unavailable
from chassis.feed import Interest
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support.mirror import mirror, route
from tests.support.nats import Nats
from tests.support.waiting import eventually


async def test_service_starts_before_the_bus(nats: Nats) -> None:
    await nats.stop()
    health = Health()
    async with nats.bus(health=health) as bus, mirror(bus, Interest(ROUTE)) as seen:
        await eventually(lambda: "no connection to" in health.causes["bus"])
        assert not health.ready
        await nats.start()
        await bus.connected()
        assert health.ready
        await bus.put(ROUTE, ("a",), route("n1"))
        await eventually(lambda: seen.nodes == {"a": "n1"} and seen.in_sync)


async def test_writes_without_a_bus_are_unavailable_and_say_why(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.bus.OPERATION_TIMEOUT_S", 0.1)
    await nats.stop()
    async with nats.bus() as bus:
        with pytest.raises(Unavailable, match="127"):
            await bus.put(ROUTE, ("a",), route("n1"))


async def test_server_gone_and_back(nats: Nats) -> None:
    health = Health()
    async with nats.bus(health=health) as bus, mirror(bus, Interest(ROUTE)) as seen:
        await bus.put(ROUTE, ("a",), route("n1"))
        await nats.kill()
        await eventually(lambda: "bus" in health.causes)
        await nats.start()
        await bus.put(ROUTE, ("b",), route("n2"))
        assert health.ready
        await eventually(lambda: seen.nodes == {"a": "n1", "b": "n2"})


async def test_batches_that_wait_for_the_socket_when_the_server_dies_fail_at_once(nats: Nats) -> None:
    """The library's writing task ends with the first of them, and tells nobody who stands behind it."""
    large = b"x" * 1_000_000
    async with nats.bus() as bus, asyncio.TaskGroup() as tasks:
        session = await bus.session()
        os.kill(nats.pid, signal.SIGSTOP)
        batches = [
            tasks.create_task(_unavailable(session.request_many([("somewhere", large, {})] * 10, timeout_s=60.0)))
            for _ in range(4)
        ]
        await eventually(lambda: session.client._pending_data_size > 0)  # the first fills the socket
        await nats.kill()
        async with asyncio.timeout(5.0):  # the library's own patience is longer
            assert all(await asyncio.gather(*batches))


async def _unavailable(request: Awaitable[object]) -> bool:
    try:
        await request
    except Unavailable:
        return True
    return False


async def test_a_request_under_way_when_the_server_dies_fails_at_once(nats: Nats) -> None:
    async with nats.bus() as bus, asyncio.TaskGroup() as tasks:
        session = await bus.session()
        await session.subscribe("silence", lambda _: None)
        waiting = tasks.create_task(_reason(session))
        await session.echo(5)
        await nats.kill()
        async with asyncio.timeout(5):
            assert "connection was lost" in await waiting


async def _reason(session: session_module.Session) -> str:
    with pytest.raises(Unavailable) as caught:
        await session.request("silence", b"", timeout_s=60)
    return str(caught.value)


async def test_dead_read_loop_is_noticed_by_the_echo(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library goes on reporting "connected" after its read loop has died."""
    monkeypatch.setattr(session_module, "ECHO_INTERVAL_S", 0.05)
    monkeypatch.setattr(session_module, "ECHO_TIMEOUT_S", 0.1)
    async with nats.bus() as bus, mirror(bus, Interest(ROUTE)) as seen:
        await eventually(lambda: seen.in_sync)
        first = await bus.session()
        first.client._reading_task.cancel()
        await eventually(lambda: first.ended.is_set())
        assert "echo" in first.reason
        await bus.put(ROUTE, ("a",), route("n1"))
        assert await bus.session() is not first
        await eventually(lambda: seen.nodes == {"a": "n1"})


async def test_bug_in_a_callback_ends_the_bus(nats: Nats) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("a bug")

    async def live() -> None:
        async with nats.bus() as bus:
            session = await bus.session()
            await session.subscribe("some.subject", broken)
            await session.publish("some.subject", b"")
            await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as caught:
        await live()
    assert caught.group_contains(ZeroDivisionError)


async def test_error_in_the_body_is_raised_as_it_is(nats: Nats) -> None:
    async def live() -> None:
        async with nats.bus() as bus:
            await bus.connected()
            raise KeyError

    with pytest.raises(KeyError):
        await live()


async def test_several_servers_any_of_which_may_be_away(nats: Nats) -> None:
    settings = ServiceSettings(nats_url=f"nats://127.0.0.1:1, {nats.url}", instance="test")
    async with Bus.connect(settings, name="test", health=Health()) as bus:
        await bus.put(ROUTE, ("a",), route("n1"))


@asynccontextmanager
async def pretended(version: str) -> AsyncIterator[str]:
    """A server that greets with a version and answers echoes, and nothing else."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id":"x","version":"%s","max_payload":1048576,"headers":true}\r\n' % version.encode()
        )
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_too_old_a_server_is_refused_with_one_sentence() -> None:
    health = Health()
    async with (
        pretended("2.9.10") as url,
        Bus.connect(ServiceSettings(nats_url=url, instance="test"), name="test", health=health),
    ):
        await eventually(lambda: "is too old: Tortie needs 2.12 or newer" in health.causes["bus"])
        assert "nats-server 2.9.10" in health.causes["bus"]


async def test_passwords_are_not_told() -> None:
    health = Health()
    settings = ServiceSettings(nats_url="nats://user:geheim@127.0.0.1:1", instance="test")
    async with Bus.connect(settings, name="test", health=health):
        await eventually(lambda: "no connection to 127.0.0.1:1" in health.causes["bus"])
        assert "geheim" not in str(health.causes)


async def test_a_server_that_hangs_is_noticed_and_left(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stays open, nothing is answered: writes fail in bounded time, and leaving does not wait for it."""
    monkeypatch.setattr(session_module, "ECHO_INTERVAL_S", 0.05)
    monkeypatch.setattr(session_module, "ECHO_TIMEOUT_S", 0.1)
    health = Health()
    async with asyncio.timeout(15), nats.bus(health=health) as bus, mirror(bus, Interest(ROUTE)) as seen:
        await bus.put(ROUTE, ("a",), route("n1"))
        os.kill(nats.pid, signal.SIGSTOP)
        try:
            await eventually(lambda: "bus" in health.causes)
        finally:
            os.kill(nats.pid, signal.SIGCONT)
        await bus.put(ROUTE, ("a",), route("n2"))
        await eventually(lambda: seen.nodes == {"a": "n2"})
        os.kill(nats.pid, signal.SIGSTOP)
    os.kill(nats.pid, signal.SIGCONT)


async def test_a_closed_connection_ends_the_session_for_whoever_subscribes(nats: Nats) -> None:
    """Before the client library says so: who asks for a session again must not be given this one for ever."""
    async with nats.bus() as bus:
        session = await bus.session()
        session.client._status = session.client.CLOSED
        with pytest.raises(Unavailable):
            await session.subscribe("x", lambda _: None)
        assert session.ended.is_set()
        assert await bus.session() is not session


async def test_what_is_buffered_is_dropped_with_a_session_that_is_over(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: object) -> None:
        raise RuntimeError("the handler is closed")  # as uvloop says it of a transport that was aborted

    session = await session_module.Session.open(nats.url, name="test", inbox="_INBOX.test", credentials="")
    session.end("the echo was not heard")
    session.client._pending.append(b"PING\r\n")
    session.client._pending_data_size = len(b"PING\r\n")
    monkeypatch.setattr(session.client._transport, "writelines", closed)
    await session.close()
