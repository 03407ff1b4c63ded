"""The policy compiler as it runs: a process on a real nats-server with a whole cluster loaded.

    python -m benchmarks.policy_compile_service --namespaces 25000 --pods 100000 --policies 75000 [--shards 1 2 4]

The clock of one change runs from the moment at which its event is handed to the bus until the last message of the
published batch is heard by somebody else. Three kinds: a pod is plugged in, a pod changes its application (it leaves
some groups for others, and its policies with them), a policy changes its port. In the same rounds a control is changed:
a service that computes nothing and writes two messages, see `policy_compile_control`. Where the time of the slowest
changes went is told by the compiler's own stamps (`policy_compile_stamped`). Then pods change at a rate for a while,
each its own: how late the last of them is, and the share of a core that the service takes.

`--pause 12 --changes 8`: each change after a silence in which nats-server forgets what it read from its files;
`--warm-mb 0` lets it.

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
from typing import NamedTuple

import nats
import uvloop

from benchmarks import policy_compile_control as control
from benchmarks.figures import Row, machine, p50, p99, show, spread
from benchmarks.policy_compile import calibration, cluster, endpoint, pod, policy
from benchmarks.policy_compile_stamped import Stages, Stamps, medians
from bus_schemas.codec import encode
from bus_schemas.policy import rules_id
from bus_schemas.resources import KubernetesNetworkPolicy, Metadata, Node
from bus_schemas.subjects import ATTACHMENT, DESIRED, LIVE_PREFIX, ROUTE, RULES, Fact, Stream, live
from chassis.bus import Bus, Write
from chassis.embedded import EmbeddedNats, die_with_parent
from chassis.health import Health
from chassis.settings import ServiceSettings

QUIET_S = 4.0
"""A cold start is over when nothing was published for so long; that time is not counted."""
COLD_LIMIT_S = 180.0
REST_S = 10.0
"""Between the cold start and the first change: what the server wrote meanwhile is then no longer in its memory by
itself, as in a cluster that has been running for a while."""
CHANGE_LIMIT_S = 30.0
PLUG_S = 0.01
"""Between the coming of a pod and its being plugged in."""
SLOWEST = 4
"""So many changes of each kind are told stage by stage."""
TICK_S = 0.01
"""The sustained rate is made in steps of this length."""
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """One replica, and what the kernel says that it costs."""

    def __init__(self, process: asyncio.subprocess.Process, stamps: Path) -> None:
        self._process = process
        self._stamps = stamps
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
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()

    def stamps(self) -> Stamps:
        """Once it has ended."""
        return Stamps.read(self._stamps)


async def start(url: str, instance: str, settings: dict[str, str], stamps: Path) -> Process:
    environment = os.environ | {
        "TORTIE_NATS_URL": url,
        "TORTIE_INSTANCE": instance,
        "TORTIE_HEALTH_LISTEN": "",
        "TORTIE_LOG_LEVEL": "error",
        **settings,
    }
    command = (sys.executable, "-m", "benchmarks.policy_compile_stamped", str(stamps))
    return Process(await asyncio.create_subprocess_exec(*command, env=environment, preexec_fn=die_with_parent), stamps)


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


class Change(NamedTuple):
    kind: str
    at: int
    """Which one of its kind."""
    began: float
    heard: float

    @property
    def ms(self) -> float:
        return (self.heard - self.began) * 1e3


PLUG, RELABEL, REWORD = "a pod is plugged in", "a pod changes its application", "a policy changes its port"
CONTROL, HOP = "the control", "one bus hop"


class Bench:
    def __init__(self, server: EmbeddedNats, connection: nats.NATS, arguments: argparse.Namespace) -> None:
        self.url = server.url
        self.spaces: int = arguments.namespaces
        self.pods: int = arguments.pods
        self.policies: int = arguments.policies
        self.changes: int = arguments.changes
        self.rate: int = arguments.rate
        self.seconds: float = arguments.seconds
        self.pause: float = arguments.pause
        self.settings = {"TORTIE_POLICY_WARM_MB": str(arguments.warm_mb)} if arguments.warm_mb is not None else {}
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

    async def change(self, ear: Ear, fact: Fact, subject: str) -> tuple[float, float]:
        """When the event was handed over, and when the last message of what comes of it was heard."""
        heard = ear.expect(subject)
        began = time.perf_counter()
        await self.put(fact)
        async with asyncio.timeout(CHANGE_LIMIT_S):
            return began, await heard

    async def hop(self, ear: Ear, n: int) -> tuple[float, float]:
        fact = Fact(DESIRED[Node], ("", "hop"), Node(metadata=Metadata(name="hop", labels={"n": str(self._turn)})))
        return await self.change(ear, fact, fact.family.subject(*fact.key))

    async def controlled(self, ear: Ear, n: int) -> tuple[float, float]:
        return await self.change(ear, control.asked(self._turn), ROUTE.subject(*control.ANSWERS[-1]))

    def attachment(self, n: int) -> str:
        return ATTACHMENT.subject(*endpoint(n, self.spaces).key)

    async def plug(self, ear: Ear, n: int) -> tuple[float, float]:
        await self.put(pod(self._fresh, self.spaces, {}))
        await asyncio.sleep(PLUG_S)
        fact, subject = endpoint(self._fresh, self.spaces), self.attachment(self._fresh)
        self._fresh += 1
        self._expected += 1
        return await self.change(ear, fact, subject)

    def moved(self, n: int) -> Fact:
        """The pod with another application than it has, which changes its attachment."""
        self._moved ^= {n}
        return pod(n, self.spaces, {"app": "moved"} if n in self._moved else {})

    async def relabel(self, ear: Ear, n: int) -> tuple[float, float]:
        """Only pods of the application that is governed by one policy and is the peer of another."""
        n = 2 * self.spaces + n * 331 % self.spaces
        return await self.change(ear, self.moved(n), self.attachment(n))

    async def reword(self, ear: Ear, n: int) -> tuple[float, float]:
        """One policy's port; only policies that have one."""
        n = self.spaces + n * 331 % (self.policies - self.spaces)
        fact = policy(n, self.spaces, port=1000 + self._turn)
        subject = RULES.subject(rules_id(KubernetesNetworkPolicy.TOKEN, *fact.key))
        return await self.change(ear, fact, subject)

    async def singles(self, ear: Ear) -> list[Change]:
        kinds: dict[str, Callable[[Ear, int], Awaitable[tuple[float, float]]]] = {
            PLUG: self.plug,
            RELABEL: self.relabel,
            REWORD: self.reword,
            CONTROL: self.controlled,
            HOP: self.hop,
        }
        changes: list[Change] = []
        for n in range(self.changes):
            self._turn += 1
            for name, kind in kinds.items():
                await asyncio.sleep(self.pause)
                changes.append(Change(name, n, *await kind(ear, n)))
        return changes

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


def by_kind(changes: Sequence[Change]) -> dict[str, list[Change]]:
    found: dict[str, list[Change]] = {}
    for change in changes:
        found.setdefault(change.kind, []).append(change)
    return found


def figures(changes: Sequence[Change]) -> list[Row]:
    times = {name: [change.ms for change in some] for name, some in by_kind(changes).items()}
    return [
        {
            "what": name,
            **spread(some),
            "max ms": round(max(some), 2),
            "of one bus hop": f"{p50(some) / p50(times[HOP]):.1f}x",
            "p99, of the control's": f"{p99(some) / p99(times[CONTROL]):.1f}x",
        }
        for name, some in times.items()
    ]


def stages(changes: Sequence[Change], replicas: Sequence[Stamps]) -> list[Row]:
    """The middle and the slowest of each kind, by what the replica that wrote it says."""
    rows: list[Row] = []
    for name, some in by_kind(changes).items():
        told: list[tuple[Change, Stages]] = []
        for change in some:
            found = next(filter(None, (stamps.of(change.began, change.heard) for stamps in replicas)), None)
            if found is not None:
                told.append((change, found))
        if told:
            rows.append(medians([of for _, of in told]).row(f"{name}: the median of each"))
            told.sort(key=lambda one: -one[1].total)
            rows += (of.row(f"{name}: number {change.at}") for change, of in told[:SLOWEST])
    return rows


@asynccontextmanager
async def replicas(bench: Bench, shards: int, directory: Path) -> AsyncIterator[list[Process]]:
    settings = bench.settings | ({"TORTIE_POLICY_SHARDS": str(shards)} if shards > 1 else {})
    files = [directory / f"stamps-{shards}-{n}" for n in range(shards)]
    running = [await start(bench.url, f"replica-{n}", settings, file) for n, file in enumerate(files)]
    try:
        yield running
    finally:
        for replica in running:
            await replica.stop()


async def measure(bench: Bench, connection: nats.NATS, shards: int, directory: Path) -> None:
    await connection.jetstream().purge_stream(Stream.POLICY)
    print(f"\n{shards} shard(s); calibration {calibration():.2f} s; {machine()}", flush=True)
    began = time.perf_counter()
    async with replicas(bench, shards, directory) as running:
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
        await asyncio.sleep(REST_S)
        hearing = await nats.connect(bench.url)
        ear = Ear(hearing)
        await ear.listen()
        changes = await bench.singles(ear)
        show("One change: from the event to the published batch", figures(changes))
        if bench.rate:
            show("Pods change at a rate", [await bench.sustained(ear, running)])
        await hearing.close()
    show("Where its time went, in milliseconds", stages(changes, [replica.stamps() for replica in running]))


@asynccontextmanager
async def controlling(url: str) -> AsyncIterator[None]:
    command = (sys.executable, "-m", control.__name__, url)
    process = await asyncio.create_subprocess_exec(*command, preexec_fn=die_with_parent)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.store) as directory:
        async with EmbeddedNats(Path(directory)) as server:
            connection = await nats.connect(server.url)
            bench = Bench(server, connection, arguments)
            print(f"{bench.spaces} namespaces, {bench.pods} pods, {bench.policies} policies")
            print(f"loaded in {await bench.load():.1f} s", flush=True)
            async with controlling(server.url):
                for shards in arguments.shards:
                    await measure(bench, connection, shards, Path(directory))
            await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespaces", type=int, default=2_500)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--policies", type=int, default=7_500)
    parser.add_argument("--changes", type=int, default=200, help="how often each single change is made")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds of silence before each of them")
    parser.add_argument("--warm-mb", type=int, default=None, help="TORTIE_POLICY_WARM_MB of the compiler")
    parser.add_argument("--rate", type=int, default=1_000, help="pod changes a second; 0: none")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long they go on")
    parser.add_argument("--shards", type=int, nargs="+", default=[1])
    parser.add_argument("--store", type=Path, default=None, help="where the server keeps its streams")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
