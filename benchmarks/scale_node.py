"""Nodes without a kernel: each a connection of its own that asks the bus exactly what an agent's feed asks, and counts.

    python -m benchmarks.scale_node URL FIRST COUNT plain|packed      (started by benchmarks.route_distribution_scale)

What a node asks and subscribes is that of `chassis.bus` and `chassis.feed` for the agent's routes, pools, nodes and
configuration. What it is told is counted and thrown away: five thousand nodes that each kept twenty thousand routes
would need a hundred gigabytes. So bytes, messages and the server's work are real, and the nodes' own work is not; that
of one real reader is measured beside them.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import uvloop

from bus_schemas.bgp import MeshMember
from bus_schemas.resources import FelixConfiguration, IPPool, Node
from bus_schemas.subjects import BGP, BGP_MESH, DESIRED, NODE_ADDRESSES, PACK, ROUTE, STREAMS, Family, Stream, live
from chassis.feed import SETTLE_S

PULL = 8192
PATIENCE_S = 1800.0
OPENING = 200
"""Connections of a process that are being opened at once: the listen queue of a server is finite."""

BROAD: dict[Stream, tuple[Family[Any], ...]] = {
    Stream.ROUTES: (ROUTE, BGP_MESH),
    Stream.DESIRED: (DESIRED[IPPool], DESIRED[FelixConfiguration], DESIRED[Node]),
    Stream.ENDPOINTS: (NODE_ADDRESSES,),
}
PACKED = (ROUTE, BGP_MESH, DESIRED[Node], NODE_ADDRESSES)
assert MeshMember  # the mesh is followed as the agent follows it, though BGP is off here
LIVE_ROUTE = live(ROUTE.filter()).removesuffix("*").encode()


class SimulatedNode(asyncio.Protocol):
    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes = self.messages = self.live = self.refused = 0
        self.refusal = ""
        self.live_at = 0.0
        """When the last change of a route was heard."""
        self._buffer = bytearray()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers: dict[bytes, Callable[[bytes, bytes], bool]] = {}
        self._delivered: Callable[[bytes], None] = lambda _: None
        self._token = 0
        self.transport: asyncio.Transport | None = None

    # --- the protocol of NATS, as far as it is needed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        buffer = self._buffer
        buffer += data
        at = 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            line = bytes(buffer[at:end])
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split(b" ")
                size = int(words[-1])
                start = end + 2
                if len(buffer) < start + size + 2:
                    break
                self._message(words, buffer, start, size)
                at = start + size + 2
                continue
            at = end + 2
            if line == b"PING":
                self.write(b"PONG\r\n")
            elif line == b"PONG" and not self._opened.done():
                self._opened.set_result(None)
            elif line.startswith(b"-ERR"):
                raise RuntimeError(line.decode())
        del buffer[:at]

    def _message(self, words: list[bytes], buffer: bytearray, start: int, size: int) -> None:
        self.messages += 1
        subject = words[1]
        if subject.startswith(LIVE_ROUTE):
            self.live += 1
            self.live_at = time.monotonic()
        elif subject.startswith(b"_I."):
            header = b""
            if words[0] == b"HMSG":
                length = int(words[-2])
                header = bytes(buffer[start : start + length])
            body = bytes(buffer[start + len(header) : start + size]) if size < 65536 else b""
            handler = self._answers.get(subject)
            if handler is not None and handler(header, body):
                del self._answers[subject]
        elif len(words) == (5 if words[0] == b"MSG" else 6):
            self._delivered(words[3])  # handed over by a consumer: the reply tells how many are left

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def _publish(self, subject: str, payload: bytes, reply: bytes = b"") -> None:
        self.write(b"PUB %s %s%d\r\n%s\r\n" % (subject.encode(), reply + b" " if reply else b"", len(payload), payload))

    def _inbox(self) -> bytes:
        self._token += 1
        return b"_I.%s.%d" % (self.name.encode(), self._token)

    async def ask(self, subject: str, body: object = None, *, many: bool = False) -> list[tuple[bytes, bytes]]:
        """The answer; `many`: all of them until the server says that there is no more."""
        inbox, found = self._inbox(), []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_answer(header: bytes, payload: bytes) -> bool:
            status = header[9:12] if header[8:9] == b" " else b""
            if many and not status:
                found.append((header, payload))
                return False
            if not many:
                found.append((header, payload))
            if not done.done():
                done.set_result(None)
            return True

        self._answers[inbox] = on_answer
        self._publish(subject, json.dumps(body).encode() if body is not None else b"", inbox)
        async with asyncio.timeout(PATIENCE_S):
            await done
        return found

    # --- what an agent does

    async def open(self, host: str, port: int) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, host, port)
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "python"}
        self.write(b"CONNECT %s\r\nSUB _I.%s.* 1\r\nPING\r\n" % (json.dumps(options).encode(), self.name.encode()))
        await self._opened
        for stream in STREAMS:
            await self._api(f"STREAM.INFO.{stream}")

    async def follow(self, *, packed: bool) -> None:
        """Returns when everything is read."""
        filters = [family.filter() for families in BROAD.values() for family in families]
        for sid, filter_ in enumerate([*filters, BGP.filter(self.name)], 2):
            self.write(b"SUB %s %d\r\n" % (live(filter_).encode(), sid))
        for stream, families in BROAD.items():
            last = (await self._api(f"STREAM.INFO.{stream}"))["state"]["last_seq"]
            if stream is Stream.ROUTES:
                await self._direct({"multi_last": [BGP.filter(self.name)], "batch": 1024}, stream)
            left = list(families)
            if packed:
                parts = await self._direct(
                    {"multi_last": [PACK.filter(f.name) for f in left], "batch": 1024}, PACK.stream
                )
                there = {
                    name for header, _ in parts for name in PACKED if PACK.filter(name.name)[:-1].encode() in header
                }
                for family in there:
                    # what was written after the pack; how far that reaches back is the pack's affair, not looked into
                    await self._direct({"seq": last + 1, "next_by_subj": family.filter(), "batch": 1000}, stream)
                left = [family for family in left if family not in there]
                if left:  # small ones: by direct get
                    await self._direct({"multi_last": [f.filter() for f in left], "batch": 1024}, stream)
                continue
            if left:
                await self._consume(stream, [family.filter() for family in left])

    async def _api(self, subject: str, body: object = None) -> dict[str, Any]:
        """What a server that is too busy refuses is asked again, as a feed does."""
        while True:
            answer: dict[str, Any] = json.loads((await self.ask(f"$JS.API.{subject}", body))[0][1])
            if "error" not in answer:
                return answer
            self.refused += 1
            self.refusal = str(answer["error"])
            await asyncio.sleep(SETTLE_S)

    async def _direct(self, query: object, stream: Stream) -> list[tuple[bytes, bytes]]:
        return await self.ask(f"$JS.API.DIRECT.GET.{stream}", query, many=True)

    async def _consume(self, stream: Stream, filters: list[str]) -> None:
        name = f"sim-{self.name}"
        config = {
            "name": name,
            "ack_policy": "none",
            "deliver_policy": "last_per_subject",
            "filter_subjects": filters,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 600_000_000_000,
        }
        body = {"stream_name": str(stream), "config": config}
        left = (await self._api(f"CONSUMER.CREATE.{stream}.{name}", body))["num_pending"]
        while left > 0:
            left = await self._pull(f"{stream}.{name}", left)
        self._publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"")

    async def _pull(self, consumer: str, left: int) -> int:
        """How many messages are left then."""
        taken = 0
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_delivered(reply: bytes) -> None:
            nonlocal taken, left
            taken += 1
            left = int(reply.rpartition(b".")[2])
            if (taken == PULL or left == 0) and not done.done():
                done.set_result(None)

        def on_refused(header: bytes, _: bytes) -> bool:
            if not done.done():
                done.set_result(None)  # it is busy: asked again
            return True

        self._delivered = on_delivered
        inbox = self._inbox()
        self._answers[inbox] = on_refused
        self._publish(f"$JS.API.CONSUMER.MSG.NEXT.{consumer}", b'{"batch":%d,"no_wait":true}' % PULL, inbox)
        async with asyncio.timeout(PATIENCE_S):
            await done
        self._answers.pop(inbox, None)
        return left


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def work(host: str, port: int, first: int, count: int, *, packed: bool) -> None:
    """Commands come by standard input, one a line; every answer is a line of JSON."""
    nodes = [SimulatedNode(f"sim-{number}") for number in range(first, first + count)]
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(OPENING)

    async def start(node: SimulatedNode) -> float:
        async with gate:
            await node.open(host, port)
        await node.follow(packed=packed)
        return time.monotonic()

    async for line in _lines(loop):
        command, *words = line.split()
        if command == "start":
            times = await asyncio.gather(*(start(node) for node in nodes))
            say(times=times, bytes=[n.bytes for n in nodes], messages=[n.messages for n in nodes])
            refused = sum(node.refused for node in nodes)
            if refused:
                words = next(node.refusal for node in nodes if node.refused)
                print(f"  {refused} requests were refused and made again: {words}", file=sys.stderr, flush=True)
        elif command == "mark":
            for node in nodes:
                node.live = node.bytes = node.messages = 0
            say(marked=len(nodes))
        elif command == "heard":
            async with asyncio.timeout(PATIENCE_S):
                while any(node.live < int(words[0]) for node in nodes):  # noqa: ASYNC110 - the nodes have the clock
                    await asyncio.sleep(0.002)
            say(times=[n.live_at for n in nodes], bytes=[n.bytes for n in nodes], messages=[n.messages for n in nodes])
        elif command == "end":
            return


async def _lines(loop: asyncio.AbstractEventLoop) -> AsyncIterator[str]:
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode()


def raise_limits() -> int:
    """As many open files as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main() -> None:
    raise_limits()
    host, _, port = sys.argv[1].removeprefix("nats://").rpartition(":")
    uvloop.run(work(host, int(port), int(sys.argv[2]), int(sys.argv[3]), packed=sys.argv[4] == "packed"))


if __name__ == "__main__":
    main()
