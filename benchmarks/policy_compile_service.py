"""The policy compiler as it runs: a process on a real nats-server with a whole cluster loaded.

    python -m benchmarks.policy_compile_service --namespaces 25000 --pods 100000 --policies 75000 [--shards 1 2 4]

The clock of one change runs from the moment at which its event is handed to the bus until the last message of the
published batch is heard by somebody else. Three kinds: a pod is plugged in, a pod changes its application (it leaves
some groups for others, and its policies with them), a policy changes its port. Then pods change at a rate for a while,
each its own: how late the last of them is, and the share of a core that the service takes.

`shards`: the whole once for each number, on the same loaded bus, one process for each shard. They share the machine's
cores with the server and this program, so the wall time of a cold start is told beside the CPU seconds. Beside the
figures of a change stands one bus hop (a message written, and heard by another), taken in the same rounds;
`calibration` is a fixed loop of plain Python, to tell a slow machine from a slow program.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import nats
import uvloop

from benchmarks.figures import Row, machine, p50, show, spread
from benchmarks.policy_compile import calibration, cluster, endpoint, pod, policy
from bus_schemas.codec import encode
from bus_schemas.policy import rules_id
from bus_schemas.resources import KubernetesNetworkPolicy, Metadata, Node
from bus_schemas.subjects import ATTACHMENT, DESIRED, LIVE_PREFIX, RULES, Fact, Stream, live
from chassis.bus import Bus, Write
from chassis.embedded import EmbeddedNats, die_with_parent
from chassis.health import Health
from chassis.settings import ServiceSettings

QUIET_S = 4.0
"""A cold start is over when nothing was published for so long; that time is not counted."""
COLD_LIMIT_S = 180.0
CHANGE_LIMIT_S = 30.0
PAUSE_S = 0.01
TICK_S = 0.01
"""The sustained rate is made in steps of this length."""
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """One replica, and what the kernel says that it costs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._proc = Path(f"/proc/{process.pid}")

    def cpu_s(self) -> float:
        fields = self._proc.joinpath("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def megabytes(self, what: str) -> float:
        """`VmRSS` or `VmHWM`, the highest it ever was."""
        for line in self._proc.joinpath("status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024 / 1e6
        raise AssertionError(f"the kernel tells no {what}")

    async def stop(self) -> None:
        self._process.terminate()
        await self._process.wait()


async def start(url: str, instance: str, settings: dict[str, str]) -> Process:
    environment = os.environ | {
        "TORTIE_NATS_URL": url,
        "TORTIE_INSTANCE": instance,
        "TORTIE_HEALTH_LISTEN": "",
        "TORTIE_LOG_LEVEL": "error",
        **settings,
    }
    return Process(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tortie", "serve", "policy-compiler"),
            env=environment,
            preexec_fn=die_with_parent,
        )
    )


class Ear:
    """Hears everything that the compiler publishes: when, and of what."""

    def __init__(self, connection: nats.NATS) -> None:
        self._connection = connection
        self.last = 0.0
        """When the last message came."""
        self.count = 0
        self._awaited: dict[str, asyncio.Future[float]] = {}

    async def listen(self) -> None:
        subscription = await self._connection.subscribe(f"{LIVE_PREFIX}>", cb=self._hear)
        subscription._pending_queue = asyncio.Queue()  # unbounded: a benchmark that drops would wait for ever
        await self._connection.flush()

    async def _hear(self, message: nats.aio.msg.Msg) -> None:
        now = time.perf_counter()
        if message.subject.startswith(f"{LIVE_PREFIX}policy."):
            self.last = now
            self.count += 1
        awaited = self._awaited.pop(message.subject, None)
        if awaited is not None and not awaited.done():
            awaited.set_result(now)

    def expect(self, subject: str) -> asyncio.Future[float]:
        """When the next message under the stored subject is heard."""
        future = asyncio.get_running_loop().create_future()
        self._awaited[live(subject)] = future
        return future


class Bench:
    def __init__(self, server: EmbeddedNats, connection: nats.NATS, arguments: argparse.Namespace) -> None:
        self.url = server.url
        self.spaces: int = arguments.namespaces
        self.pods: int = arguments.pods
        self.policies: int = arguments.policies
        self.changes: int = arguments.changes
        self.rate: int = arguments.rate
        self.seconds: float = arguments.seconds
        self._connection = connection
        self._fresh = self.pods
        """The first pod that does not exist yet."""
        self._turn = 0
        self._expected = 0
        """How many messages of policy there are when all of it is compiled."""
        self._moved: set[int] = set()
        """Pods that have another application than they began with."""

    async def load(self) -> float:
        """Everything that is desired and plugged in, onto the bus; how many seconds it took."""
        began = time.perf_counter()
        settings = ServiceSettings(nats_url=self.url, instance="bench", health_listen="")
        async with Bus.connect(settings, name="bench", health=Health()) as bus:
            await bus.connected()
            by_stream: dict[Stream, list[Fact]] = {}
            for fact in cluster(self.spaces, self.pods, self.policies):
                by_stream.setdefault(fact.family.stream, []).append(fact)
            for facts in by_stream.values():
                rest = iter(facts)
                while chunk := list(islice(rest, 1000)):
                    await bus.batch([Write(fact.family, fact.key, fact.value) for fact in chunk])
        return time.perf_counter() - began

    async def put(self, fact: Fact) -> None:
        await self._connection.publish(fact.family.subject(*fact.key), encode(fact.value))

    async def stored(self) -> int:
        return (await self._connection.jetstream().stream_info(Stream.POLICY)).state.messages or 0

    async def settled(self, began: float) -> tuple[float, int]:
        """(seconds from `began` until the last message of policy was stored, how many there are). The first time all is
        quiet says how many there have to be."""
        last, count = time.perf_counter(), -1
        while count < max(1, self._expected) or (time.perf_counter() - last < QUIET_S and not self._expected):
            now = await self.stored()
            if now != count:
                last, count = time.perf_counter(), now
            assert last - began < COLD_LIMIT_S, "the compiler does not come to an end"
            await asyncio.sleep(0.05)
        self._expected = count
        return last - began, count

    async def hop(self, ear: Ear) -> float:
        fact = Fact(DESIRED[Node], ("", "hop"), Node(metadata=Metadata(name="hop", labels={"n": str(self._turn)})))
        heard = ear.expect(fact.family.subject(*fact.key))
        began = time.perf_counter()
        await self.put(fact)
        return await self._within(heard) - began

    async def _within(self, heard: asyncio.Future[float]) -> float:
        async with asyncio.timeout(CHANGE_LIMIT_S):
            return await heard

    async def change(self, ear: Ear, fact: Fact, subject: str) -> float:
        """Seconds from the event until the last message of what comes of it."""
        await asyncio.sleep(PAUSE_S)
        heard = ear.expect(subject)
        began = time.perf_counter()
        await self.put(fact)
        return await self._within(heard) - began

    def attachment(self, n: int) -> str:
        return ATTACHMENT.subject(*endpoint(n, self.spaces).key)

    async def plug(self, ear: Ear, n: int) -> float:
        await self.put(pod(self._fresh, self.spaces, {}))
        await asyncio.sleep(PAUSE_S)
        fact, subject = endpoint(self._fresh, self.spaces), self.attachment(self._fresh)
        self._fresh += 1
        self._expected += 1
        return await self.change(ear, fact, subject)

    def moved(self, n: int) -> Fact:
        """The pod with another application than it has, which changes its attachment."""
        self._moved ^= {n}
        return pod(n, self.spaces, {"app": "moved"} if n in self._moved else {})

    async def relabel(self, ear: Ear, n: int) -> float:
        """Only pods of the application that is governed by one policy and is the peer of another."""
        n = 2 * self.spaces + n * 331 % self.spaces
        return await self.change(ear, self.moved(n), self.attachment(n))

    async def reword(self, ear: Ear, n: int) -> float:
        """One policy's port; only policies that have one."""
        n = self.spaces + n * 331 % (self.policies - self.spaces)
        fact = policy(n, self.spaces, port=1000 + self._turn)
        subject = RULES.subject(rules_id(KubernetesNetworkPolicy.TOKEN, *fact.key))
        return await self.change(ear, fact, subject)

    async def singles(self, ear: Ear) -> list[Row]:
        kinds: dict[str, Callable[[Ear, int], Awaitable[float]]] = {
            "a pod is plugged in": self.plug,
            "a pod changes its application": self.relabel,
            "a policy changes its port": self.reword,
        }
        taken: dict[str, list[float]] = {}
        for n in range(self.changes):
            self._turn += 1
            for name, kind in kinds.items():
                taken.setdefault(name, []).append(await kind(ear, n) * 1e3)
            taken.setdefault("one bus hop", []).append(await self.hop(ear) * 1e3)
        floor = p50(taken["one bus hop"])
        return [
            {
                "what": name,
                **spread(times),
                "max ms": round(max(times), 2),
                "of one bus hop": f"{p50(times) / floor:.1f}x",
            }
            for name, times in taken.items()
        ]

    async def sustained(self, ear: Ear, replicas: Sequence[Process]) -> Row:
        """Pods change their application at the rate, of those whose attachment it changes."""
        total = int(self.rate * self.seconds)
        per_tick = max(1, round(self.rate * TICK_S))
        late: list[float] = []
        cpu = [replica.cpu_s() for replica in replicas]
        own = time.process_time()
        heard: list[tuple[float, asyncio.Future[float]]] = []
        began = time.perf_counter()
        before = ear.count
        for at in range(0, total, per_tick):
            for n in range(at, min(at + per_tick, total)):
                n = self.spaces + n * 7 % (2 * self.spaces - 1)
                future = ear.expect(self.attachment(n))
                heard.append((time.perf_counter(), future))
                await self.put(self.moved(n))
            due = began + (at + per_tick) / self.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        written = time.perf_counter() - began
        async with asyncio.timeout(CHANGE_LIMIT_S):
            for put, future in heard:
                late.append((await future - put) * 1e3)
        spent = [replica.cpu_s() - was for replica, was in zip(replicas, cpu, strict=True)]
        tenth = len(late) // 10
        return {
            "changes/s": round(total / written),
            "for s": round(written, 1),
            **spread(late, 1),
            "max ms": round(max(late), 1),
            "p50 of the first and the last tenth": f"{p50(late[:tenth]):.1f} / {p50(late[-tenth:]):.1f}",
            "cores of each replica": " ".join(f"{one / written:.2f}" for one in spent),
            "of this program": round((time.process_time() - own) / written, 2),
            "messages": ear.count - before,
        }


@asynccontextmanager
async def replicas(bench: Bench, shards: int) -> AsyncIterator[list[Process]]:
    settings = {"TORTIE_POLICY_SHARDS": str(shards)} if shards > 1 else {}
    running = [await start(bench.url, f"replica-{n}", settings) for n in range(shards)]
    try:
        yield running
    finally:
        for replica in running:
            await replica.stop()


async def measure(bench: Bench, connection: nats.NATS, shards: int) -> None:
    await connection.jetstream().purge_stream(Stream.POLICY)
    print(f"\n{shards} shard(s); calibration {calibration():.2f} s; {machine()}", flush=True)
    began = time.perf_counter()
    async with replicas(bench, shards) as running:
        seconds, messages = await bench.settled(began)
        cold: list[Row] = [
            {
                "replica": n,
                "wall s": round(seconds, 1),
                "CPU s": round(replica.cpu_s(), 1),
                "highest MB": round(replica.megabytes("VmHWM")),
                "at rest MB": round(replica.megabytes("VmRSS")),
                "messages of all": messages,
            }
            for n, replica in enumerate(running)
        ]
        show("From the start of the process until the last message is stored", cold)
        hearing = await nats.connect(bench.url)
        ear = Ear(hearing)
        await ear.listen()
        show("One change: from the event to the published batch", await bench.singles(ear))
        show("Pods change at a rate", [await bench.sustained(ear, running)])
        await hearing.close()


async def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.store) as directory:
        async with EmbeddedNats(Path(directory)) as server:
            connection = await nats.connect(server.url)
            bench = Bench(server, connection, arguments)
            print(f"{bench.spaces} namespaces, {bench.pods} pods, {bench.policies} policies")
            print(f"loaded in {await bench.load():.1f} s", flush=True)
            for shards in arguments.shards:
                await measure(bench, connection, shards)
            await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespaces", type=int, default=2_500)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--policies", type=int, default=7_500)
    parser.add_argument("--changes", type=int, default=200, help="how often each single change is made")
    parser.add_argument("--rate", type=int, default=1_000, help="pod changes a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long they go on")
    parser.add_argument("--shards", type=int, nargs="+", default=[1])
    parser.add_argument("--store", type=Path, default=None, help="where the server keeps its streams")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
