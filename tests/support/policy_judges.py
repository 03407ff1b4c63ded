"""Those who say what policy means: fed with resources, asked who reaches whom.

    OracleJudge     the manifests themselves, read anew for every packet
    CompiledJudge   the compiler's messages, walked as `bus_schemas.verdicts` reads them
    RenderedJudge   the rules that the kernel would hold for them, evaluated; also where every direction is shared

They have every pod on one node, plugged in with the addresses of its status as soon as it is put. A pod in the host's
network, and any address that is nobody's, has no policy of its own and is reached by the node's uplink. The fourth
judge, real packets, needs a lab: `packet_lab`.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Literal, Protocol

from bus_schemas.ids import PodKey
from bus_schemas.resources import Pod, Resource
from bus_schemas.subjects import DESIRED, ENDPOINT, Fact
from services.node_dataplane.nft.table import PolicyTable
from services.policy_compiler.core import Core
from services.policy_compiler.directions import LONGEST
from tests.support import compiled_policy, nft_evaluator
from tests.support.compiled_policy import NUMBERS, CompiledPolicy, facts_of
from tests.support.expanders import by_key
from tests.support.nft_evaluator import Nftables
from tests.support.nft_worlds import settle
from tests.support.policy_oracle import Oracle
from tests.support.policy_worlds import desired, endpoint
from tests.support.truth_tables import Probe, Step, Table

NODE = "node1"

Way = Literal["ingress", "egress"]
Connection = compiled_policy.Packet
"""Its first packet."""


class Judge(Protocol):
    def put(self, resource: Resource) -> None: ...

    def delete(self, resource: Resource) -> None: ...

    def settle(self) -> None:
        """After this, everything put and deleted is in force."""

    def reaches(self, table: Table, source: PodKey, destination: PodKey) -> bool:
        """The verdict on the table's port and protocol, of the table's direction."""

    def agrees(self, probe: Probe) -> bool:
        """Whether all that the probe asks for is as it expects."""


class MemoryJudge(ABC):
    """What the three have in common: which pods there are, and that two directions make a connection."""

    def __init__(self) -> None:
        self._pods: dict[PodKey, Pod] = {}
        self._governed: dict[object, PodKey] = {}
        """Address -> pod with policy of its own."""

    def put(self, resource: Resource) -> None:
        self._told(desired(resource))
        if isinstance(resource, Pod):
            key = PodKey(*resource.key)
            self._pods[key] = resource
            self._governed = self._by_address()
            if not resource.spec.host_network:
                self._told(endpoint(str(key), *resource.status.pod_ips, node=NODE))

    def delete(self, resource: Resource) -> None:
        self._told(Fact(DESIRED[type(resource)], resource.key, None))
        if isinstance(resource, Pod):
            key = PodKey(*resource.key)
            del self._pods[key]
            self._governed = self._by_address()
            if not resource.spec.host_network:
                self._told(endpoint(str(key), node=NODE)._replace(value=None))

    def become(self, step: Step) -> None:
        """A step's changes, in force."""
        for resource in step.delete:
            self.delete(resource)
        for resource in step.put:
            self.put(resource)
        self.settle()

    def reaches(self, table: Table, source: PodKey, destination: PodKey) -> bool:
        """By every family that both have."""
        ways: tuple[Way, ...] = ("egress", "ingress") if table.direction == "combined" else (table.direction,)
        return all(self._pairs(source, destination, None, table.protocol, table.port, ways))

    def agrees(self, probe: Probe) -> bool:
        seen = self._pairs(probe.source, probe.destination, probe.family, probe.protocol, probe.port)
        return seen == [probe.allowed] * len(seen)

    def _pairs(
        self,
        source: PodKey,
        destination: PodKey,
        family: int | None,
        protocol: str,
        port: int,
        ways: tuple[Way, ...] = ("egress", "ingress"),
    ) -> list[bool]:
        seen = []
        for one in self._pods[source].status.pod_ips:
            for other in self._pods[destination].status.pod_ips:
                version = ip_address(one).version
                if version == ip_address(other).version and family in (None, version):
                    seen.append(self.passes(Connection(one, other, NUMBERS[protocol], port), ways))
        assert seen, f"{source} and {destination} have no address of one family"
        return seen

    def passes(self, packet: Connection, ways: tuple[Way, ...] = ("egress", "ingress")) -> bool:
        """What the policies of the pods at the two addresses say, one direction or both."""
        return self._passes(
            packet,
            self._at(packet.source) if "egress" in ways else None,
            self._at(packet.destination) if "ingress" in ways else None,
        )

    def _at(self, address: str) -> PodKey | None:
        """The pod with a policy at the address."""
        return self._governed.get(ip_address(address))

    def _by_address(self) -> dict[object, PodKey]:
        plugged = [(key, a) for key, p in self._pods.items() if not p.spec.host_network for a in p.status.pod_ips]
        found: dict[object, PodKey] = {ip_address(address): key for key, address in plugged}
        assert len(found) == len(plugged), f"two pods have one address: {plugged}"
        return found

    @property
    def _plugged_pods(self) -> set[PodKey]:
        return {key for key, pod in self._pods.items() if not pod.spec.host_network}

    @abstractmethod
    def _told(self, fact: Fact) -> None: ...

    @abstractmethod
    def settle(self) -> None: ...

    @abstractmethod
    def _passes(self, packet: Connection, source: PodKey | None, destination: PodKey | None) -> bool:
        """The pods whose policy is asked."""


class OracleJudge(MemoryJudge):
    def __init__(self) -> None:
        super().__init__()
        self._facts: list[Fact] = []
        self._oracle = Oracle(())

    def _told(self, fact: Fact) -> None:
        self._facts.append(fact)

    def settle(self) -> None:
        self._facts = list(by_key(self._facts).values())
        self._oracle = Oracle(self._facts)

    def _passes(self, packet: Connection, source: PodKey | None, destination: PodKey | None) -> bool:
        return (source is None or self._oracle.allows("egress", (NODE, *source), packet)) and (
            destination is None or self._oracle.allows("ingress", (NODE, *destination), packet)
        )


class CompiledJudge(MemoryJudge):
    def __init__(self, *, faults: bool = False) -> None:
        """`faults`: what cannot be compiled is part of the case."""
        super().__init__()
        self._core = Core()
        self._policy = CompiledPolicy()
        self._may_be_faulty = faults

    @property
    def faults(self) -> list[str]:
        return [f"{fault.object}: {fault.message}" for fault in self._core.faults]

    def _told(self, fact: Fact) -> None:
        self._core.apply(fact)

    def settle(self) -> None:
        self._policy.take(self._core.flush())
        assert not self._policy.complaints()
        assert self._may_be_faulty or not self.faults

    def _passes(self, packet: Connection, source: PodKey | None, destination: PodKey | None) -> bool:
        return (source is None or self._policy.allows("egress", (NODE, *source), packet)) and (
            destination is None or self._policy.allows("ingress", (NODE, *destination), packet)
        )


class RenderedJudge(MemoryJudge):
    def __init__(self, *, longest_direction: int = LONGEST) -> None:
        super().__init__()
        self._core, self._table, self._nft = Core(longest_direction=longest_direction), PolicyTable(), Nftables()

    def _told(self, fact: Fact) -> None:
        self._core.apply(fact)
        if fact.family == ENDPOINT:
            pod = PodKey(*fact.key[1:])
            if fact.value is None:
                self._table.remove_endpoint(pod)
            else:
                self._table.set_endpoint(pod, _link(pod), fact.value.addresses, fact.value.container)

    def settle(self) -> None:
        for fact in facts_of(self._core.flush()):
            self._table.apply(fact)
        flush = settle(self._table, self._nft)
        assert not flush.blocked
        assert flush.programmed == self._plugged_pods

    def _passes(self, packet: Connection, source: PodKey | None, destination: PodKey | None) -> bool:
        seen = nft_evaluator.Packet(
            packet.source,
            packet.destination,
            packet.protocol,
            packet.port,
            packet.source_port,
            icmp_type=packet.port,
            icmp_code=packet.code,
        )
        if source is not None:
            seen = replace(seen, in_link=_link(source))
        if destination is not None:
            seen = replace(seen, out_link=_link(destination))
        return self._nft.send(seen).accepted


JUDGES: dict[str, Callable[[], MemoryJudge]] = {
    "oracle": OracleJudge,
    "compiled": CompiledJudge,
    "rendered": RenderedJudge,
    "shared": lambda: RenderedJudge(longest_direction=0),
}
FORGIVING: dict[str, Callable[[], MemoryJudge]] = {**JUDGES, "compiled": lambda: CompiledJudge(faults=True)}
"""The same, for cases that hold what cannot be compiled."""


def _link(key: PodKey) -> str:
    return f"tor{zlib.crc32(str(key).encode()):08x}"
