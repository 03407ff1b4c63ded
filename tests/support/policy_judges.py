"""Those who say what policy means: fed with resources, asked for cells of truth tables.

    CompiledJudge   the compiler's messages, walked as `bus_schemas.policy` describes them
    RenderedJudge   the rules that the kernel would hold for them, evaluated

Both have every pod on one node, plugged in with the address of its status as soon as it is put. The third judge, real
packets, needs a lab: `packet_lab`.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Protocol

from bus_schemas.ids import PodKey
from bus_schemas.resources import Pod, Resource
from bus_schemas.subjects import ATTACHMENT, DESIRED, ENDPOINT, GROUP, RULES, Fact
from services.node_dataplane.nft.table import PolicyTable
from services.policy_compiler.core import Changes, Core
from tests.support import compiled_policy, nft_evaluator
from tests.support.compiled_policy import NUMBERS, CompiledPolicy
from tests.support.nft_evaluator import Nftables
from tests.support.nft_worlds import settle
from tests.support.policy_worlds import desired, endpoint
from tests.support.truth_tables import Table

NODE = "node1"


class Judge(Protocol):
    def put(self, resource: Resource) -> None: ...

    def delete(self, resource: Resource) -> None: ...

    def settle(self) -> None:
        """After this, everything put and deleted is in force."""

    def reaches(self, table: Table, source: PodKey, destination: PodKey) -> bool:
        """The verdict on the table's port and protocol, of the table's direction."""


class CompiledJudge:
    def __init__(self) -> None:
        self._core = Core()
        self._policy = CompiledPolicy()
        self._addresses: dict[PodKey, str] = {}

    def put(self, resource: Resource) -> None:
        self._core.apply(desired(resource))
        if isinstance(resource, Pod):
            (address,) = resource.status.pod_ips
            key = PodKey(*resource.key)
            self._addresses[key] = address
            self._core.apply(endpoint(str(key), address, node=NODE))

    def delete(self, resource: Resource) -> None:
        self._core.apply(Fact(DESIRED[type(resource)], resource.key, None))
        if isinstance(resource, Pod):
            key = PodKey(*resource.key)
            self._core.apply(endpoint(str(key), self._addresses.pop(key), node=NODE)._replace(value=None))

    def settle(self) -> None:
        self._policy.take(self._core.flush())
        assert not self._policy.complaints()
        assert not self._core.faults

    def reaches(self, table: Table, source: PodKey, destination: PodKey) -> bool:
        ends = (self._addresses[source], self._addresses[destination])
        packet = compiled_policy.Packet(*ends, NUMBERS[table.protocol], table.port)
        egress = table.direction == "ingress" or self._policy.allows("egress", (NODE, *source), packet)
        ingress = table.direction == "egress" or self._policy.allows("ingress", (NODE, *destination), packet)
        return ingress and egress


class RenderedJudge:
    def __init__(self) -> None:
        self._core, self._table, self._nft = Core(), PolicyTable(), Nftables()
        self._addresses: dict[PodKey, str] = {}

    def put(self, resource: Resource) -> None:
        self._core.apply(desired(resource))
        if isinstance(resource, Pod):
            (address,) = resource.status.pod_ips
            key = PodKey(*resource.key)
            self._addresses[key] = address
            self._core.apply(endpoint(str(key), address, node=NODE))
            self._table.set_endpoint(key, _link(key), (address,), "c1")

    def delete(self, resource: Resource) -> None:
        self._core.apply(Fact(DESIRED[type(resource)], resource.key, None))
        if isinstance(resource, Pod):
            key = PodKey(*resource.key)
            del self._addresses[key]
            self._core.apply(Fact(ENDPOINT, (NODE, *key), None))
            self._table.remove_endpoint(key)

    def settle(self) -> None:
        for fact in _facts(self._core.flush()):
            self._table.apply(fact)
        flush = settle(self._table, self._nft)
        assert not flush.blocked
        assert flush.programmed == self._addresses.keys()

    def reaches(self, table: Table, source: PodKey, destination: PodKey) -> bool:
        ends = (self._addresses[source], self._addresses[destination])
        packet = nft_evaluator.Packet(*ends, NUMBERS[table.protocol], table.port)
        if table.direction != "ingress":
            packet = replace(packet, in_link=_link(source))
        if table.direction != "egress":
            packet = replace(packet, out_link=_link(destination))
        return self._nft.send(packet).accepted


def _link(key: PodKey) -> str:
    return f"tor{zlib.crc32(str(key).encode()):08x}"


def _facts(changes: Changes) -> list[Fact]:
    return [
        *(Fact(GROUP, (id_, str(segment)), value) for (id_, segment), value in changes.groups.items()),
        *(Fact(RULES, (id_,), value) for id_, value in changes.rules.items()),
        *(Fact(ATTACHMENT, key, value) for key, value in changes.attachments.items()),
    ]
