"""The processes of an address storm: nats-server, replicas of ipam, and what each of them cost and counted."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

from bus_schemas.ipam import Assigned, AssignRequest
from bus_schemas.subjects import ASSIGN
from chassis.embedded import EmbeddedNats, die_with_parent
from chassis.runner import Context
from chassis.settings import ServiceSettings
from services.ipam.service import MAX_OPEN

READY_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)

RUN_IPAM = """
from chassis.runner import run
from services.ipam.service import serve
from services.ipam.settings import Settings
raise SystemExit(run("ipam", Settings, serve))
"""

RUN_ECHO = """
from benchmarks.storm_processes import serve_echo
from chassis.runner import run
from chassis.settings import ServiceSettings
raise SystemExit(run("ipam", ServiceSettings, serve_echo))
"""


class Syncing(EmbeddedNats):
    """A nats-server that has every write on the disk before it answers."""

    def _configuration(self) -> str:
        return super()._configuration().replace("store_dir:", "sync_interval: always, store_dir:")


def cpu_s(pid: int) -> float:
    """Processor time of a process until now (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Counted(NamedTuple):
    """What processes of a kind say of themselves, summed up."""

    cpu_s: float
    samples: Counter[str]

    def __sub__(self, other: Counted) -> Counted:
        names = self.samples.keys() | other.samples.keys()
        difference = Counter({name: self.samples[name] - other.samples[name] for name in names})
        return Counted(self.cpu_s - other.cpu_s, difference)


class Replicas:
    """ipam processes with their /metrics on unix sockets."""

    def __init__(self, sockets: list[Path], processes: list[asyncio.subprocess.Process]) -> None:
        self._sockets = sockets
        self.pids = [process.pid for process in processes]

    async def ready(self) -> None:
        async with asyncio.timeout(READY_S):
            for socket in self._sockets:
                while not await self._is_ready(socket):  # noqa: ASYNC110 - another process is asked
                    await asyncio.sleep(0.05)

    async def counted(self) -> Counted:
        samples = Counter[str]()
        for socket in self._sockets:
            _, text = await _get(socket, "/metrics")
            for name, value in SAMPLE.findall(text):
                samples[name] += float(value)
        return Counted(sum(map(cpu_s, self.pids)), samples)

    async def _is_ready(self, socket: Path) -> bool:
        try:
            status, _ = await _get(socket, "/readyz")
        except aiohttp.ClientConnectionError:
            return False
        return status == 200


async def _get(socket: Path, path: str) -> tuple[int, str]:
    connector = aiohttp.UnixConnector(path=str(socket))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://ipam{path}") as response:
        return response.status, await response.text()


async def serve_echo(context: Context[ServiceSettings]) -> None:
    """Answers every request at once, with an address that nobody asked for."""

    async def answer(request: AssignRequest) -> Assigned:
        return Assigned(addresses=(request.handle,))

    async with context.bus.serve({ASSIGN: answer}, concurrent=MAX_OPEN, waiting=0):
        await context.stopping.wait()


@asynccontextmanager
async def echo(url: str, directory: Path) -> AsyncIterator[Replicas]:
    """A service that knows nothing: what is left is the price of asking."""
    async with _running(RUN_ECHO, url, 1, directory) as running:
        yield running


@asynccontextmanager
async def replicas(url: str, number: int, directory: Path, **settings: str) -> AsyncIterator[Replicas]:
    """`settings`: TORTIE_<NAME> by name. Ready when the body begins."""
    async with _running(RUN_IPAM, url, number, directory, **settings) as running:
        yield running


@asynccontextmanager
async def _running(code: str, url: str, number: int, directory: Path, **settings: str) -> AsyncIterator[Replicas]:
    sockets = [directory / f"ipam-{i}.sock" for i in range(number)]
    processes: list[asyncio.subprocess.Process] = []
    try:
        for i, socket in enumerate(sockets):
            told = {"NATS_URL": url, "INSTANCE": f"ipam-{i}", "HEALTH_LISTEN": f"unix:{socket}", "LOG_LEVEL": "error"}
            processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", code),
                    env=os.environ | {f"TORTIE_{name}": value for name, value in (told | settings).items()},
                    cwd=Path(__file__).parent.parent,
                    preexec_fn=die_with_parent,
                )
            )
        running = Replicas(sockets, processes)
        await running.ready()
        yield running
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
        for process in processes:
            await process.wait()
