"""What the chassis costs over the bare client: rates of both, interleaved in one run, and their ratio.

    python -m benchmarks.bus [--keys 20000] [--rounds 3]

The bare figures use nats-py directly, as its documentation shows; the chassis does more for its price (typed messages,
conflicts told apart from tombstones, a merged and checked feed). Trust the ratios, not the absolute rates.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import nats
import uvloop
from nats.js.api import ConsumerConfig, DeliverPolicy

from bus_schemas.codec import decode, encode
from bus_schemas.routes import Route
from bus_schemas.subjects import ROUTE, Stream
from chassis import logs
from chassis.bus import Bus, Write
from chassis.embedded import EmbeddedNats
from chassis.feed import Interest
from chassis.health import Health
from chassis.settings import ServiceSettings

IN_FLIGHT = 64

Work = Callable[[], Awaitable[float | None]]


def message(i: int) -> Route:
    return Route(cidr=f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}/32", node="node-17", pool="default")  # type: ignore[arg-type]


async def rate(count: int, work: Callable[[], Awaitable[float | None]]) -> float:
    """`work` may say itself how many seconds it took, without its preparation."""
    started = time.perf_counter()
    seconds = await work()
    return count / (seconds or time.perf_counter() - started)


async def in_flight(count: int, one: Callable[[int], Awaitable[object]]) -> None:
    """`count` calls, IN_FLIGHT at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for i in numbers:
            await one(i)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(worker())


class Bench:
    def __init__(self, bus: Bus, bare: nats.NATS, keys: int) -> None:
        self.bus = bus
        self.bare = bare
        self.js = bare.jetstream()
        self.keys = keys
        self.sequences: dict[int, int] = {}

    async def put(self) -> None:
        async def one(i: int) -> None:
            self.sequences[i] = await self.bus.put(ROUTE, (str(i),), message(i))

        await in_flight(self.keys, one)

    async def bare_put(self) -> None:
        async def one(i: int) -> None:
            self.sequences[i] = (await self.js.publish(ROUTE.subject(str(i)), encode(message(i)))).seq

        await in_flight(self.keys, one)

    async def swap(self) -> None:
        async def one(i: int) -> None:
            self.sequences[i] = await self.bus.swap(ROUTE, (str(i),), message(i), expected=self.sequences[i])

        await in_flight(self.keys, one)

    async def bare_swap(self) -> None:
        async def one(i: int) -> None:
            headers = {"Nats-Expected-Last-Subject-Sequence": str(self.sequences[i])}
            ack = await self.js.publish(ROUTE.subject(str(i)), encode(message(i)), headers=headers)
            self.sequences[i] = ack.seq

        await in_flight(self.keys, one)

    async def batch(self) -> None:
        for start in range(0, self.keys, 1000):
            numbers = range(start, min(start + 1000, self.keys))
            writes = [Write(ROUTE, (str(i),), message(i), self.sequences[i]) for i in numbers]
            for i, sequence in zip(numbers, await self.bus.batch(writes), strict=True):
                self.sequences[i] = sequence

    async def snapshot(self) -> None:
        known: dict[tuple[str, ...], Route] = {}
        async with self.bus.follow(Interest(ROUTE)) as feed:
            while not feed.in_sync:
                for fact in (await feed.next()).facts:
                    known[fact.key] = fact.value
        assert len(known) == self.keys

    async def bare_snapshot(self) -> None:
        known: dict[str, Route] = {}
        done = asyncio.Event()

        async def on_message(msg: nats.aio.msg.Msg) -> None:
            known[msg.subject] = decode(msg.data, Route)
            if msg.metadata.num_pending == 0:
                done.set()

        config = ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)
        subscription = await self.js.subscribe(
            ROUTE.filter(), stream=Stream.ROUTES, ordered_consumer=True, config=config, cb=on_message
        )
        await done.wait()
        await subscription.unsubscribe()
        assert len(known) == self.keys

    async def live(self) -> float:
        async with self.bus.follow(Interest(ROUTE)) as feed:
            while not feed.in_sync:
                await feed.next()
            last = self.keys - 1
            started = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.bare_put())
                seen: set[tuple[str, ...]] = set()
                while len(seen) <= last:
                    seen.update(fact.key for fact in (await feed.next()).facts)
            return time.perf_counter() - started

    async def bare_live(self) -> None:
        seen: set[str] = set()
        done = asyncio.Event()

        async def on_message(msg: nats.aio.msg.Msg) -> None:
            seen.add(msg.subject)
            decode(msg.data, Route)
            if len(seen) == self.keys:
                done.set()

        subscription = await self.bare.subscribe(ROUTE.filter(), cb=on_message)
        await self.bare_put()
        await done.wait()
        await subscription.unsubscribe()


async def main(keys: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedNats(Path(directory)) as server:
            settings = ServiceSettings(nats_url=server.url, instance="bench")
            async with Bus.connect(settings, name="bench", health=Health()) as bus:
                await bus.connected()
                bare = await nats.connect(server.url)
                bench = Bench(bus, bare, keys)
                pairs: dict[str, tuple[Work, Work]] = {
                    f"put, {IN_FLIGHT} in flight": (bench.put, bench.bare_put),
                    f"swap, {IN_FLIGHT} in flight": (bench.swap, bench.bare_swap),
                    "atomic batches of 1000 (bare: swap)": (bench.batch, bench.bare_swap),
                    "snapshot": (bench.snapshot, bench.bare_snapshot),
                    "live, writer in the same process": (bench.live, bench.bare_live),
                }
                print(f"{keys} keys, median of {rounds} rounds{'':15} chassis/s     bare/s   ratio")
                for name, (ours, theirs) in pairs.items():
                    results = [(await rate(keys, ours), await rate(keys, theirs)) for _ in range(rounds)]
                    mine, other = median(r[0] for r in results), median(r[1] for r in results)
                    print(f"{name:<45} {mine:>10,.0f} {other:>10,.0f} {mine / other:>7.2f}")
                await bare.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logs.configure("console", "error")
    uvloop.run(main(arguments.keys, arguments.rounds))
