"""Requests and answers: a queue group, concurrent handlers, and an answer in every case."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Refused
from bus_schemas.status import Status
from bus_schemas.subjects import ASSIGN, PREFIX, STATUS
from chassis import micro
from chassis.bus import Bus
from chassis.errors import RequestFailed, Unavailable
from chassis.metrics import RPC_ERRORS
from tests.support.nats import Nats
from tests.support.waiting import until, within

ASK = AssignRequest(node="n1", handle="h")  # type: ignore[arg-type]


async def answering(bus: Bus) -> None:
    """Waits until somebody answers."""

    async def answered() -> bool:
        try:
            await bus.request(ASSIGN, ASK, timeout_s=5)
        except RequestFailed:
            return True
        except Unavailable:
            return False
        return True

    await until(answered, "somebody answers")


async def test_request_and_reply(nats: Nats) -> None:
    async def assign(request: AssignRequest) -> Assigned | Refused:
        return Assigned(addresses=(request.handle,)) if request.node == "n1" else Refused(reason="unknown node")

    async with nats.bus("ipam") as server, nats.bus("agent") as agent, server.serve({ASSIGN: assign}):
        await answering(agent)
        assert await agent.request(ASSIGN, ASK, timeout_s=5) == Assigned(addresses=("h",))
        other = AssignRequest(node="n2", handle="h")  # type: ignore[arg-type]
        assert await agent.request(ASSIGN, other, timeout_s=5) == Refused(reason="unknown node")


async def test_without_a_responder_it_is_unavailable_at_once(nats: Nats) -> None:
    async with nats.bus() as bus:
        await bus.connected()
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable, match="nobody answers"):
                await bus.request(ASSIGN, ASK, timeout_s=60)


async def test_without_a_bus_it_is_unavailable_after_the_time_given(nats: Nats) -> None:
    await nats.stop()
    async with nats.bus() as bus:
        with pytest.raises(Unavailable):
            await bus.request(ASSIGN, ASK, timeout_s=0.05)


async def test_a_silent_responder_is_unavailable_after_the_time_given(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro, "DRAIN_S", 0.05)

    async def never(_: AssignRequest) -> Assigned:
        await asyncio.Event().wait()
        raise AssertionError

    async with nats.bus("ipam") as server, nats.bus("agent") as agent, server.serve({ASSIGN: never}):
        await until(lambda: listening(agent), "it listens")
        with pytest.raises(Unavailable, match="not answered within"):
            await agent.request(ASSIGN, ASK, timeout_s=0.05)


async def listening(bus: Bus) -> bool:
    session = await bus.session()
    try:
        await session.request("$SRV.PING.ipam", b"", timeout_s=5)
    except Unavailable:
        return False
    await session.echo(5)
    return True


async def test_a_handler_that_fails_is_answered_and_counted(nats: Nats) -> None:
    async def broken(_: AssignRequest) -> Assigned:
        raise ZeroDivisionError("a bug\nin two lines")

    before = RPC_ERRORS.labels("assign", "500")._value.get()
    async with nats.bus("ipam") as server, nats.bus("agent") as agent, server.serve({ASSIGN: broken}):
        await answering(agent)
        with pytest.raises(RequestFailed, match="ZeroDivisionError: a bug in two lines"):
            await agent.request(ASSIGN, ASK, timeout_s=5)
        assert RPC_ERRORS.labels("assign", "500")._value.get() == before + 2


async def test_what_is_no_request_is_answered_too(nats: Nats) -> None:
    async def assign(_: AssignRequest) -> Assigned:
        return Assigned(addresses=())

    async with nats.bus("ipam") as server, nats.bus("agent") as agent, server.serve({ASSIGN: assign}):
        await answering(agent)
        session = await agent.session()
        answer = await session.request(ASSIGN.subject, b"\xc1", timeout_s=5)
        assert answer.headers["Nats-Service-Error-Code"] == "400"


async def test_handlers_run_concurrently_and_bounded(nats: Nats) -> None:
    gate = asyncio.Event()
    running = 0
    most = 0

    async def slow(_: AssignRequest) -> Assigned:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return Assigned(addresses=())

    async with (
        nats.bus("ipam") as server,
        nats.bus("agent") as agent,
        server.serve({ASSIGN: slow}, concurrent=4, waiting=2),
    ):
        await until(lambda: listening(agent), "it listens")
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(outcome(agent)) for _ in range(10)]

            async def refused() -> bool:
                return sum(task.done() for task in asked) == 4

            await until(refused, "what is too much is refused")
            assert most == 4
            gate.set()
        assert (
            sorted(task.result() for task in asked)
            == ["answered"] * 6 + ["assign: busy: too many requests are waiting"] * 4
        )


async def outcome(bus: Bus) -> str:
    try:
        await bus.request(ASSIGN, ASK, timeout_s=20)
    except RequestFailed as error:
        return str(error)
    return "answered"


async def test_replicas_share_and_take_over(nats: Nats) -> None:
    answered: list[str] = []

    def replica(name: str) -> dict[object, object]:
        async def assign(_: AssignRequest) -> Assigned:
            answered.append(name)
            return Assigned(addresses=())

        return {ASSIGN: assign}

    async with nats.bus("ipam") as one, nats.bus("agent") as agent, one.serve(replica("one")):  # type: ignore[arg-type]
        await answering(agent)
        async with nats.bus("ipam") as two, two.serve(replica("two")):  # type: ignore[arg-type]

            async def both() -> bool:
                await outcome(agent)
                return set(answered) == {"one", "two"}

            await until(both, "both answer")
        answered.clear()
        for _ in range(10):
            assert await outcome(agent) == "answered"
        assert set(answered) == {"one"}


async def test_serving_goes_on_after_the_server_was_killed(nats: Nats) -> None:
    async def assign(_: AssignRequest) -> Assigned:
        return Assigned(addresses=())

    async with nats.bus("ipam") as server, nats.bus("agent") as agent, server.serve({ASSIGN: assign}):
        await answering(agent)
        await nats.restart()
        await answering(agent)


async def test_it_speaks_the_services_protocol(nats: Nats) -> None:
    async def assign(_: AssignRequest) -> Assigned:
        return Assigned(addresses=())

    async with nats.bus("ipam") as server, nats.bus("agent") as agent, server.serve({ASSIGN: assign}):
        await answering(agent)
        session = await agent.session()
        info = json.loads((await session.request("$SRV.INFO.ipam", b"", timeout_s=5)).payload)
        assert info["type"] == "io.nats.micro.v1.info_response"
        assert info["endpoints"] == [
            {"name": "assign", "subject": f"{PREFIX}rpc.ipam.assign", "queue_group": "ipam", "metadata": {}}
        ]
        stats = json.loads((await session.request(f"$SRV.STATS.ipam.{info['id']}", b"", timeout_s=5)).payload)
        assert stats["endpoints"][0]["num_requests"] >= 1
        assert stats["endpoints"][0]["num_errors"] == 0


async def test_a_replica_that_leaves_drops_no_request(nats: Nats) -> None:
    took: list[AssignRequest] = []

    async def assign(request: AssignRequest) -> Assigned:
        return Assigned(addresses=())

    async def note(request: AssignRequest) -> Assigned:
        took.append(request)
        return Assigned(addresses=())

    async with nats.bus("ipam") as stays, nats.bus("agent") as agent, stays.serve({ASSIGN: assign}):
        await answering(agent)
        for _ in range(10):
            took.clear()
            async with nats.bus("ipam") as leaves, asyncio.TaskGroup() as tasks:
                asked: list[asyncio.Task[str]] = []
                async with leaves.serve({ASSIGN: note}):
                    while not took:
                        asked += [tasks.create_task(outcome(agent)) for _ in range(20)]
                        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                    asked += [tasks.create_task(outcome(agent)) for _ in range(50)]
                    await asyncio.sleep(0)  # they are on their way when the replica takes its leave
            assert {task.result() for task in asked} == {"answered"}


async def test_requests_about_one_node_go_to_one_replica_until_it_is_away(nats: Nats) -> None:
    """Each answer names who gave it."""

    def answering_as(name: str) -> Callable[[AssignRequest], Awaitable[Assigned]]:
        async def assign(_: AssignRequest) -> Assigned:
            return Assigned(addresses=(name,))

        return assign

    async def who(agent: Bus, node: str) -> str:
        request = AssignRequest(node=NodeName(node), handle=HandleId("h"))
        reply: Assigned = await agent.request(ASSIGN, request, timeout_s=5)
        return reply.addresses[0]

    nodes = [f"node-{number}" for number in range(16)]
    async with nats.bus("agent") as agent, AsyncExitStack() as replicas:
        lives = []
        for name in ("one", "two"):
            life = await replicas.enter_async_context(AsyncExitStack())
            bus = await life.enter_async_context(nats.bus("ipam", instance=name))
            await life.enter_async_context(bus.serve({ASSIGN: answering_as(name)}))
            await bus.connected()
            status = Status(component="ipam", instance=name, started=0.0, ready=True)
            await bus.put(STATUS, ("ipam", name), status)
            lives.append(life)

        async def settled() -> bool:
            rounds = [[await who(agent, node) for node in nodes] for _ in range(4)]
            return rounds[0] == rounds[1] == rounds[2] == rounds[3] and {*rounds[0]} == {"one", "two"}

        await within(settled, "every node has its replica")
        await lives[0].aclose()
        assert {await who(agent, node) for node in nodes} == {"two"}, "nobody waits for one that is away"
