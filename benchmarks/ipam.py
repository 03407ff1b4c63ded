"""Assignments a second through the bus: one ipam, requests in flight from 1, from 16 and from 2,000 new nodes.

    python benchmarks/ipam.py [requests] [in flight]

Everything is as it is in a cluster, but on one machine: an embedded nats-server, an ipam process, and this process as
all of the agents. Each node keeps as many requests in flight as its share; latencies are from request to reply.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, ReleaseRequest
from bus_schemas.resources import IPPool, Metadata, Node
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.subjects import ASSIGN, DESIRED, RELEASE
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.errors import Unavailable
from chassis.health import Health
from services.ipam.settings import Settings

STORM = 2000
"""Nodes that start at once, each for its first address: a block claimed, then one address given."""

RUN_IPAM = """
from chassis.runner import run
from services.ipam.service import serve
from services.ipam.settings import Settings
raise SystemExit(run("ipam", Settings, serve))
"""


@asynccontextmanager
async def ipam_process(url: str) -> AsyncIterator[None]:
    environ = os.environ | {"TORTIE_NATS_URL": url, "TORTIE_LOG_LEVEL": "warning", "TORTIE_MAX_BLOCKS_PER_NODE": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN_IPAM, env=environ, cwd=Path(__file__).parent.parent
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def prepare(bus: Bus, nodes: int) -> None:
    await bus.connected()
    pool = IPPool(metadata=Metadata(name="bench"), spec=IPPoolSpec(cidr="10.0.0.0/12"))
    await bus.put(DESIRED[IPPool], pool.key, pool)
    for i in range(nodes):
        node = Node(metadata=Metadata(name=f"node-{i}"))
        await bus.put(DESIRED[Node], node.key, node)


async def assign(bus: Bus, node: int, handle: str) -> None:
    message = AssignRequest(node=NodeName(f"node-{node}"), handle=HandleId(handle), families=(4,))
    reply = await bus.request(ASSIGN, message, timeout_s=10)
    assert isinstance(reply, Assigned), reply


async def ready(bus: Bus) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await assign(bus, 0, "warm-up")
            except (Unavailable, AssertionError):
                await asyncio.sleep(0.05)
            else:
                return


async def measure(bus: Bus, nodes: int, requests: int, in_flight: int) -> None:
    todo = iter(range(requests))
    latencies: list[float] = []

    async def agent(worker: int) -> None:
        for i in todo:
            began = time.perf_counter()
            await assign(bus, (worker if nodes < STORM else i) % nodes, f"{nodes}-{i}")
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(agent, range(in_flight)))
    took = time.perf_counter() - began
    latencies.sort()
    print(
        f"{nodes:4} nodes, {in_flight:3} in flight: {requests / took:7.0f} assignments/s, "
        f"p50 {statistics.median(latencies) * 1e3:6.2f} ms, p99 {latencies[int(len(latencies) * 0.99)] * 1e3:6.2f} ms"
    )
    for i in range(0, requests, 256):
        names = [f"{nodes}-{j}" for j in range(i, min(i + 256, requests))]
        await asyncio.gather(
            *(bus.request(RELEASE, ReleaseRequest(handle=HandleId(name)), timeout_s=10) for name in names)
        )


async def main(requests: int = 4000, in_flight: int = 64) -> None:
    with tempfile.TemporaryDirectory() as store:
        async with (
            EmbeddedNats(Path(store)) as server,
            Bus.connect(Settings(nats_url=server.url), name="bench", health=Health()) as bus,
        ):
            await prepare(bus, STORM)
            async with ipam_process(server.url):
                await ready(bus)
                await measure(bus, 1, max(100, requests // 8), 1)
                await measure(bus, 1, requests, in_flight)
                await measure(bus, 16, requests, 16)
                await measure(bus, 16, requests, in_flight)
                await measure(bus, STORM, STORM, in_flight)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
