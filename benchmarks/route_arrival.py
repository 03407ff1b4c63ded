"""From routes that arrive at an agent until the kernel has them: 5,000 within 50 ms is what ARCHITECTURE asks.

    python -m benchmarks.route_arrival [--routes 5000] [--repeat 20]

The agent's own parts in a namespace, as its tasks call them: what the feed holds when the messages are here (bytes by
subject) -> facts -> NodeCore -> Fabric -> kernel. The floor is taken in turn: the same rows given to the kernel by
hand-packed netlink, 500 to a datagram. Also: one route among all the others. Needs root.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from ipaddress import ip_address, ip_network
from itertools import pairwise
from pathlib import Path
from socket import if_nametoindex

from benchmarks.figures import machine, p50, p99, show
from bus_schemas.codec import decode, encode
from bus_schemas.ids import NodeName
from bus_schemas.routes import Route
from bus_schemas.subjects import ROUTE, Fact
from services.node_dataplane import interfaces
from services.node_dataplane.core import NodeCore
from services.node_dataplane.fabric import Fabric
from services.node_dataplane.netlink import rtnl
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.routing import BATCH
from tests.support.netns import Namespace, namespaces
from tests.support.routes import node

OWN = NodeName("own")
clock = time.perf_counter
NODES = 50


def route(number: int, turn: int) -> Route:
    other = number % NODES + 2
    cidr = str(ip_network((0x0A800000 + (number + turn % 2 * 100_000) * 64, 26)))
    return Route(cidr=cidr, node=NodeName(f"n{other}"), pool="pool", address=f"10.99.0.{other}/16")


def arrived(number: int, turn: int) -> dict[str, bytes]:
    return {ROUTE.subject(r.cidr): encode(r) for r in (route(n, turn) for n in range(number))}


def facts_of(messages: dict[str, bytes]) -> list[Fact]:
    """As `Feed.next` makes them."""
    found = []
    for subject, payload in messages.items():
        key = ROUTE.parse(subject)
        assert key is not None
        found.append(Fact(ROUTE, key, decode(payload, Route), 1))
    return found


def floor(namespace: Namespace, socket: NetlinkSocket, number: int, device: int) -> float:
    """Milliseconds for packed requests that are there already, and their removal after it."""
    rows = [(ip_network((0x0B000000 + n * 64, 26)).network_address.packed, 26) for n in range(number)]
    gateways = [ip_address(f"10.99.0.{n % NODES + 2}").packed for n in range(number)]
    requests = [
        rtnl.route(*row, index=device, gateway=via, acknowledge=n % BATCH == BATCH - 1)
        for n, (row, via) in enumerate(zip(rows, gateways, strict=True))
    ]
    began = clock()
    for at in range(0, number, BATCH):
        socket.transact(requests[at : at + BATCH])
    took = (clock() - began) * 1e3
    for at in range(0, number, BATCH):
        socket.transact([rtnl.route_delete(*row, index=device) for row in rows[at : at + BATCH]])
    return took


def run(number: int, repeat: int) -> None:
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory, namespaces(1) as (namespace,):
        namespace.ip("link", "add", "up0", "type", "bridge")
        namespace.ip("address", "add", "10.99.0.1/16", "dev", "up0")
        namespace.ip("link", "set", "up0", "up")
        with namespace.inside():
            fabric, socket = Fabric("auto", Path(directory)), NetlinkSocket(NETLINK_ROUTE)
            core = NodeCore(OWN)
            core.apply(node(OWN, "10.99.0.1/16"))
            core.set_interfaces(interfaces.observe(fabric.socket).uplinks)
            fabric.apply(core.flush())
            device = if_nametoindex("up0")
            gc.collect()
            gc.freeze()
            for turn in range(repeat):
                messages = arrived(number, turn)
                marks = [clock()]
                facts = facts_of(messages)
                marks.append(clock())
                for fact in facts:
                    core.apply(fact)
                desired = core.flush()
                marks.append(clock())
                fabric.apply(desired)
                marks.append(clock())
                assert not fabric.problems, fabric.problems
                parts = [(b - a) * 1e3 for a, b in pairwise(marks)]
                for what, ms in zip(("bytes to facts", "facts to rows", "rows to kernel"), parts, strict=True):
                    taken.setdefault(what, []).append(ms)
                taken.setdefault("arrival to kernel", []).append(sum(parts))
                one = arrived(number + 1, turn)
                (last,) = facts_of({subject: one[subject] for subject in one.keys() - messages.keys()})
                began = clock()
                core.apply(last)
                fabric.apply(core.flush())
                taken.setdefault("one more route", []).append((clock() - began) * 1e3)
                for fact in (*facts, last):
                    core.apply(fact._replace(value=None))
                fabric.apply(core.flush())
                taken.setdefault("floor: the kernel alone, packed rows", []).append(
                    floor(namespace, socket, number, device)
                )
            fabric.close()
            socket.close()
    base = p50(taken["floor: the kernel alone, packed rows"])
    show(
        f"{number} routes",
        [
            {
                "what": what,
                "p50 ms": round(p50(ms), 2),
                "min": round(min(ms), 2),
                "p99 ms": round(p99(ms), 2),
                "of the floor": f"{p50(ms) / base:.2f}x",
            }
            for what, ms in taken.items()
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", type=int, default=5000)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--cpu", action="store_true", help="processor time, on a machine that others use")
    arguments = parser.parse_args()
    if arguments.cpu:
        global clock
        clock = time.thread_time
    print(f"machine: {machine()}")
    run(arguments.routes, arguments.repeat)


if __name__ == "__main__":
    main()
