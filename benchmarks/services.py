"""Connections through a service address against connections straight to the pod, and what services cost to program.

    python -m benchmarks.services [--rounds 100] [--sizes 1 1000 10000] [--only connections|programming]

Each variant has three namespaces of its own: a client pod, a node, a server pod, both behind links of the node. The
table is made by the agent's own core, model and driver. There are N services with three endpoints each, two of which
are nobody here; the one that is asked has one endpoint, the server, and in linear chains the last place of all.

    direct               to the pod's own address, service addresses off: the baseline
    direct, natOutgoing  the same, where a pool masquerades what leaves it: there is a NAT hook already
    direct, N services   the same, while the table translates N services
    cluster address      to the service
    ... with affinity    to a service with sessionAffinity: ClientIP
    iptables             the same N services as chains of iptables-legacy, as kube-proxy writes them: KUBE-SERVICES, one
                         KUBE-SVC a service, one KUBE-SEP an endpoint; no policy but conntrack
    iptables, direct     to the pod's own address, past those chains

Rounds and ratios are those of `benchmarks.connections`: the processor's time of a connection in the client's thread,
the median over rounds of the baseline's time to the variant's in the same round. Programming is timed by the clock,
from the facts to the kernel's word, and by the process's own time. Needs root.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from benchmarks.connections import accepting
from benchmarks.figures import p50, p99, show
from bus_schemas.subjects import Fact
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.frame import NodeRules
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.nft.transaction import Transaction
from services.node_dataplane.service_proxy.core import ServiceProxy
from tests.support.netns import Namespace, namespaces, veth, wait_for
from tests.support.nft_worlds import attach, plug
from tests.support.nft_worlds import tell as tell_table
from tests.support.service_worlds import NODE, service, slice_of

SIZES = (1, 1000, 10_000)
CONNECTIONS = 60
"""Of a variant in one round."""
CLIENT, SERVER, PORT = "10.200.0.2", "10.200.1.2", 8080
CLUSTER_IP = "10.96.255.1"
CHANGES = 200
_RESET = struct.pack("ii", 1, 0)
_DRAWS = 200


def facts(size: int, *, affinity: bool = False) -> Iterator[Fact]:
    """The one that is asked last."""
    for number in range(size - 1):
        yield service(f"s{number}", _cluster_ip(number))
        yield slice_of(f"s{number}", *_endpoints(number))
    yield service("asked", CLUSTER_IP, **({"session_affinity": "ClientIP"} if affinity else {}))
    yield slice_of("asked", SERVER)


def _cluster_ip(number: int) -> str:
    return f"10.96.{number >> 8}.{number & 255}"


def _endpoints(number: int) -> list[str]:
    return [f"10.{201 + n}.{number >> 8}.{number & 255}" for n in range(3)]


@dataclass
class Node:
    """The agent's part on one node."""

    driver: NftDriver
    proxy: ServiceProxy = field(default_factory=lambda: ServiceProxy(NODE))
    table: PolicyTable = field(default_factory=lambda: PolicyTable(NodeRules(), services=True))

    def __post_init__(self) -> None:
        _pods(self.table)

    def change(self, *told: Fact) -> Transaction:
        for fact in told:
            self.proxy.apply(fact)
        self.table.set_services(self.proxy.flush())
        return _commit(self.table, self.driver)


def _pods(table: PolicyTable) -> None:
    for name, address in (("client", CLIENT), ("server", SERVER)):
        plug(table, name, address)
        tell_table(table, attach(name))


def _commit(table: PolicyTable, driver: NftDriver) -> Transaction:
    transaction = table.flush().transaction
    assert transaction is not None
    driver.commit(transaction)
    table.committed(transaction)
    return transaction


# --- connections


@dataclass
class Variant:
    name: str
    size: int
    asked: tuple[str, int]
    prepare: Callable[[Namespace], None]
    times: list[float] = field(default_factory=list)
    """Microseconds of a connection, one of each round."""


def without(node: Namespace, rules: NodeRules = NodeRules()) -> None:  # noqa: B008 - it cannot be changed
    table = PolicyTable(rules)
    _pods(table)
    with node.call(NftDriver) as driver:
        _commit(table, driver)


def translated(size: int, affinity: bool, node: Namespace) -> None:
    with node.call(NftDriver) as driver:
        Node(driver).change(*facts(size, affinity=affinity))


def iptables(size: int, node: Namespace) -> None:
    node.run("iptables-legacy-restore", text=_chains(size))


def _chains(size: int) -> str:
    names, rules = [":KUBE-SERVICES - [0:0]"], []
    rules += ["-A PREROUTING -j KUBE-SERVICES", "-A OUTPUT -j KUBE-SERVICES"]
    for number in range(size):
        last = number == size - 1
        address = CLUSTER_IP if last else _cluster_ip(number)
        names.append(f":KUBE-SVC-{number} - [0:0]")
        rules.append(f"-A KUBE-SERVICES -d {address}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{number}")
        rules += _service(number, [SERVER] if last else _endpoints(number))
        names += [f":KUBE-SEP-{number}-{n} - [0:0]" for n in range(1 if last else 3)]
    filter_ = "*filter\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n"
    return "\n".join(["*nat", *names, *rules, "COMMIT", filter_])


def _service(number: int, endpoints: Sequence[str]) -> list[str]:
    rules = []
    for n, endpoint in enumerate(endpoints):
        left = len(endpoints) - n
        chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
        rules.append(f"-A KUBE-SVC-{number} {chance}-j KUBE-SEP-{number}-{n}")
        rules.append(f"-A KUBE-SEP-{number}-{n} -p tcp -m tcp -j DNAT --to-destination {endpoint}:{PORT}")
    return rules


def variants(sizes: Sequence[int]) -> list[Variant]:
    direct, by_service = (SERVER, PORT), (CLUSTER_IP, 80)
    made = [Variant("direct", 0, direct, without), Variant("direct, once more", 0, direct, without)]
    pool = NodeRules(masquerade_pools=("10.200.0.0/16",), all_pools=("10.200.0.0/16",))
    made.append(Variant("direct, natOutgoing", 0, direct, partial(without, rules=pool)))
    for size in sizes:
        made.append(Variant("direct, N services", size, direct, partial(translated, size, False)))
        made.append(Variant("cluster address", size, by_service, partial(translated, size, False)))
    made.append(Variant("cluster address, with affinity", sizes[0], by_service, partial(translated, sizes[0], True)))
    if shutil.which("iptables-legacy-restore"):
        for size in sizes:
            made.append(Variant("iptables, direct", size, direct, partial(iptables, size)))
            made.append(Variant("iptables, cluster address", size, by_service, partial(iptables, size)))
    return made


def build(variant: Variant, stack: ExitStack) -> tuple[Namespace, socket.socket]:
    """The client's namespace and the server's listener."""
    client, node, server = stack.enter_context(namespaces(3))
    for name, pod, address in (("client", client, CLIENT), ("server", server, SERVER)):
        gateway = address.rpartition(".")[0] + ".1"
        veth(pod, "eth0", node, f"tor{name}", addresses=(f"{address}/24", f"{gateway}/24"))
        pod.ip("route", "add", "default", "via", gateway)
    node.forward()
    variant.prepare(node)
    with server.inside():
        listener = stack.enter_context(socket.create_server((SERVER, PORT), backlog=4096))
    return client, listener


def connect(asked: tuple[str, int]) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.settimeout(1.0)
        connection.connect(asked)


def time_of(client: Namespace, asked: tuple[str, int]) -> float:
    """Microseconds of the thread's time for a connection."""
    with client.inside():
        connect(asked)
        before = time.thread_time()
        for _ in range(CONNECTIONS):
            connect(asked)
        return (time.thread_time() - before) / CONNECTIONS * 1e6


def reachable(client: Namespace, asked: tuple[str, int]) -> bool:
    try:
        client.call(partial(connect, asked))
    except OSError:
        return False
    return True


def connections(rounds: int, sizes: Sequence[int]) -> None:
    with ExitStack() as stack:
        todo = variants(sizes)
        built = [build(variant, stack) for variant in todo]
        stack.enter_context(accepting([listener for _, listener in built]))
        pairs = list(zip(todo, built, strict=True))
        for variant, (client, _) in pairs:
            wait_for(partial(reachable, client, variant.asked), f"a first connection of {variant.name}", 20.0)
        order = random.Random(1)
        for turn in range(rounds):
            for variant, (client, _) in order.sample(pairs, len(pairs)):
                variant.times.append(time_of(client, variant.asked))
            if turn % 25 == 24:
                print(f"  {turn + 1} of {rounds} rounds", flush=True)
    base = todo[0].times
    draws = [[order.randrange(rounds) for _ in range(rounds)] for _ in range(_DRAWS)]
    rows = []
    for variant in todo:
        ratios = [of / mine for of, mine in zip(base, variant.times, strict=True)]
        added = [mine - of for of, mine in zip(base, variant.times, strict=True)]
        rows.append(
            {
                "what": variant.name,
                "services": variant.size or "",
                "us": round(p50(variant.times), 1),
                "of direct": f"{p50(ratios):.3f}x",
                "+-": f"{_error(ratios, draws):.3f}",
                "us more": f"{p50(added):.2f} +- {_error(added, draws):.2f}",
            }
        )
    show("Connections through a service address", rows)


def _error(values: Sequence[float], draws: Sequence[Sequence[int]]) -> float:
    """The standard error of their median."""
    return statistics.pstdev(p50([values[i] for i in draw]) for draw in draws)


# --- programming


@contextmanager
def _clock(times: list[float], cpu: list[float] | None = None) -> Iterator[None]:
    began, spent = time.perf_counter(), time.process_time()
    yield
    times.append((time.perf_counter() - began) * 1e3)
    if cpu is not None:
        cpu.append((time.process_time() - spent) * 1e3)


def programming(sizes: Sequence[int]) -> None:
    rows = []
    for size in sizes:
        with namespaces(1) as (node,), node.call(NftDriver) as driver, node.inside():
            made = Node(driver)
            _commit(made.table, driver)
            told = list(facts(size))
            whole: list[float] = []
            whole_cpu: list[float] = []
            with _clock(whole, whole_cpu):
                transaction = made.change(*told)
            one: list[float] = []
            one_cpu: list[float] = []
            sizes_of = set()
            for turn in range(CHANGES):
                number = turn % max(1, size - 1)
                gone = turn // max(1, size - 1) % 2 == 0
                name = f"s{number}" if size > 1 else "asked"
                there = _endpoints(number)[: 2 if gone else 3]
                with _clock(one, one_cpu):
                    changed = made.change(slice_of(name, *there))
                assert changed.elements is not None, "more than elements"
                sizes_of.add(changed.weight)
            rows.append(
                {
                    "services": size,
                    "all of them, ms": round(whole[0], 1),
                    "CPU": round(whole_cpu[0], 1),
                    "elements": transaction.weight,
                    "one endpoint, ms": round(p50(one), 2),
                    "one, CPU": round(p50(one_cpu), 2),
                    "one, p99": round(p99(one), 1),
                    "its elements": "/".join(map(str, sorted(sizes_of))),
                    **_peer(size),
                }
            )
    show("Services into the kernel", rows)


def _peer(size: int) -> dict[str, float]:
    """The same by iptables-restore, as kube-proxy calls it for a change: the chains of that service alone."""
    if not shutil.which("iptables-legacy-restore"):
        return {}
    with namespaces(1) as (node,):
        whole: list[float] = []
        text = _chains(size)
        with _clock(whole):
            node.run("iptables-legacy-restore", text=text)
        one: list[float] = []
        for turn in range(10):
            endpoints = _endpoints(0)[: 2 + turn % 2]
            names = [":KUBE-SVC-0 - [0:0]", *(f":KUBE-SEP-0-{n} - [0:0]" for n in range(len(endpoints)))]
            part = "\n".join(["*nat", *names, *_service(0, endpoints), "COMMIT", ""])
            with _clock(one):
                node.run("iptables-legacy-restore", "--noflush", text=part)
    return {"iptables all, ms": round(whole[0], 1), "iptables one, ms": round(p50(one), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--only", choices=("connections", "programming"), default="")
    options = parser.parse_args()
    assert os.geteuid() == 0, "network namespaces need root"
    print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    if options.only != "connections":
        programming(options.sizes)
    if options.only != "programming":
        connections(options.rounds, options.sizes)


if __name__ == "__main__":
    main()
