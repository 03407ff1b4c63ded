"""A lab that becomes one truth-table world after another, and says by real packets who reaches whom.

    async with PacketLab.running() as lab:
        await lab.become(resources)              what must exist now, policies and all; only the differences are done
        complaint = await lab.shows(step)        empty once its tables and probes hold, twice in a row

Three nodes of both families, the last in subnets of its own, so that packets go by one node, by plain routes and by
VXLAN. A case's nodes are the lab's in their order (labels and all); where a case has none, a pod's node follows from
its names: every namespace and every name is on all three. A pod's addresses are those that the case gives it, by
Calico's annotation; neighbours of one block live on different nodes, which is what borrowed addresses are. A pod in the
host's network is its node, with that node's addresses.

A pod that stays away from one case only (same namespace, an address that nobody else wants) is left in place: no
verdict between two others depends on it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from bus_schemas.ids import PodKey
from bus_schemas.manifests import to_manifest
from bus_schemas.resources import Namespace, Node, Pod, Resource
from tests.support import packet_beacon
from tests.support.packet_beacon import Beacon
from tests.support.packet_tables import SILENT, Expected, Field, Seen, Way, as_expected
from tests.support.truth_tables import Step, Table, Where
from tortie.lab import fabric, ownership
from tortie.lab.cluster import Cluster
from tortie.lab.scenario import NodeSpec, Place, PodSpec, Reference

DEADLINE_S: Final = 5.0
"""For a table to hold after a change."""

NODES: Final = {
    "near1": NodeSpec(address="10.0.0.11/24", address6="fd00:cab1::11/64"),
    "far1": NodeSpec(address="10.0.9.21/24", address6="fd00:cab9::21/64"),
    "near2": NodeSpec(address="10.0.0.12/24", address6="fd00:cab1::12/64"),
}
POOLS: Final = {
    # the nodes' tunnel addresses have a pool of their own: none of them may be one that a case gives to a pod
    "nine-pods": "10.244.0.0/16",
    "spread1": "10.1.0.0/16",
    "spread2": "10.2.0.0/16",
    "spread9": "10.9.0.0/16",
    "mock": "192.168.0.0/16",
    "nine-pods-v6": "fd00:10:244::/48",
    "two-families-v6": "fd00:244::/32",
    "beacon": packet_beacon.POOL,
    "tunnels": "10.251.0.0/16",
    "tunnels-v6": "fd00:10:251::/48",
}


class PacketLab:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._field = Field()
        self._beacon = Beacon("abc")
        self._namespaces: dict[str, Namespace] = {}
        self._pods: dict[PodKey, Pod] = {}
        self._policies: dict[Where, Resource] = {}
        self._node_labels: dict[str, dict[str, str]] = {}
        """What the case's nodes add to the lab's own."""
        self._at: dict[str, str] = {}
        """The case's name of a node -> the lab's."""

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
        policies = {(type(r), *r.key): r for r in wanted if not isinstance(r, Namespace | Pod | Node)}
        for where in self._policies.keys() - policies.keys():
            await self._cluster.delete(Reference(where[0].TOKEN, *where[1:]))
            del self._policies[where]
        leaving = {PodKey(*resource.key) for resource in gone if isinstance(resource, Pod)}
        owners = {address: key for key, pod in pods.items() for address in pod.status.pod_ips}
        await self._unplug(
            key
            for key, pod in self._pods.items()
            if (key not in pods and (key in leaving or key.namespace not in namespaces))
            or (key in pods and _seat(pods[key]) != _seat(pod))
            or any(owners.get(address, key) != key for address in pod.status.pod_ips)
        )
        await self._settle_nodes([resource for resource in wanted if isinstance(resource, Node)])
        for name in self._namespaces.keys() - namespaces.keys():
            await self._cluster.delete(Reference(Namespace.KIND, "", name))
            del self._namespaces[name]
        await self._cluster.add_namespaces({name: {} for name in namespaces})
        moved = {key: pod for key, pod in pods.items() if key in self._pods and self._pods[key] != pod}
        documents = [
            *(to_manifest(resource) for name, resource in namespaces.items() if self._namespaces.get(name) != resource),
            *(self._relabelled(key, pod) for key, pod in moved.items()),
            *(to_manifest(policy) for where, policy in policies.items() if self._policies.get(where) != policy),
        ]
        await self._plug({key: pod for key, pod in pods.items() if key not in self._pods})
        await self._cluster.apply("\n---\n".join(map(json.dumps, documents)))
        self._namespaces, self._policies = namespaces, policies
        self._pods |= moved

    async def _plug(self, pods: Mapping[PodKey, Pod]) -> None:
        on_hosts = {key: pod for key, pod in pods.items() if pod.spec.host_network}
        await self._cluster.start({key: self._spec(key, pod) for key, pod in pods.items() if key not in on_hosts})
        if on_hosts:
            await self._cluster.apply("\n---\n".join(json.dumps(to_manifest(pod)) for pod in on_hosts.values()))
        self._pods |= pods
        for key, pod in pods.items():
            if key in on_hosts:
                node = self._node(key, pod)
                addresses = [text.partition("/")[0] for text in NODES[node].addresses]
                families = {ip_address(address).version for address in pod.status.pod_ips}
                addresses = [address for address in addresses if ip_address(address).version in families]
                self._field.add(key, self._cluster.netns(Place("node", node)), addresses)
            else:
                plugged = self._cluster.pod(key)
                assert set(plugged.addresses) == set(pod.status.pod_ips), f"{key} was given {plugged.addresses}"
                self._field.add(key, plugged.netns, plugged.addresses)

    async def _unplug(self, keys: Iterable[PodKey]) -> None:
        leaving = list(keys)
        on_hosts = [key for key in leaving if self._pods[key].spec.host_network]
        for key in leaving:
            self._field.remove(key)
            del self._pods[key]
        await self._cluster.stop(key for key in leaving if key not in on_hosts)
        for key in on_hosts:
            await self._cluster.delete(Reference(Pod.KIND, *key))

    def _relabelled(self, key: PodKey, pod: Pod) -> object:
        """The manifest of a plugged pod with other labels or ports."""
        if pod.spec.host_network:
            return to_manifest(pod)
        plugged = self._cluster.pod(key)
        plugged.spec = self._spec(key, pod)
        return plugged.manifest()

    def _spec(self, key: PodKey, pod: Pod) -> PodSpec:
        return PodSpec(
            node=self._node(key, pod),
            labels=pod.metadata.labels,
            annotations={"cni.projectcalico.org/ipAddrs": json.dumps(pod.status.pod_ips)},
            ports={port.name: f"{port.protocol.lower()}/{port.container_port}" for port in pod.ports},
        )

    def _node(self, key: PodKey, pod: Pod) -> str:
        spread = sum(map(ord, (key.namespace[0], key.name[0]))) % len(NODES)
        return self._at.get(pod.spec.node_name) or list(NODES)[spread]

    async def _settle_nodes(self, nodes: Sequence[Node]) -> None:
        """The lab's nodes get the labels of the case's."""
        assert len(nodes) <= len(NODES), "a case with more nodes than the lab has"
        self._at = {node.metadata.name: own for node, own in zip(nodes, NODES, strict=False)}
        labels = {self._at[node.metadata.name]: node.metadata.labels for node in nodes}
        for own in NODES:
            before, now = self._node_labels.get(own, {}), labels.get(own, {})
            if before != now:
                await self._cluster.label(Reference(Node.KIND, "", own), {**dict.fromkeys(before), **now})
        self._node_labels = labels

    # --- packets

    async def shows(self, step: Step) -> str:
        """Empty as soon as the combined tables and the probes are seen twice in a row, at a glance and then thoroughly,
        with the last change in force on every node; otherwise what was seen last, thoroughly, DEADLINE_S after it."""
        combined = [table for table in step.tables if table.direction == "combined"]
        expected = dict(self._beacon.expected)
        for table in combined:
            for *ends, allowed in table.cells():
                expected |= dict.fromkeys(self._ways(*ends, table.protocol, table.port), allowed)
        for probe in step.probes:
            ways = self._ways(probe.source, probe.destination, probe.protocol, probe.port)
            expected |= {way: probe.allowed for way in ways if probe.family in (None, way.family)}
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
            difference = table.difference(
                lambda *ends, table=table: any(
                    seen[way] != SILENT for way in self._ways(*ends, table.protocol, table.port)
                )
            )
            if difference:
                yield difference

    def _ways(self, source: PodKey, destination: PodKey, protocol: str, port: int) -> list[Way]:
        """One for every family that both speak."""
        families = self._field.families(source) & self._field.families(destination)
        assert families, f"{source} and {destination} have no family of addresses in common"
        return [Way(source, destination, protocol, port, family) for family in sorted(families)]

    def _wrong(self, expected: Expected, seen: Seen) -> Iterator[str]:
        """Every wrong cell, with what was seen and between which nodes."""
        for way, allowed in expected.items():
            if not as_expected({way: allowed}, seen):
                where = " -> ".join(
                    f"{self._field.address(key, way.family)} on {self._node(key, self._pods[key])}"
                    for key in (way.source, way.destination)
                )
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


def _seat(pod: Pod) -> object:
    """What only another container can change."""
    return pod.status.pod_ips, pod.spec.node_name, pod.spec.host_network


def _pools() -> list[object]:
    return [
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": name},
            "spec": {
                "cidr": cidr,
                "vxlanMode": "CrossSubnet",
                "allowedUses": ["Tunnel" if name.startswith("tunnels") else "Workload"],
            },
        }
        for name, cidr in POOLS.items()
    ]


def _quiet(phase: str) -> None:
    """Nobody watches."""
