"""The same blocks and handles on etcd, one compare-and-swap for each address, as an address manager without batches.

    node: lock -> affinities of the node, its block -> [affinity pending -> block -> affinity confirmed]
               -> handle (must not exist) -> block (if it is as it was read) -> unlock

That is the order of writes of Calico's allocator: a node's CNI calls take turns at a lock of the node; a block is
claimed in two phases; every address is two writes, of its handle and of its block, each compare-and-swap. The records
are msgpack of our own structs, the arithmetic is our own: what differs is that every address is a change of its own.

etcd is spoken to through its gRPC gateway (JSON over HTTP/1.1, kept open; the `/v3/kv` paths of etcd's documentation),
for there is no Python client to trust. The gateway and this client cost processor time that a Go client would not need,
so the processor time of both is told beside the figures; etcd syncs its log before it answers, as `synced` ipam does.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from bus_schemas.codec import Message, decode, encode
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Affinity, AffinityState, Block, Handle
from bus_schemas.reserved import Reserved
from chassis.embedded import die_with_parent
from services.ipam.block import OpenBlock, fresh
from services.ipam.cidr import Cidr, parse
from services.ipam.pools import Pool, candidates

ETCD = "/usr/bin/etcd"
CONNECTIONS = 64
START_S = 30.0


class Server(NamedTuple):
    url: str
    pid: int


class Found(NamedTuple):
    """A value, and the revision that the next write must name; 0: there is none."""

    value: Any = None
    revision: int = 0


class Ran:
    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.addresses: set[str] = set()
        self.took_s = 0.0
        self.cpu_s = 0.0
        self.writes = 0
        self.conflicts = 0


@asynccontextmanager
async def server(directory: Path) -> AsyncIterator[Server]:
    from benchmarks.atomic_batch import free_ports

    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    process = await asyncio.create_subprocess_exec(
        *(ETCD, "--data-dir", str(directory), "--logger", "zap", "--log-level", "error"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
        preexec_fn=die_with_parent,
    )
    try:
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{client}/health") as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)
        yield Server(client, process.pid)
    finally:
        process.terminate()
        await process.wait()


class Etcd:
    """The few calls that are needed."""

    def __init__(self, session: aiohttp.ClientSession, url: str, result: Ran) -> None:
        self._session = session
        self._url = url
        self._result = result

    async def get(self, key: str, kind: type[Message]) -> Found:
        found = (await self._call("range", {"key": _text(key)})).get("kvs", ())
        return _found(found[0], kind) if found else Found()

    async def under(self, prefix: str, kind: type[Message]) -> list[Found]:
        last = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        answer = await self._call("range", {"key": _text(prefix), "range_end": _text(last)})
        return [_found(each, kind) for each in answer.get("kvs", ())]

    async def swap(self, key: str, value: Message, revision: int) -> bool:
        compare = {"key": _text(key), "target": "MOD", "mod_revision": str(revision), "result": "EQUAL"}
        put = {"request_put": {"key": _text(key), "value": base64.b64encode(encode(value)).decode()}}
        answer = await self._call("txn", {"compare": [compare], "success": [put]})
        done = bool(answer.get("succeeded"))
        self._result.writes += done
        self._result.conflicts += not done
        return done

    async def _call(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post(f"{self._url}/v3/kv/{verb}", data=json.dumps(body)) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = json.loads(await response.read())
            return answer


def _text(key: str) -> str:
    return base64.b64encode(key.encode()).decode()


def _found(stored: dict[str, Any], kind: type[Message]) -> Found:
    return Found(decode(base64.b64decode(stored["value"]), kind), int(stored["mod_revision"]))


class Agent:
    """One node's allocator."""

    def __init__(self, etcd: Etcd, pool: Pool, node: str) -> None:
        self._etcd = etcd
        self._pool = pool
        self._node = NodeName(node)
        self._turn = asyncio.Lock()

    async def assign(self, handle: HandleId) -> str:
        async with self._turn:
            while True:
                if (address := await self._try(handle)) is not None:
                    return address

    async def _try(self, handle: HandleId) -> str | None:
        for affinity in await self._etcd.under(f"/affinity/{self._node}/", Affinity):
            cidr = parse(affinity.value.cidr)
            block = await self._etcd.get(f"/block/{cidr.text}", Block)
            if block.value is not None and block.value.free:
                break
        else:
            cidr = await self._claim()
            block = await self._etcd.get(f"/block/{cidr.text}", Block)
        opened = OpenBlock(block.value)
        allocation = opened.take(handle)
        address = str(cidr.address(allocation.ordinal))
        held = Handle(handle=handle, node=self._node, addresses=(address,), sequences=(allocation.sequence,))
        known = await self._etcd.get(f"/handle/{handle}", Handle)
        if not await self._etcd.swap(f"/handle/{handle}", held, known.revision):
            return None
        if not await self._etcd.swap(f"/block/{cidr.text}", opened.close(), block.revision):
            return None
        return address

    async def _claim(self) -> Cidr:
        for cidr in candidates(self._pool, self._node, Reserved()):
            if (await self._etcd.get(f"/block/{cidr.text}", Block)).value is not None:
                continue
            key = f"/affinity/{self._node}/{cidr.text}"
            pending = Affinity(node=self._node, cidr=cidr.text, state=AffinityState.PENDING)
            assert await self._etcd.swap(key, pending, 0)
            block = fresh(cidr, self._pool.name, self._node, time.time())
            revision = (await self._etcd.get(key, Affinity)).revision
            if not await self._etcd.swap(f"/block/{cidr.text}", block, 0):
                continue  # another node was first; its affinity stays behind here
            confirmed = Affinity(node=self._node, cidr=cidr.text, state=AffinityState.CONFIRMED)
            assert await self._etcd.swap(key, confirmed, revision)
            return cidr
        raise AssertionError("the pool is full")


async def run(url: str, name: str, nodes: int, each: int) -> Ran:
    """`each` addresses for every node at the same moment."""
    result = Ran()
    pool = Pool(name="storm", cidr=parse("10.0.0.0/12"), block_prefix=26)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        etcd = Etcd(session, url, result)
        agents = [Agent(etcd, pool, f"node-{i}") for i in range(nodes)]

        async def ask(node: int, number: int) -> None:
            began = time.perf_counter()
            result.addresses.add(await agents[node].assign(HandleId(f"{name}.{node}.{number}")))
            result.latencies_s.append(time.perf_counter() - began)

        cpu, began = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for node in range(nodes):
                for number in range(each):
                    tasks.create_task(ask(node, number))
        result.took_s, result.cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return result
