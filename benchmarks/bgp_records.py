"""What BGP for many nodes costs route_distribution and an agent: records, changes, rendering. No bus, no kernel.

.venv/bin/python -m benchmarks.bgp_records [nodes]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

from bus_schemas.codec import encode
from bus_schemas.ids import NodeName
from bus_schemas.routes import Route
from bus_schemas.subjects import Fact
from services.node_dataplane.bird.render import render
from tests.support.routes import pool
from tests.support.speakers import Told, configuration, peer, speaking

BLOCKS_PER_NODE = 4
REFLECTORS = 3


def node(number: int, *, moved: bool = False, **more: object) -> Fact:
    address = f"10.{number // 62500 + (9 if moved else 0)}.{number // 250 % 250}.{number % 250 + 1}/16"
    return speaking(f"node-{number:05d}", address, **more)  # type: ignore[arg-type]


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what:55}{(time.perf_counter() - start) * 1000:10.1f} ms")


def mesh(nodes: int) -> None:
    with timed(f"mesh of {nodes}, {BLOCKS_PER_NODE} blocks each, from cold"):
        told = Told(configuration(), pool("pool", "10.128.0.0/9"), *(node(i) for i in range(nodes)))
        for i in range(nodes * BLOCKS_PER_NODE):
            told.core.apply_route(*_block(i, nodes))
        told.flush()
    name = "node-00000"
    print(f"record {len(encode(told.speakers[name]))} B, member {len(encode(told.members[name]))} B")
    with timed("a node moves"):
        written = told.tell(node(7, moved=True))
    print(f"  messages: {len(written)}")
    with timed("a pool is added (in every record)"):
        written = told.tell(pool("other", "172.16.0.0/12"))
    print(f"  messages: {len(written)}")
    with timed("an agent joins the mesh to its record"):
        whole = told.whole(name)
    print(f"  the record with the mesh in it would be {len(encode(whole))} B")
    with timed("and renders it"):
        text = render(whole, {})
    print(f"  bird.conf: {len(text)} B")


def reflected(nodes: int) -> None:
    def kind(i: int) -> Fact:
        return node(i, labels={"rr": ""}, cluster="1.1.1.1") if i < REFLECTORS else node(i)

    with timed(f"{REFLECTORS} reflectors for {nodes} nodes, from cold"):
        told = Told(
            configuration(node_to_node_mesh_enabled=False),
            peer("rr", node_selector="!has(rr)", peer_selector="has(rr)"),
            *map(kind, range(nodes)),
        )
    sizes = [len(encode(told.speakers[name])) for name in ("node-00000", f"node-{nodes - 1:05d}")]
    print(f"record of a reflector {sizes[0]} B, of a client {sizes[1]} B")
    with timed("a client moves"):
        written = told.tell(node(7, moved=True))
    print(f"  messages: {len(written)}")


def _block(number: int, nodes: int) -> tuple[str, Route]:
    cidr = str(ip_network((0x0A800000 + number * 64, 26)))
    return cidr, Route(cidr=cidr, node=NodeName(f"node-{number % nodes:05d}"))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    mesh(count)
    reflected(count)
