"""All of the agents of an address storm in one process: each node asks for its addresses at the same moment.

    connections --+-- node-0: five requests, each until it is answered
                  +-- node-1 ...

A request is repeated as an agent does it (`services.node_dataplane.patience`), but that every wait is at least
`patience_s` long. All of the agents share one process here, and what they give up because that process did not come to
read its answers says nothing about ipam: with real agents' patience (0) it measures how starved the machine is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Busy
from bus_schemas.subjects import ASSIGN
from chassis.bus import Bus
from chassis.errors import Unavailable
from chassis.health import Health
from chassis.settings import ServiceSettings
from services.node_dataplane.patience import turns

PATIENCE_S = 60.0


@dataclass
class Storm:
    """What happened, in seconds."""

    took_s: float = 0.0
    cpu_s: float = 0.0
    """Of the load itself."""
    latencies_s: list[float] = field(default_factory=list)
    """From the first request to the answer, repeats and pauses included."""
    addresses: set[str] = field(default_factory=set)
    busy: int = 0
    """Answers that say that one must ask again."""
    failed: int = 0
    """Requests that were turned away or not answered in time."""


@asynccontextmanager
async def connections(url: str, number: int) -> AsyncIterator[list[Bus]]:
    async with AsyncExitStack() as stack:
        buses = []
        for i in range(number):
            settings = ServiceSettings(nats_url=url, instance=f"load-{i}", health_listen="")
            buses.append(await stack.enter_async_context(Bus.connect(settings, name="load", health=Health())))
        for bus in buses:
            await bus.connected()
        yield buses


async def storm(buses: list[Bus], nodes: int, each: int, *, name: str, patience_s: float = PATIENCE_S) -> Storm:
    """`name` makes the handles those of this storm."""
    result = Storm()

    async def ask(node: int, number: int) -> None:
        message = AssignRequest(
            node=NodeName(f"node-{node}"),
            handle=HandleId(f"{name}.{node}.{number}"),
            families=(4,),
            namespace="storm",
            pod=f"pod-{node}-{number}",
        )
        started = time.perf_counter()
        reply = await _until_answered(buses[node % len(buses)], message, result, patience_s)
        result.latencies_s.append(time.perf_counter() - started)
        result.addresses.update(reply.addresses)

    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for node in range(nodes):
            for number in range(each):
                tasks.create_task(ask(node, number))
    result.took_s, result.cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return result


async def _until_answered(bus: Bus, message: AssignRequest, result: Storm, patience_s: float) -> Assigned:
    for turn in turns():
        try:
            reply = await bus.request(ASSIGN, message, timeout_s=max(patience_s, turn.request_s))
        except Unavailable:
            result.failed += 1
        else:
            if isinstance(reply, Assigned):
                return reply
            assert isinstance(reply, Busy), reply
            result.busy += 1
        await asyncio.sleep(turn.pause_s)
    raise AssertionError("the turns have no end")
