"""Address storms: 2,000 nodes ask for five addresses each at the same moment, one node for a hundred; ours and others.

    python -m benchmarks.ipam_storm [--nodes 2000] [--only control 1 3 etcd ...] [--patience 60]

The bus, the replicas of ipam (processes as users run them) and the load (one process, all of the agents) share this
machine. The peers get the same: `host-local` (see `storm_host_local`), and the same blocks and handles on etcd with one
compare-and-swap for each address (see `storm_etcd`). `control` is the load against a service that answers at once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from benchmarks import storm_etcd, storm_host_local
from benchmarks.figures import Row, machine, p50, p99, show
from benchmarks.storm_load import PATIENCE_S, Storm, connections, storm
from benchmarks.storm_processes import Syncing, cpu_s, echo, replicas
from bus_schemas.resources import IPPool, Metadata, Node
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.subjects import DESIRED, Stream
from chassis import logs
from chassis.bus import Bus, Write
from chassis.embedded import EmbeddedNats
from chassis.jetstream import stream_info

EACH = 5
ON_ONE_NODE = 100
AT_ONCE = 16
"""Processes of host-local that run side by side, where one machine stands for all of the nodes."""
CHUNK = 500


async def prepare(bus: Bus, nodes: int) -> None:
    pool = IPPool(metadata=Metadata(name="storm"), spec=IPPoolSpec(cidr="10.0.0.0/12"))
    await bus.put(DESIRED[IPPool], pool.key, pool)
    resources = [Node(metadata=Metadata(name=f"node-{i}")) for i in range(nodes)]
    for i in range(0, nodes, CHUNK):
        await bus.batch([Write(DESIRED[Node], node.key, node) for node in resources[i : i + CHUNK]])


async def stored(bus: Bus) -> int:
    """Writes to the stream of address records so far."""
    info = await stream_info(await bus.session(), Stream.BLOCKS)
    assert info is not None
    return info.state.last_seq


def row(what: str, result: Storm | storm_etcd.Ran | storm_host_local.Ran, asked: int) -> dict[str, object]:
    assert len(result.addresses) == asked, f"{what}: {len(result.addresses)} addresses of {asked}"
    return {
        "who": what,
        "s": round(result.took_s, 2),
        "per second": round(asked / result.took_s),
        "p50 ms": round(p50(result.latencies_s) * 1e3),
        "p99 ms": round(p99(result.latencies_s) * 1e3),
        "max ms": round(max(result.latencies_s) * 1e3),
    }


@asynccontextmanager
async def bus_of(server: EmbeddedNats, nodes: int, number: int) -> AsyncIterator[list[Bus]]:
    async with server, connections(server.url, number) as buses:
        await prepare(buses[0], nodes)
        yield buses


async def ours(
    directory: Path, nodes: int, number: int, connected: int, *, sync: bool, patience_s: float
) -> tuple[list[Row], list[Row]]:
    """The storm, then one node's hundred."""
    server = (Syncing if sync else EmbeddedNats)(directory / "store")
    what = f"{number} ipam" + (", synced" if sync else "")
    async with bus_of(server, nodes, connected) as buses, replicas(server.url, number, directory) as ipam:
        await storm(buses, 1, 1, name="first")
        rows: list[list[Row]] = []
        for title, asking, each in (("storm", nodes, EACH), ("node", 1, ON_ONE_NODE)):
            counted, served, writes = await ipam.counted(), cpu_s(server.pid), await stored(buses[0])
            result = await storm(buses, asking, each, name=title, patience_s=patience_s)
            spent = await ipam.counted() - counted
            samples, asked = spent.samples, asking * each
            figures = row(what, result, asked) | {
                "conflicts": round(samples["tortie_ipam_conflicts_total"]),
                "busy": result.busy,
                "turned away": result.failed,
                "writes/address": round((await stored(buses[0]) - writes) / asked, 2),
                "batches": round(samples["tortie_ipam_batch_writes_count"]),
                "refused": round(samples["tortie_bus_conflicts_total"]),
                "ipam CPU s": round(spent.cpu_s, 2),
                "nats CPU s": round(cpu_s(server.pid) - served, 2),
                "load CPU s": round(result.cpu_s, 2),
            }
            rows.append([figures])
        return rows[0], rows[1]


async def control(directory: Path, nodes: int, connected: int) -> tuple[list[Row], list[Row]]:
    """What the load costs by itself."""
    server = EmbeddedNats(directory / "store")
    async with bus_of(server, 1, connected) as buses, echo(server.url, directory):
        rows: list[list[Row]] = []
        for title, asking, each in (("storm", nodes, EACH), ("node", 1, ON_ONE_NODE)):
            result = await storm(buses, asking, each, name=title)
            rows.append([row("control", result, asking * each) | {"load CPU s": round(result.cpu_s, 2)}])
        return rows[0], rows[1]


async def etcd(directory: Path, nodes: int) -> tuple[list[Row], list[Row]]:
    async with storm_etcd.server(directory / "etcd") as server:
        rows: list[list[Row]] = []
        for title, asking, each in (("storm", nodes, EACH), ("node", 1, ON_ONE_NODE)):
            served = cpu_s(server.pid)
            result = await storm_etcd.run(server.url, title, asking, each)
            figures = row("etcd", result, asking * each) | {
                "conflicts": result.conflicts,
                "writes/address": round(result.writes / (asking * each), 2),
                "etcd CPU s": round(cpu_s(server.pid) - served, 2),
                "load CPU s": round(result.cpu_s, 2),
            }
            rows.append([figures])
        return rows[0], rows[1]


async def host_local(directory: Path, nodes: int) -> tuple[list[Row], list[Row]]:
    rows: list[list[Row]] = []
    for title, asking, each in (("storm", nodes, EACH), ("node", 1, ON_ONE_NODE)):
        result = await storm_host_local.run(directory / title, asking, each, at_once=AT_ONCE)
        figures = row("host-local", result, asking * each) | {"its CPU s": round(result.cpu_s, 2)}
        rows.append([figures])
    return rows[0], rows[1]


async def run(arguments: argparse.Namespace) -> None:
    nodes, connected = arguments.nodes, arguments.connections
    tables: tuple[list[Row], list[Row]] = ([], [])
    for what in arguments.only or ("control", "1", "3", "1s", "3s", "etcd", "host-local"):
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(temporary)
            began = time.monotonic()
            if what == "control":
                rows = await control(directory, nodes, connected)
            elif what == "etcd":
                rows = await etcd(directory, nodes)
            elif what == "host-local":
                rows = await host_local(directory, nodes)
            else:
                number, sync = int(what.rstrip("s")), what.endswith("s")
                rows = await ours(directory, nodes, number, connected, sync=sync, patience_s=arguments.patience)
            for table, some in zip(tables, rows, strict=True):
                table += some
            print(f"{what}: {time.monotonic() - began:.0f} s, {rows[0][-1]}", file=sys.stderr)
    print(f"machine: {machine()}")
    names = dict.fromkeys(name for table in tables for row_ in table for name in row_)
    for title, table in (
        (f"{nodes} nodes ask for {EACH} addresses each at the same moment", tables[0]),
        (f"One node asks for {ON_ONE_NODE} addresses at the same moment", tables[1]),
    ):
        show(title, [{name: row_.get(name, "") for name in names} for row_ in table])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds; 0: that of agents")
    parser.add_argument("--only", nargs="+", help="control, 1, 3 (replicas), 1s, 3s (synced), etcd, host-local")
    logs.configure("auto", "error")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
