"""A cluster that exists on paper: the real policy compiler, told of resources and pods, and the verdicts on flows.

put, delete, plug, unplug --> Core (services.policy_compiler) --settle--> Snapshot + attachments --way--> WayReport
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bus_schemas.endpoints import Endpoint
from bus_schemas.explanations import WayReport, way_report
from bus_schemas.ids import DirectionId, NodeName, PodKey
from bus_schemas.policy import Attachment, Direction, HostAttachment, Way
from bus_schemas.policy_snapshot import Snapshot
from bus_schemas.resources import Resource
from bus_schemas.shared_directions import unfold
from bus_schemas.subjects import DESIRED, ENDPOINT, Fact
from bus_schemas.verdicts import Flow
from services.policy_compiler.core import Core

_CONTAINER = "offline"


class OfflineCluster:
    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self.resources: dict[tuple[type[Resource], tuple[str, str]], Resource] = {}
        self.world = Snapshot()
        self.attachments: dict[PodKey, Attachment] = {}
        self.hosts: dict[tuple[str, str], HostAttachment] = {}
        """By node and name."""
        self.faults: list[str] = []
        """What the compiler could not compile and closed instead."""
        self._core = Core()
        self._directions: dict[DirectionId, Direction] = {}
        self._nodes: dict[PodKey, str] = {}
        for resource in resources:
            self.put(resource)

    def put(self, resource: Resource) -> None:
        kind = type(resource)
        self.resources[kind, resource.key] = resource
        self._core.apply(Fact(DESIRED[kind], resource.key, resource))

    def delete(self, kind: type[Resource], key: tuple[str, str]) -> bool:
        """Whether it was there."""
        if self.resources.pop((kind, key), None) is None:
            return False
        self._core.apply(Fact(DESIRED[kind], key, None))
        return True

    def plug(self, key: PodKey, node: str, addresses: tuple[str, ...], **about: Any) -> None:
        """The pod is on the network; `about` are further fields of its Endpoint."""
        self._nodes[key] = node
        endpoint = Endpoint(
            node=NodeName(node),
            namespace=key.namespace,
            name=key.name,
            container=_CONTAINER,
            link="",
            addresses=addresses,
            **about,
        )
        self._core.apply(Fact(ENDPOINT, (node, *key), endpoint))

    def unplug(self, key: PodKey) -> None:
        node = self._nodes.pop(key)
        self._core.apply(Fact(ENDPOINT, (node, *key), None))

    def settle(self) -> None:
        """Compiles what was told."""
        changes = self._core.flush()
        for (group, at), value in changes.groups.items():
            self.world.set_group(group, at, value)
        for id, rules in changes.rules.items():
            self.world.set_rules(id, rules)
        for direction, shared in changes.directions.items():
            if shared is None:
                del self._directions[direction]
            else:
                self._directions[direction] = shared.direction
        for where, attachment in changes.attachments.items():
            key = PodKey(where.namespace, where.name)
            if attachment is not None:
                self.attachments[key] = unfold(attachment, self._directions)
            elif (known := self.attachments.get(key)) is not None and known.node == where.node:
                del self.attachments[key]
        for host, compiled in changes.hosts.items():
            if compiled is not None:
                self.hosts[host.node, host.name] = unfold(compiled, self._directions)
            else:
                self.hosts.pop((host.node, host.name), None)
        self.faults = [f"{fault.object}: {fault.message}" for fault in self._core.faults]

    def hosts_of(self, node: str) -> list[HostAttachment]:
        return [host for (at, _), host in sorted(self.hosts.items()) if at == node]

    def way(self, key: PodKey, way: Way, flow: Flow) -> WayReport:
        """What the pod's policies say of the flow."""
        attachment = self.attachments.get(key)
        if attachment is None:
            because = "nothing is compiled for it, so its node would drop everything"
            return WayReport(way=way, endpoint=str(key), action="deny", because=because, steps=())
        direction: Direction = getattr(attachment, way)
        return way_report(str(key), direction, way, flow, self.world)
