"""What policy costs one node: 500 pods under 1,000 policies; and what a node pays for pods that are not its business.

    python -m benchmarks.node_price [--pods 500] [--policies 1000] [--foreign 100000]

The policies are ten for each pod, shared by the pods of a rule group; each allows two ports from a group of its own, of
twenty members. First the model and the driver alone, in a namespace of their own: every change from the fact to the
commit, with the time that the kernel took of it (the thread's system time, nearly all of which is the commit) apart
from ours (its user time: the model, libnftables, Python).

Then the same node on the bus: a program of its own writes groups, rules and attachments of foreign pods, and what
reaches the agent is counted: facts, transactions, bytes of its connection, processor's time. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import p50, p99, show
from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import GroupId, NodeName, PodKey, RulesId
from bus_schemas.policy import Attachment, Direction, Group, Match, PortRange, Rule, Rules, TierRules
from bus_schemas.subjects import ATTACHMENT, GROUP, RULES, Fact
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.health import Health
from chassis.settings import ServiceSettings
from services.node_dataplane.enforcement import Enforcement
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from services.node_dataplane.nft.transaction import Transaction
from tests.support.netns import namespaces

NODE = NodeName("node")
PER_POD = 10
MEMBERS = 20
AT_ONCE = 500


def rules(n: int, port: int = 80) -> Fact:
    source = Match(groups=(GroupId(f"s:{n}"),))
    made = tuple(
        Rule(action="allow", protocol=6, source=source, destination=Match(ports=(PortRange(first=p, last=p),)))
        for p in (port, 443)
    )
    return Fact(RULES, (f"policy-{n}",), Rules(policy=f"NetworkPolicy/bench/policy-{n}", ingress=made))


def group(n: int, size: int = MEMBERS) -> Fact:
    numbers = range(n * MEMBERS, n * MEMBERS + size)
    packed = b"".join(sorted(bytes((10, 128 + (i >> 16 & 127), i >> 8 & 255, i & 255)) for i in numbers))
    return Fact(GROUP, (f"s:{n}", "0"), Group(v4=packed, selector=f"app == '{n}'"))


def attachment(number: int, policies: int, node: NodeName = NODE) -> Fact:
    key = PodKey("bench", f"pod-{number}")
    first = number * PER_POD % policies
    ids = tuple(RulesId(f"policy-{(first + n) % policies}") for n in range(PER_POD))
    message = Attachment(
        node=node,
        namespace=key.namespace,
        name=key.name,
        container="container",
        ingress=Direction(tiers=(TierRules(tier="default", rules=ids),), default="allow"),
        egress=Direction(default="allow"),
    )
    return Fact(ATTACHMENT, (node, *key), message)


def endpoint(number: int) -> tuple[PodKey, str, tuple[str, ...]]:
    return PodKey("bench", f"pod-{number}"), f"tor{number:011x}", (f"10.7.{number >> 8 & 255}.{number & 255}",)


def facts(pods: int, policies: int) -> list[Fact]:
    return [
        *(group(n) for n in range(policies)),
        *(rules(n) for n in range(policies)),
        *(attachment(n, policies) for n in range(pods)),
    ]


def memory() -> float:
    """Megabytes, resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


class Clock:
    """Wall, kernel's and our own milliseconds of each repetition."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def time(self, what: str, repeat: int, change: Callable[[int], object]) -> None:
        spent: list[tuple[float, float, float]] = []
        for number in range(repeat):
            before, began = resource.getrusage(resource.RUSAGE_THREAD), time.perf_counter()
            change(number)
            ended, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_THREAD)
            spent.append(
                (
                    (ended - began) * 1e3,
                    (after.ru_stime - before.ru_stime) * 1e3,
                    (after.ru_utime - before.ru_utime) * 1e3,
                )
            )
        wall, kernel, ours = zip(*spent, strict=True)
        self.rows.append(
            {
                "what": what,
                "p50 ms": round(p50(wall), 2),
                "p99 ms": round(p99(wall), 2),
                "kernel, mean": round(sum(kernel) / repeat, 2),
                "ours, mean": round(sum(ours) / repeat, 2),
                "n": repeat,
            }
        )


def alone(pods: int, policies: int) -> None:
    clock = Clock()
    before = memory()
    with namespaces(1) as (namespace,), namespace.inside(), NftDriver() as driver:
        tables: list[PolicyTable] = []

        def build(_: int) -> None:
            table = PolicyTable(NodeRules())
            for number in range(pods):
                table.set_endpoint(*endpoint(number), "container")
            for fact in facts(pods, policies):
                table.apply(fact)
            table.wanted()
            tables[:] = [table]

        def commit() -> Transaction:
            transaction = table.flush().transaction
            assert transaction is not None
            driver.commit(transaction)
            table.committed(transaction)
            return transaction

        def whole(_: int) -> None:
            transaction = table.whole()
            driver.commit(transaction)
            table.committed(transaction)

        clock.time("after a restart: facts to model", 3, build)
        (table,) = tables
        clock.time("after a restart: model to kernel, whole", 3, whole)

        def adopt(_: int) -> None:
            expected = table.expected()
            assert expected is not None
            assert driver.verify(expected) == []

        clock.time("after a restart: the kernel's is the same (self-check)", 2, adopt)

        def change(number: int) -> None:
            table.apply(rules(number % 7, 1000 + number))
            commit()

        def member(number: int) -> None:
            table.apply(group(3, MEMBERS + 1 - number % 2))
            assert commit().elements is not None

        fresh = itertools.count(policies)

        def more(_: int) -> None:
            n = next(fresh)
            table.apply(rules(n))
            table.apply(group(n))
            table.set_endpoint(*endpoint(n), "container")
            tier = TierRules(tier="default", rules=(RulesId(f"policy-{n}"),))
            fact = attachment(n, policies)
            one = Attachment(
                node=NODE, namespace="bench", name=f"pod-{n}", container="container", ingress=Direction(tiers=(tier,))
            )
            table.apply(fact._replace(value=one))
            commit()

        def join(number: int) -> None:
            table.set_endpoint(*endpoint(50_000 + number), "container")
            fact = attachment(0, policies)
            message = fact.value
            assert isinstance(message, Attachment)
            one = Attachment(
                node=NODE,
                namespace="bench",
                name=f"pod-{50_000 + number}",
                container="container",
                ingress=message.ingress,
                egress=message.egress,
            )
            table.apply(Fact(ATTACHMENT, (NODE, "bench", f"pod-{50_000 + number}"), one))
            commit()

        clock.time("one policy's rules change", 40, change)
        clock.time("one policy more, with a pod of its own", 40, more)
        clock.time("one member", 400, member)
        clock.time("one pod joins a rule group", 100, join)
    show(f"{pods} pods, {policies} policies", clock.rows)
    print(f"resident memory: {before:.0f} MB before, {memory():.0f} MB after")


class Counting:
    """A driver that counts transactions."""

    def __init__(self, driver: NftDriver) -> None:
        self._driver = driver
        self.transactions = 0

    def commit(self, transaction: Transaction) -> None:
        self.transactions += 1
        self._driver.commit(transaction)

    def __getattr__(self, name: str) -> object:
        return getattr(self._driver, name)


async def churn(url: str, foreign: int) -> None:
    """In a process of its own: pods of other nodes, and groups that this node does not name, come and change."""
    settings = ServiceSettings(nats_url=url, health_listen="")
    async with Bus.connect(settings, name="churn", health=Health()) as bus:
        await bus.connected()

        def writes(n: int) -> Fact:
            match n % 3:
                case 0:
                    return group(1_000_000 + n % 5000, 1 + n % MEMBERS)
                case 1:
                    return rules(1_000_000 + n % 5000, 1 + n % 60000)
                case _:
                    return attachment(n, 5000, NodeName(f"other-{n % 100}"))

        for at in range(0, foreign, AT_ONCE):
            made = [writes(n) for n in range(at, min(at + AT_ONCE, foreign))]
            await asyncio.gather(*(bus.put(f.family, f.key, f.value) for f in made))


async def on_the_bus(pods: int, policies: int, foreign: int) -> None:
    with tempfile.TemporaryDirectory() as directory, namespaces(1) as (namespace,):
        async with EmbeddedNats(Path(directory)) as nats:
            settings = ServiceSettings(nats_url=nats.url, health_listen="")
            health = Health()
            async with (
                Bus.connect(settings, name="agent", health=health) as bus,
                Bus.connect(settings, name="writer", health=health) as writer,
            ):
                await writer.connected()
                said = facts(pods, policies)
                for at in range(0, len(said), AT_ONCE):
                    await asyncio.gather(*(writer.put(f.family, f.key, f.value) for f in said[at : at + AT_ONCE]))
                with namespace.call(NftDriver) as kernel:
                    driver = Counting(kernel)
                    agent = Enforcement(NODE, driver, health, lambda *_: None)  # type: ignore[arg-type]
                    agent.set_node(NodeRules())
                    plugged = [endpoint(number) for number in range(pods)]
                    ends = [
                        Endpoint(
                            node=NODE, namespace=p.namespace, name=p.name, container="container", link=link, addresses=a
                        )
                        for p, link, a in plugged
                    ]
                    async with asyncio.TaskGroup() as tasks:
                        running = [tasks.create_task(agent.follow(bus)), tasks.create_task(agent.run())]
                        began = time.perf_counter()
                        for each in ends:
                            agent.plug(each)
                        for each in ends:
                            await agent.in_place(each)
                        restarted = time.perf_counter() - began
                        print(f"\nagent, empty kernel: all in place after {restarted:.2f} s, {memory():.0f} MB")
                        client = bus._session.client  # type: ignore[union-attr]
                        heard, bytes_, done = client.stats["in_msgs"], client.stats["in_bytes"], driver.transactions
                        cpu = time.process_time()
                        command = [sys.executable, "-m", "benchmarks.node_price", "--churn", nats.url, str(foreign)]
                        process = await asyncio.create_subprocess_exec(*command)
                        assert await process.wait() == 0
                        row = {
                            "foreign writes": foreign,
                            "messages to the agent": client.stats["in_msgs"] - heard,
                            "bytes": client.stats["in_bytes"] - bytes_,
                            "transactions": driver.transactions - done,
                            "its CPU ms": round((time.process_time() - cpu) * 1e3, 1),
                        }
                        for task in running:
                            task.cancel()
    show("What others' pods cost this node", [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument("--policies", type=int, default=1000)
    parser.add_argument("--foreign", type=int, default=100_000)
    parser.add_argument("--bus", action="store_true", help="only the part on the bus")
    parser.add_argument("--churn", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.churn:
        asyncio.run(churn(options.churn[0], int(options.churn[1])))
        return
    if options.bus:
        asyncio.run(on_the_bus(options.pods, options.policies, options.foreign))
        return
    alone(options.pods, options.policies)
    subprocess.run([sys.executable, "-m", "benchmarks.node_price", "--bus", *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
