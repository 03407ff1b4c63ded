"""A lab that becomes one truth-table world after another, and says by real packets who reaches whom.

    async with PacketLab.running() as lab:
        await lab.become(resources)              what must exist now, policies and all; only the differences are done
        complaint = await lab.shows(tables)      empty once the tables hold, twice in a row

Three nodes, the last in a subnet of its own, so that packets go by one node, by plain routes and by VXLAN. A pod's node
follows from its names: every namespace and every name is on all three. Its address is the one that the case gives it,
by Calico's annotation; neighbours of one block live on different nodes, which is what borrowed addresses are. The lab's
uplinks speak IPv4, so pods with IPv6 addresses share a node.

A pod that stays away from one case only (same namespace, same address) is left in place: no verdict between two others
depends on it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bus_schemas.ids import PodKey
from bus_schemas.manifests import to_manifest
from bus_schemas.resources import KubernetesNetworkPolicy, Namespace, Pod, Resource
from tests.support import packet_beacon
from tests.support.packet_beacon import Beacon
from tests.support.packet_tables import SILENT, Expected, Field, Seen, Way, as_expected
from tests.support.truth_tables import Table
from tortie.lab import fabric, ownership
from tortie.lab.cluster import Cluster
from tortie.lab.scenario import NodeSpec, PodSpec, Reference

DEADLINE_S: Final = 5.0
"""For a table to hold after a change."""

NODES: Final = {
    "near1": NodeSpec(address="10.0.0.11/24"),
    "near2": NodeSpec(address="10.0.0.12/24"),
    "far1": NodeSpec(address="10.0.9.21/24"),
}
POOLS: Final = {
    # the nodes' tunnel addresses have a pool of their own: none of them may be one that a case gives to a pod
    "nine-pods": "10.244.0.0/16",
    "spread1": "10.1.0.0/16",
    "spread2": "10.2.0.0/16",
    "spread9": "10.9.0.0/16",
    "mock": "192.168.0.0/16",
    "nine-pods-v6": "fd00:10:244::/48",
    "beacon": packet_beacon.POOL,
    "tunnels": "10.251.0.0/16",
}


class PacketLab:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._field = Field()
        self._beacon = Beacon("abc")
        self._namespaces: dict[str, Namespace] = {}
        self._pods: dict[PodKey, Pod] = {}
        self._policies: dict[PodKey, KubernetesNetworkPolicy] = {}

    @staticmethod
    @asynccontextmanager
    async def running() -> AsyncIterator[PacketLab]:
        name = f"packets{os.getpid()}"
        with ownership.owned(name) as directory:
            cluster = Cluster(name, NODES, directory)
            lab = PacketLab(cluster)
            try:
                await cluster.up(json.dumps({"apiVersion": "v1", "kind": "List", "items": _pools()}), {}, {}, _quiet)
                yield lab
                assert not cluster.fates(), cluster.fates()
            finally:
                lab._field.close()
                await cluster.down()

    # --- resources

    async def become(self, resources: Iterable[Resource], gone: Iterable[Resource] = ()) -> None:
        """Every one of these, no other policy, and no pod or namespace that is `gone` or foreign to these."""
        self._beacon.next_turn()
        wanted = [*resources, *self._beacon.standing, self._beacon.policy]
        namespaces = {r.metadata.name: r for r in wanted if isinstance(r, Namespace)}
        pods = {PodKey(*r.key): r for r in wanted if isinstance(r, Pod)}
        policies = {PodKey(*r.key): r for r in wanted if isinstance(r, KubernetesNetworkPolicy)}
        for key in self._policies.keys() - policies.keys():
            await self._cluster.delete(Reference(KubernetesNetworkPolicy.TOKEN, *key))
            del self._policies[key]
        leaving = {PodKey(*resource.key) for resource in gone if isinstance(resource, Pod)}
        await self._unplug(
            key
            for key, pod in self._pods.items()
            if (key not in pods and (key in leaving or key.namespace not in namespaces))
            or (key in pods and pods[key].status.pod_ips != pod.status.pod_ips)
        )
        for name in self._namespaces.keys() - namespaces.keys():
            await self._cluster.delete(Reference(Namespace.KIND, "", name))
            del self._namespaces[name]
        await self._cluster.add_namespaces({name: {} for name in namespaces})
        moved = {key: pod for key, pod in pods.items() if key in self._pods and self._pods[key] != pod}
        documents = [
            *(to_manifest(resource) for name, resource in namespaces.items() if self._namespaces.get(name) != resource),
            *(self._relabelled(key, pod) for key, pod in moved.items()),
            *(to_manifest(policy) for key, policy in policies.items() if self._policies.get(key) != policy),
        ]
        await self._plug({key: pod for key, pod in pods.items() if key not in self._pods})
        await self._cluster.apply("\n---\n".join(map(json.dumps, documents)))
        self._namespaces, self._policies = namespaces, policies
        self._pods |= moved

    async def _plug(self, pods: Mapping[PodKey, Pod]) -> None:
        await self._cluster.start({key: _spec(key, pod) for key, pod in pods.items()})
        for key, pod in pods.items():
            self._pods[key] = pod
            plugged = self._cluster.pod(key)
            assert plugged.addresses == pod.status.pod_ips, f"{key} was given {plugged.addresses}"
            self._field.add(key, plugged.netns, plugged.addresses[0])

    async def _unplug(self, keys: Iterable[PodKey]) -> None:
        leaving = list(keys)
        for key in leaving:
            self._field.remove(key)
            del self._pods[key]
        await self._cluster.stop(leaving)

    def _relabelled(self, key: PodKey, pod: Pod) -> object:
        """The manifest of a plugged pod with other labels or ports."""
        plugged = self._cluster.pod(key)
        plugged.spec = _spec(key, pod)
        return plugged.manifest()

    # --- packets

    async def shows(self, tables: Sequence[Table]) -> str:
        """Empty as soon as the combined tables are seen twice in a row, at a glance and then thoroughly, with the last
        change in force on every node; otherwise what was seen last, thoroughly, DEADLINE_S after it."""
        combined = [table for table in tables if table.direction == "combined"]
        expected = dict(self._beacon.expected)
        for table in combined:
            expected |= {_way(table, *ends): allowed for *ends, allowed in table.cells()}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_S
        while True:
            late = loop.time() > deadline
            if late or as_expected(expected, await self._field.glance(expected)):
                seen = await self._field.stare(expected)
                if as_expected(expected, seen):
                    return ""
                if late:
                    return "\n".join((*self._differences(combined, seen), *self._wrong(expected, seen)))

    def _differences(self, tables: Iterable[Table], seen: Seen) -> Iterator[str]:
        for table in tables:
            difference = table.difference(lambda *ends, table=table: seen[_way(table, *ends)] != SILENT)
            if difference:
                yield difference

    def _wrong(self, expected: Expected, seen: Seen) -> Iterator[str]:
        """Every wrong cell, with what was seen and between which nodes."""
        for way, allowed in expected.items():
            if not as_expected({way: allowed}, seen):
                ends = (self._cluster.pod(key) for key in (way.source, way.destination))
                where = " -> ".join(f"{pod.addresses[0]} on {pod.spec.node}" for pod in ends)
                yield f"  {way} ({where}): {'an answer' if allowed else 'silence'} expected, seen: {seen[way]}"

    async def evidence(self, directory: Path) -> str:
        """Keeps what the nodes hold and what everybody logged; says where."""
        shutil.copytree(self._cluster.directory / "log", directory / "log", dirs_exist_ok=True)
        for node, host in self._cluster.topology.nodes.items():
            for file, command in (
                ("nft", ("nft", "list", "table", "inet", "tortie")),
                ("routes", ("ip", "route")),
                ("routes6", ("ip", "-6", "route")),
            ):
                text = await fabric.run("ip", "netns", "exec", host.netns, *command)
                (directory / f"{node}.{file}").write_text(text)
        manifests = (*self._namespaces.values(), *self._pods.values(), *self._policies.values())
        (directory / "resources.json").write_text("\n".join(json.dumps(to_manifest(r)) for r in manifests))
        return f"rules and routes of the nodes, logs and resources: {directory}"


def _way(table: Table, source: PodKey, destination: PodKey) -> Way:
    return Way(source, destination, table.protocol, table.port)


def _spec(key: PodKey, pod: Pod) -> PodSpec:
    address = pod.status.pod_ips[0]
    spread = sum(map(ord, (key.namespace[0], key.name[0]))) % len(NODES)
    return PodSpec(
        node="near1" if ":" in address else list(NODES)[spread],
        labels=pod.metadata.labels,
        annotations={"cni.projectcalico.org/ipAddrs": json.dumps([address])},
        ports={port.name: f"{port.protocol.lower()}/{port.container_port}" for port in pod.ports},
    )


def _pools() -> list[object]:
    return [
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": name},
            "spec": {
                "cidr": cidr,
                "vxlanMode": "Never" if ":" in cidr else "CrossSubnet",
                "allowedUses": ["Tunnel" if name == "tunnels" else "Workload"],
            },
        }
        for name, cidr in POOLS.items()
    ]


def _quiet(phase: str) -> None:
    """Nobody watches."""
