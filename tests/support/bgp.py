"""A cluster whose nodes speak BGP, with a router outside, and pings that never cease while something is done to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from services.node_dataplane.bird.process import BirdProcess
from tests.support.lab import lab_name
from tests.support.waiting import until
from tortie import netns
from tortie.cli.client import Client
from tortie.lab import fabric, kernel, ownership, scenario
from tortie.lab.cluster import Cluster
from tortie.lab.scenario import Place

CLUSTER = """
name: bgp
nodes:
  node1: {address: 10.0.0.11/24}
  node2: {address: 10.0.0.12/24}
  node3: {address: 10.0.0.13/24}
  tor: {address: 10.0.0.2/24, external: {bird: {asn: 64999, neighbours: {node1: 64512}, announces: [192.0.2.0/24]}}}
resources: |
  apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: default}
  spec: {cidr: 10.244.0.0/16, natOutgoing: false}
  ---
  apiVersion: projectcalico.org/v3
  kind: BGPConfiguration
  metadata: {name: default}
  spec: {nodeToNodeMeshEnabled: true}
  ---
  apiVersion: projectcalico.org/v3
  kind: BGPPeer
  metadata: {name: tor}
  spec: {node: node1, peerIP: 10.0.0.2, asNumber: 64999}
pods:
  default/a: {node: node1}
  default/b: {node: node2}
  default/c: {node: node3}
"""
REFLECTOR = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1, labels: {route-reflector: "true"}}
spec: {bgp: {ipv4Address: 10.0.0.11/24, routeReflectorClusterID: 1.1.1.1}}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflector}
spec: {nodeSelector: all(), peerSelector: route-reflector=="true"}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
"""
NODES = ("node1", "node2", "node3")
EVERY_S = 0.01
LEAST = 50
"""So many are sent, however soon the end is."""
AWAITED_S = 2.0
"""How long the last answers are waited for."""


class Pings:
    """One echo after another from a pod to an address, until it is told to end; `lost` then says how many of `sent`."""

    def __init__(self, namespace: str, address: str) -> None:
        with netns.inside(namespace):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.settimeout(EVERY_S)
        self._address = address
        self._own = os.urandom(4)
        self._stop = threading.Event()
        self._answered: set[int] = set()
        self.sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        return self.sent - len(self._answered)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._stop.is_set() or self.sent < LEAST:
            self._socket.sendto(self._echo(self.sent), (self._address, 0))
            self.sent += 1
            self._hear(time.monotonic() + EVERY_S)
        deadline = time.monotonic() + AWAITED_S
        while self.lost and time.monotonic() < deadline:
            self._hear(time.monotonic() + EVERY_S)

    def _hear(self, until_s: float) -> None:
        while (left := until_s - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                packet = self._socket.recv(2048)
            except TimeoutError:
                return
            answer = packet[(packet[0] & 15) * 4 :]
            if answer[0] == 0 and answer[8:12] == self._own:
                self._answered.add(struct.unpack("!I", answer[12:16])[0])

    def _echo(self, number: int) -> bytes:
        body = struct.pack("!HH", 1, number & 0xFFFF) + self._own + struct.pack("!I", number)
        total = sum(struct.unpack(f"!{len(body) // 2}H", body)) + 0x0800
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return struct.pack("!BBH", 8, 0, ~total & 0xFFFF) + body


class Speakers:
    """The cluster, and what its nodes say by BGP."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._client = Client(ownership.api_address(cluster.name))

    def bird(self, node: str) -> BirdProcess:
        return BirdProcess(self.cluster.directory / "node" / node / "bird")

    def kill_bird(self, node: str) -> int:
        """kill -9; its process."""
        pid = self.bird(node).pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    async def sessions(self, node: str) -> dict[str, Any]:
        """Peer -> what the api says of the session."""
        told = await asyncio.to_thread(self._client.get, f"/v1/nodes/{node}/bgp")
        return {session["peer"]: session for session in told["sessions"]}

    async def established(self, node: str, *peers: str, kind: str = "") -> bool:
        """The node has sessions with just these, all established, of that kind."""
        sessions = await self.sessions(node)
        return sessions.keys() == set(peers) and all(
            session["established"] and kind in ("", session["type"]) for session in sessions.values()
        )

    async def meshed(self) -> None:
        await self._all_have({"node1": ("10.0.0.12", "10.0.0.13", "10.0.0.2")}, ("10.0.0.11", "10.0.0.12", "10.0.0.13"))

    async def _all_have(self, special: dict[str, tuple[str, ...]], addresses: tuple[str, ...]) -> None:
        for node, own in zip(NODES, addresses, strict=True):
            peers = special.get(node) or tuple(address for address in addresses if address != own)

            async def there(node: str = node, peers: tuple[str, ...] = peers) -> bool:
                return await self.established(node, *peers)

            await until(there, f"the sessions of {node}")

    async def ways(self, node: str, protocol: str = "bird") -> dict[str, Any]:
        """Destination -> the kernel's route of that protocol."""
        rows = await kernel.read("routes", self.cluster.netns(Place("node", node)))
        return {str(row["dst"]): row for row in rows if row.get("protocol") == protocol}

    async def knows_all_blocks(self, node: str) -> bool:
        blocks = {cidr for owner, own in (await self.cluster.blocks()).items() if owner != node for cidr in own}
        return blocks <= (await self.ways(node)).keys()

    async def health(self, node: str) -> tuple[int, str]:
        return await self.cluster.processes[f"agent-{node}"].readyz()

    @contextmanager
    def pings(self) -> Iterator[list[Pings]]:
        """Between the pods of all nodes; every one must have been answered at the end."""
        ways = (("a", "b"), ("b", "c"), ("c", "a"))
        going = [
            Pings(
                self.cluster.netns(Place("pod", f"default/{one}")), self.cluster.address(Place("pod", f"default/{to}"))
            )
            for one, to in ways
        ]
        try:
            yield going
        finally:
            for pings in going:
                pings.end()
        figures = ", ".join(f"{pings.lost} of {pings.sent}" for pings in going)
        print(f"lost {figures}")
        assert not any(pings.lost for pings in going), f"lost {figures}"


@asynccontextmanager
async def speakers() -> AsyncIterator[Speakers]:
    """Up, all sessions established, and every node with BIRD's routes to every block."""
    read = scenario.read(CLUSTER)
    with ownership.owned(lab_name()) as directory:
        cluster = Cluster(directory.name, read.nodes, directory)
        try:
            await cluster.up(read.resources, read.namespaces, read.pods, lambda text: None)
            made = Speakers(cluster)
            await made.meshed()
            for node in NODES:

                async def there(node: str = node) -> bool:
                    return await made.knows_all_blocks(node)

                await until(there, f"BIRD's routes on {node}")
            yield made
        finally:
            await cluster.down()


async def in_namespace(namespace: str, *command: str) -> str:
    return await fabric.run("ip", "netns", "exec", namespace, *command)
