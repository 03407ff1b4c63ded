"""How long a route, a neighbour or a forwarding entry that somebody deleted or replaced stays away.

    python -m benchmarks.route_repair [--routes 1000] [--rounds 40]

One agent with that many blocks behind that many nodes, by VXLAN. In turn one object of each kind is broken by a socket
of its own, each time another one; a second socket hears the kernel announce its return. Beside it, in the same run:
what the kernel needs to announce the loss itself, which nobody can be faster than.
"""

from __future__ import annotations

import argparse
import asyncio
import select
import socket
import tempfile
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

from benchmarks.figures import machine, show, spread
from bus_schemas.resources import IPPool, Node
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.routes import Encapsulation, Route, Tunnel, vtep_mac_of
from bus_schemas.subjects import DESIRED, ROUTE
from chassis.bus import Bus, Write
from chassis.embedded import EmbeddedNats
from chassis.health import Health
from chassis.settings import ServiceSettings
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from tests.support.agent import AgentProcess
from tests.support.netns import Namespace, namespaces, wait_for

DEVICE = "vxlan.tortie"
GROUPS = 0x4 | 0x40
DEADLINE_S = 30.0
PAUSE_S = 0.3
"""Between two breaks: the agent is at rest again."""


def far(number: int) -> tuple[str, str, str, str]:
    """Of a node: its name, its address, its tunnel address, its block."""
    block = list(ip_network("10.244.0.0/15").subnets(new_prefix=26))[number]
    return f"far{number}", f"10.0.{number // 250 + 1}.{number % 250 + 1}", str(block[1]), str(block)


class Bench:
    def __init__(self, node: Namespace) -> None:
        self.node = node
        self.hand = node.call(lambda: NetlinkSocket(NETLINK_ROUTE))
        self.ear = node.call(lambda: NetlinkSocket(NETLINK_ROUTE, groups=GROUPS))
        self.index = node.call(lambda: socket.if_nametoindex(DEVICE))

    def broken(self, request: bytes, gone: int, back: int, key: bytes, protocol: int | None) -> tuple[float, float]:
        """Seconds until its loss was announced, and until its return."""
        for _ in self.ear.announcements():
            pass
        begun = time.perf_counter()
        self.hand.execute([request], "break it")
        lost = self._hears(gone, key, None)
        return lost - begun, self._hears(back, key, protocol) - begun

    def _hears(self, type_: int, key: bytes, protocol: int | None) -> float:
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            select.select([self.ear.fileno()], [], [], 1.0)
            now = time.perf_counter()
            for told in self.ear.announcements():
                if told.type == type_ and _key(told.type, bytes(told.body), protocol) == key:
                    return now
        raise TimeoutError("it did not come back")


def _key(type_: int, body: bytes, protocol: int | None) -> bytes:
    if type_ in (rtnl.RTM_NEWROUTE, rtnl.RTM_DELROUTE):
        row = readback.route(body)
        return row.destination if protocol in (None, row.protocol) else b""
    entry = readback.neighbour(body)
    return entry.mac if body[0] == rtnl.AF_BRIDGE else entry.packed


def measure(bench: Bench, rounds: int) -> list[dict[str, object]]:
    announced: list[float] = []
    back: dict[str, list[float]] = {"route deleted": [], "route replaced": [], "neighbour": [], "forwarding entry": []}
    number = 0
    for _ in range(rounds):
        for what, times in back.items():
            name, address, vtep, block = far(number)
            number += 1
            net = ip_network(block)
            where, prefix = net.network_address.packed, net.prefixlen
            mac, remote, end = rtnl.hardware(vtep_mac_of(name)), ip_address(address).packed, ip_address(vtep).packed
            i = bench.index
            match what:
                case "route deleted":
                    ask = rtnl.route_delete(where, prefix, index=i)
                    call = (ask, rtnl.RTM_DELROUTE, rtnl.RTM_NEWROUTE, where, rtnl.PROTOCOL)
                case "route replaced":
                    ask = rtnl.route(where, prefix, blackhole=True, protocol=4, presence="put")
                    call = (ask, rtnl.RTM_NEWROUTE, rtnl.RTM_NEWROUTE, where, rtnl.PROTOCOL)
                case "neighbour":
                    ask = rtnl.neighbour(i, end, mac, remove=True)
                    call = (ask, rtnl.RTM_DELNEIGH, rtnl.RTM_NEWNEIGH, end, None)
                case _:
                    ask = rtnl.forwarding(i, mac, remote, remove=True)
                    call = (ask, rtnl.RTM_DELNEIGH, rtnl.RTM_NEWNEIGH, mac, None)
            lost, returned = bench.broken(*call)
            announced.append(lost * 1000)
            times.append(returned * 1000)
            time.sleep(PAUSE_S)
    rows: list[dict[str, object]] = [{"": "the loss is announced", **spread(announced)}]
    return rows + [{"": f"{what}: back after", **spread(times, 1)} for what, times in back.items()]


async def run(routes: int, rounds: int) -> None:
    with namespaces(1) as (node,), tempfile.TemporaryDirectory() as directory:
        node.ip("link", "add", "up0", "type", "bridge")
        node.ip("address", "add", "10.0.0.1/16", "dev", "up0")
        node.ip("link", "set", "up0", "up")
        with node.inside():
            async with EmbeddedNats(Path(directory) / "nats", host="10.0.0.1") as nats:
                settings = ServiceSettings(nats_url=nats.url, health_listen="")
                async with Bus.connect(settings, name="bench", health=Health()) as bus:
                    await bus.connected()
                    await fill(bus, routes)
                    agent = AgentProcess("node1", node, nats.url, Path(directory))
                    agent.start()
                    try:
                        await asyncio.to_thread(
                            wait_for,
                            lambda: node.ip("route", "show", "proto", "84").count("\n") >= routes,
                            "the routes are there",
                            60.0,
                        )
                        rows = await asyncio.to_thread(measure, Bench(node), rounds)
                    finally:
                        agent.stop()
        show(f"{routes} routes over VXLAN; {machine()}", rows)


async def fill(bus: Bus, routes: int) -> None:
    spec = IPPoolSpec(cidr="10.244.0.0/15", vxlan_mode="Always")
    await bus.put(DESIRED[IPPool], ("", "pool"), IPPool(metadata=Metadata(name="pool"), spec=spec))
    own = Node(metadata=Metadata(name="node1"), spec=NodeSpec(bgp=NodeBgp(ipv4_address="10.0.0.1/16")))
    await bus.put(DESIRED[Node], ("", "node1"), own)
    for number in range(routes):
        name, address, vtep, block = far(number)
        route = Route(
            cidr=block,
            node=name,  # type: ignore[arg-type]
            pool="pool",
            address=f"{address}/16",
            tunnel=Tunnel.VXLAN,
            encapsulation=Encapsulation.ALWAYS,
            vtep=vtep,
            vtep_mac=vtep_mac_of(name),
        )
        await bus.batch([Write(ROUTE, (block,), route)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.routes, arguments.rounds))


if __name__ == "__main__":
    main()
