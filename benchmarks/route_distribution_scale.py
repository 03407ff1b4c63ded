"""Routes for thousands of nodes on a real bus: cold start, one block, one dead node, one that returns.

    python -m benchmarks.route_distribution_scale [--nodes 5000] [--blocks 20000] [--mode packed plain] [--neighbours]

One nats-server, one route_distribution (a process, as users run it), and the nodes: each a connection of its own that
asks what an agent asks and counts what it is told (`scale_node`), many in a process. All share this machine, so the
times are those of two processors doing the work of all; CPU seconds and bytes are what carries over. `plain`: the nodes
read key by key, as before there were packs. `--neighbours`: a node's blocks lie side by side, and are summarised;
without it no two do, which is the worst case. BGP is off. Bytes are those that arrive at a node, protocol included; the
agents' other subjects (policy), their echoes and their checks are not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import IPPROTO_TCP, TCP_INFO
from typing import Any

import uvloop

from benchmarks.figures import Row, machine, p50, show
from benchmarks.scale_node import PATIENCE_S, raise_limits
from benchmarks.storm_processes import cpu_s
from bus_schemas.resources import FelixConfiguration, IPPool, Node
from bus_schemas.subjects import BGP_MESH, DESIRED, PACK, ROUTE, Fact
from chassis import jetstream, logs
from chassis.bus import Bus, Write
from chassis.embedded import EmbeddedNats, die_with_parent
from chassis.feed import Interest
from chassis.health import Health
from chassis.packer import LEAST
from chassis.settings import ServiceSettings
from tests.support.expanders import gone
from tests.support.routes import block, node, pool

ROOT = Path(__file__).resolve().parent.parent
PREFIX = 26
FIRST = 0x0A000000
"""10.0.0.0: 20,000 blocks of 64 addresses."""
CHUNK = 1000
TCPI_BYTES_RECEIVED = 128
"""Offset in struct tcp_info (linux/tcp.h)."""

RUN = """
from chassis.runner import run
from services.route_distribution.service import serve
from services.route_distribution.settings import Settings
raise SystemExit(run("route_distribution", Settings, serve))
"""


def name_of(number: int) -> str:
    return f"node-{number:05d}"


def node_fact(number: int) -> Fact:
    return node(name_of(number), f"{ip_address(0xAC100000 + number + 10)}/16")


class World:
    def __init__(self, nodes: int, blocks: int, *, neighbours: bool) -> None:
        self.nodes, self.blocks, self.neighbours = nodes, blocks, neighbours
        self.each = blocks // nodes

    def owner(self, number: int) -> int:
        return number // self.each % self.nodes if self.neighbours else number % self.nodes

    def block(self, number: int) -> Fact:
        return block(str(ip_network((FIRST + number * 64, PREFIX))), name_of(self.owner(number)), pool="big")

    def facts(self) -> list[Fact]:
        return [
            pool("big", "10.0.0.0/8"),
            *(node_fact(n) for n in range(self.nodes)),
            *(self.block(n) for n in range(self.blocks)),
        ]


async def write(bus: Bus, facts: Sequence[Fact]) -> None:
    by_stream: dict[str, list[Fact]] = {}
    for fact in facts:
        by_stream.setdefault(fact.family.stream, []).append(fact)
    for some in by_stream.values():
        for at in range(0, len(some), CHUNK):
            await bus.batch([Write(f.family, f.key, f.value) for f in some[at : at + CHUNK]])


class Worker:
    """A process of simulated nodes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise SystemExit("a process of simulated nodes ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def child(*argv: str, environment: dict[str, str] | None = None, pipes: bool = False) -> AsyncIterator[Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *argv),
        env=os.environ | (environment or {}),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE if pipes else None,
        stdout=asyncio.subprocess.PIPE if pipes else None,
        limit=1 << 26,
        preexec_fn=die_with_parent,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class Run:
    def __init__(self, server: EmbeddedNats, service: int, bus: Bus, workers: list[Worker], nodes: int) -> None:
        self.server, self.service, self.bus, self.workers, self.nodes = server, service, bus, workers, nodes
        self.rows: list[Row] = []
        self._cpu = (0.0, 0.0)
        self._began = 0.0

    async def ask(self, line: str) -> dict[str, list[float]]:
        for worker in self.workers:
            worker.send(line)
        told: dict[str, list[float]] = {}
        for answer in await asyncio.gather(*(worker.answer() for worker in self.workers)):
            for key, values in answer.items():
                told.setdefault(key, []).extend(values if isinstance(values, list) else [values])
        return told

    def begin(self) -> None:
        self._cpu = cpu_s(self.server.pid), cpu_s(self.service)
        self._began = time.monotonic()

    def row(self, what: str, told: dict[str, list[float]]) -> None:
        times = [at - self._began for at in told["times"]]
        self.rows.append(
            {
                "what": what,
                "last node s": round(max(times), 3),
                "median node s": round(p50(times), 3),
                "bytes/node": round(sum(told["bytes"]) / len(told["bytes"])),
                "messages/node": round(sum(told["messages"]) / len(told["messages"]), 1),
                "nats-server CPU s": round(cpu_s(self.server.pid) - self._cpu[0], 2),
                "service CPU s": round(cpu_s(self.service) - self._cpu[1], 2),
            }
        )
        print(f"  {self.rows[-1]}", file=sys.stderr, flush=True)

    async def change(self, what: str, facts: Sequence[Fact], routes: int) -> None:
        """`routes`: how many routes change for it."""
        await self.ask("mark")
        self.begin()
        await write(self.bus, facts)
        self.row(what, await self.ask(f"heard {routes}"))


async def until_derived(bus: Bus, routes: int) -> None:
    """All routes are on the bus."""
    async with asyncio.timeout(PATIENCE_S), bus.follow(Interest(ROUTE)) as feed:
        there: set[str] = set()
        while len(there) < routes:
            for fact in (await feed.next()).facts:
                (there.discard if fact.value is None else there.add)(fact.key[0])


async def until_packed(bus: Bus, families: set[str]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await jetstream.last_of_each(await bus.session(), PACK.stream, [PACK.filter()])
            names = {(PACK.parse(message.subject) or ("",))[0] for message in found}
            if families <= names:
                return
            await asyncio.sleep(0.1)


async def real_reader(url: str, *, packed: bool) -> Row:
    """One real feed of an agent, alone."""
    settings = ServiceSettings(nats_url=url, health_listen="")
    interests = (ROUTE, DESIRED[IPPool], DESIRED[FelixConfiguration], DESIRED[Node], BGP_MESH)
    began, cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    async with Bus.connect(settings, name="real", health=Health()) as bus:
        session = await bus.session()
        facts = 0
        async with bus.follow(*map(Interest, interests), packed=packed) as feed:
            while not feed.in_sync:
                facts += len((await feed.next()).facts)
        after = resource.getrusage(resource.RUSAGE_SELF)
        socket = session.client._transport._io_writer.get_extra_info("socket")  # type: ignore[attr-defined]
        received = struct.unpack_from("=Q", socket.getsockopt(IPPROTO_TCP, TCP_INFO, 192), TCPI_BYTES_RECEIVED)[0]
        return {
            "what": "one real reader, alone",
            "last node s": round(time.monotonic() - began, 3),
            "bytes/node": received,
            "its CPU s": round(after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime, 2),
            "facts": facts,
        }


async def run(arguments: argparse.Namespace, mode: str, directory: Path) -> None:
    world = World(arguments.nodes, arguments.blocks, neighbours=arguments.neighbours)
    each = 1 if arguments.neighbours else world.each
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedNats(directory / "store"))
        settings = ServiceSettings(nats_url=server.url, health_listen="")
        bus = await stack.enter_async_context(Bus.connect(settings, name="bench", health=Health()))
        await bus.connected()
        await write(bus, world.facts())
        before, began = cpu_s(server.pid), time.monotonic()
        told = {"TORTIE_NATS_URL": server.url, "TORTIE_HEALTH_LISTEN": "", "TORTIE_LOG_LEVEL": "error"}
        service = await stack.enter_async_context(child("-c", RUN, environment=told))
        await until_derived(bus, world.nodes * each)
        derived = time.monotonic() - began
        cold: Row = {
            "what": f"the service from cold: {world.blocks} blocks to {world.nodes * each} routes on the bus",
            "last node s": round(derived, 3),
            "nats-server CPU s": round(cpu_s(server.pid) - before, 2),
            "service CPU s": round(cpu_s(service.pid), 2),
        }
        if mode == "packed":
            sizes = {ROUTE.name: world.nodes * each, DESIRED[Node].name: world.nodes}
            await until_packed(bus, {name for name, size in sizes.items() if size >= LEAST})
        size = -(-arguments.nodes // arguments.processes)
        workers = []
        for first in range(0, arguments.nodes, size):
            argv = (
                "-m",
                "benchmarks.scale_node",
                server.url,
                str(first),
                str(min(size, arguments.nodes - first)),
                mode,
            )
            workers.append(Worker(await stack.enter_async_context(child(*argv, pipes=True))))
        ran = Run(server, service.pid, bus, workers, arguments.nodes)
        ran.rows.append(cold)
        ran.begin()
        ran.row("cold start: all nodes read everything", await ran.ask("start"))
        await ran.change("one block appears", [world.block(world.blocks)], 1)
        dead = node_fact(1)
        await ran.change(f"one node is gone: {each} routes withdrawn", [gone(dead)], each)
        await ran.change(f"it returns: {each} routes", [dead], each)
        argv = ("-m", "benchmarks.scale_node", server.url, str(arguments.nodes), "1", mode)
        returned = Worker(await stack.enter_async_context(child(*argv, pipes=True)))
        alone = Run(server, service.pid, bus, [returned], 1)
        await alone.ask("mark")
        alone.begin()
        alone.row("and reads everything", await alone.ask("start"))
        memory = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
        rows = [*ran.rows, *alone.rows, await real_reader(server.url, packed=mode == "packed")]
        names = dict.fromkeys(name for row in rows for name in row)
        show(
            f"{arguments.nodes} nodes, {arguments.blocks} blocks, {mode}; nats-server {memory:.0f} MB",
            [{name: row.get(name, "") for name in names} for row in rows],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--blocks", type=int, default=20000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--mode", nargs="+", choices=("packed", "plain"), default=["packed"])
    parser.add_argument("--neighbours", action="store_true", help="a node's blocks lie side by side")
    arguments = parser.parse_args()
    if arguments.blocks % arguments.nodes:
        parser.error("every node has the same number of blocks: --blocks must be a multiple of --nodes")
    limit = raise_limits()
    if limit < arguments.nodes + 200:
        parser.error(f"this process may open {limit} files, which is too few for {arguments.nodes} connections")
    logs.configure("auto", "error")
    print(f"machine: {machine()}")
    for mode in arguments.mode:
        with tempfile.TemporaryDirectory() as directory:
            uvloop.run(run(arguments, mode, Path(directory)))


if __name__ == "__main__":
    main()
