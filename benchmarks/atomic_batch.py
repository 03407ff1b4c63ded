"""What atomicity costs: one key alone against a batch of two and of twenty, by where the server keeps its streams.

    python -m benchmarks.atomic_batch [--rounds 150]

A server without replicas stages every batch in a file store of its own, which is made, synced and removed again, before
it takes it; servers with replicas stage it in memory, for the others are the safety. So the same write is taken on one
server with a disk, on one with a file system in memory, and on three servers with three replicas (all on this disk).
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.figures import show, spread
from bus_schemas.resources import Metadata, Node
from bus_schemas.subjects import DESIRED
from chassis.bus import Bus, Write
from chassis.embedded import MAX_PAYLOAD, EmbeddedNats, binary, die_with_parent
from chassis.errors import BusError
from chassis.health import Health
from chassis.settings import ServiceSettings

SIZES = (1, 2, 20)
IN_MEMORY = Path("/dev/shm")
REPLICAS = 3
START_S = 40.0


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@asynccontextmanager
async def three_servers(directory: Path) -> AsyncIterator[str]:
    """The URLs of a cluster of three."""
    clients, routes = free_ports(REPLICAS), free_ports(REPLICAS)
    names = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    servers = []
    try:
        for number, (client, route) in enumerate(zip(clients, routes, strict=True)):
            configuration = directory / f"{number}.conf"
            configuration.write_text(
                f"server_name: s{number}\nhost: 127.0.0.1\nport: {client}\nmax_payload: {MAX_PAYLOAD}\n"
                f"max_pending: {16 * MAX_PAYLOAD}\njetstream {{ store_dir: {directory}/s{number} }}\n"
                f"cluster {{ name: bench, host: 127.0.0.1, port: {route}, routes: [{names}] }}\n"
            )
            servers.append(
                await asyncio.create_subprocess_exec(
                    *(str(binary()), "--config", str(configuration)),
                    stderr=asyncio.subprocess.DEVNULL,
                    preexec_fn=die_with_parent,
                )
            )
        yield ",".join(f"nats://127.0.0.1:{port}" for port in clients)
    finally:
        for server in servers:
            server.terminate()
            await server.wait()


async def ready(bus: Bus) -> None:
    """A new cluster takes some seconds to find its leaders."""
    async with asyncio.timeout(START_S):
        await bus.connected()
        while True:
            try:
                await write(bus, "first", 1)
            except BusError:
                await asyncio.sleep(0.2)
            else:
                return


async def write(bus: Bus, name: str, size: int) -> None:
    family = DESIRED[Node]
    names = [f"{name}-{number}" for number in range(size)]
    await bus.batch([Write(family, ("", name), Node(metadata=Metadata(name=name)), 0) for name in names])


async def run(rounds: int) -> None:
    async with AsyncExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = {"one server, disk": ((await stack.enter_async_context(EmbeddedNats(disk / "one"))).url, 1)}
        if IN_MEMORY.is_dir():
            memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=IN_MEMORY)))
            places["one server, files in memory"] = (
                (await stack.enter_async_context(EmbeddedNats(memory / "one"))).url,
                1,
            )
        places["three servers, three replicas, disk"] = (
            await stack.enter_async_context(three_servers(disk)),
            REPLICAS,
        )
        buses: dict[str, Bus] = {}
        for place, (url, replicas) in places.items():
            settings = ServiceSettings(nats_url=url, nats_replicas=replicas, health_listen="")
            buses[place] = await stack.enter_async_context(Bus.connect(settings, name="bench", health=Health()))
            await ready(buses[place])
        times: dict[tuple[str, int], list[float]] = {}
        for number in range(rounds):
            for place, bus in buses.items():
                for size in SIZES:
                    began = time.perf_counter()
                    await write(bus, f"n{number}-{size}", size)
                    times.setdefault((place, size), []).append((time.perf_counter() - began) * 1e3)
    show(
        "Keys written at once, one such write at a time",
        [{"where": place, "keys": size, **spread(values)} for (place, size), values in times.items()],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=150)
    asyncio.run(run(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
