"""A scenario's allow and deny lines judged by compiled policy alone: no kernel, no bus, no root.

Pods get addresses of the pools that the file has (or of 10.244.0.0/16), each node a block of its own, so `@ip(...)` and
`@block(...)` stand for something. What policy does not decide is not judged, and is counted: routes and other tables of
the kernel, commands, packets on the wire; and lines where the answer depends on whether they go through a tunnel; and
what a node under a host endpoint sends and receives itself (failsafe ports are its agent's).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import Any, Literal

import msgspec

from bus_schemas.explanations import WayReport
from bus_schemas.ids import PodKey
from bus_schemas.manifests import Rejected
from bus_schemas.manifests import read as read_manifests
from bus_schemas.resources import IPPool, Namespace, Pod, Resource, Service
from bus_schemas.resources.metadata import Metadata
from bus_schemas.verdict_words import NUMBERS
from bus_schemas.verdicts import Flow
from services.api.explain_hosts import EVERY, Device, Hop, on_the_way
from services.api.kinds import kinds_named
from tortie.lab import placeholders, scenario
from tortie.lab.checks import ROLES
from tortie.lab.errors import CannotDo, LabError, ScenarioFault
from tortie.lab.placeholders import Memory, Placeholder
from tortie.lab.scenario import (
    Action,
    Apply,
    Delete,
    Expect,
    Kill,
    Label,
    LabelChange,
    Place,
    PodSpec,
    Reference,
    Revive,
    Scenario,
    Start,
    Stop,
    Traffic,
)
from tortie.policy.offline import OfflineCluster

POD_POOL = "10.244.0.0/16"
_BLOCK_BITS = 6
"""Addresses of one node's block: 2^6."""

NOT_JUDGED = ("routes", "no_routes", "neighbours", "fdb", "wire", "mtu", "refuse", "seen", "command")
"""Expectations that need a kernel."""


@dataclass(frozen=True)
class Check:
    step: str
    kind: Literal["allow", "deny"]
    traffic: str
    outcome: Literal["ok", "FAIL", "not judged"]
    why: str = ""
    """What decided, or why it is not judged."""
    ways: tuple[WayReport, ...] = ()
    """The path to the verdict."""


@dataclass
class Result:
    source: str
    name: str
    checks: list[Check] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    """Expectations of other kinds."""
    fault: str = ""
    """Why the file could not be judged to its end."""
    warnings: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if check.outcome == "FAIL"]

    @property
    def passed(self) -> bool:
        return not self.fault and not self.failures


def judge(wanted: Scenario, source: str, manifests: Iterable[Resource] = ()) -> Result:
    """Every step of the scenario; `manifests` are there from the beginning."""
    result = Result(source, wanted.name)
    try:
        run = _Run(wanted, manifests)
        for step in wanted.steps:
            for action in step.actions:
                run.do(action)
            result.checks += run.checks(step.do, step.expect)
            result.not_judged += (f"{step.do}: {kind}" for kind in NOT_JUDGED if getattr(step.expect, kind))
        result.warnings = sorted(run.warnings)
    except LabError as error:
        result.fault = str(error)
    return result


class _Run:
    def __init__(self, wanted: Scenario, manifests: Iterable[Resource]) -> None:
        self._nodes = wanted.nodes
        self._cluster = OfflineCluster()
        self._memory = Memory(placeholders.find(wanted.text))
        self._pods: dict[PodKey, tuple[PodSpec, str]] = {}
        """With its address."""
        self._taken: dict[str, int] = {}
        """Node -> addresses given out."""
        self.warnings: set[str] = set()
        self._namespaces = dict(wanted.namespaces)
        self._pool: IPv4Network | IPv6Network = ip_network(POD_POOL)
        for name in ("default", *wanted.namespaces, *(key.namespace for key in wanted.pods)):
            self._ensure_namespace(name)
        self._learn_blocks()
        start = [*_resources(wanted.resources), *manifests]
        pools = [r for r in start if isinstance(r, IPPool) and not r.spec.disabled]
        if pools:
            self._pool = ip_network(pools[0].spec.cidr)
            self._learn_blocks()
        for name, spec in wanted.nodes.items():
            addresses = {"ipv6Address" if ":" in text else "ipv4Address": text for text in spec.addresses}
            labels = {"kubernetes.io/hostname": name, **spec.labels}
            metadata = {"name": name, "labels": labels}
            self._describe(
                {
                    "apiVersion": "projectcalico.org/v3",
                    "kind": "Node",
                    "metadata": metadata,
                    "spec": {"bgp": addresses},
                }
            )
        for resource in start:
            self._put(resource)
        self._start(wanted.pods)

    def _describe(self, manifest: dict[str, Any]) -> None:
        for resource in _resources(json.dumps(manifest)):
            self._cluster.put(resource)

    # --- actions

    def do(self, action: Action) -> None:
        """Raises LabError."""
        match action:
            case Apply(manifests):
                for resource in _resources(self._memory.fill(manifests, ROLES)):
                    self._put(resource)
            case Delete(what):
                for reference in what:
                    self._delete(reference)
            case Label(changes):
                for reference, change in changes.items():
                    self._label(reference, change)
            case Start(pods):
                self._start(pods)
            case Stop(keys):
                for key in keys:
                    self._cluster.unplug(key)
                    self._cluster.delete(Pod, (key.namespace, key.name))
                    del self._pods[key]
            case Kill() | Revive():
                pass  # Who enforces a policy decides nothing about what it says.

    def _put(self, resource: Resource) -> None:
        if resource.metadata.namespace:
            self._ensure_namespace(resource.metadata.namespace)
        if isinstance(resource, Namespace):
            labels = {**resource.metadata.labels, "kubernetes.io/metadata.name": resource.metadata.name}
            resource = _relabelled(resource, labels)
        self._cluster.put(resource)

    def _ensure_namespace(self, name: str) -> None:
        if (Namespace, ("", name)) not in self._cluster.resources:
            labels = {**self._namespaces.get(name, {}), "kubernetes.io/metadata.name": name}
            self._cluster.put(Namespace(metadata=Metadata(name=name, labels=labels)))

    def _delete(self, what: Reference) -> None:
        kinds = kinds_named(what.kind)
        if not any(self._cluster.delete(kind, (what.namespace, what.name)) for kind in kinds):
            raise CannotDo(f"{what} is not there to be deleted")

    def _label(self, what: Reference, change: LabelChange) -> None:
        for kind in kinds_named(what.kind):
            known = self._cluster.resources.get((kind, (what.namespace, what.name)))
            if known is not None:
                labels = {**known.metadata.labels, **{key: value for key, value in change.items() if value is not None}}
                kept = {key: value for key, value in labels.items() if change.get(key, "") is not None}
                self._cluster.put(_relabelled(known, kept))
                return
        raise CannotDo(f"{what} is not there to be labelled")

    def _start(self, pods: Mapping[PodKey, PodSpec]) -> None:
        for key, spec in pods.items():
            self._ensure_namespace(key.namespace)
            addresses = spec.addresses or (self._address(spec),)
            address = addresses[0]
            ports = [
                {"name": name, "protocol": protocol.upper(), "containerPort": number}
                for name, (protocol, number) in ((name, scenario.port(text)) for name, text in spec.ports.items())
            ]
            manifest = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"namespace": key.namespace, "name": key.name, "labels": dict(spec.labels)},
                "spec": {
                    "nodeName": spec.node,
                    "serviceAccountName": spec.service_account,
                    "containers": [{"name": "main", "ports": ports}],
                },
            }
            self._describe(manifest)
            self._cluster.plug(key, spec.node, addresses)
            self._pods[key] = spec, address
            self._memory.learn({Placeholder("ip", str(key)): address, Placeholder("link", str(key)): "eth0"})

    # --- addresses

    def _block(self, node: str) -> IPv4Network | IPv6Network:
        bits = self._pool.max_prefixlen - _BLOCK_BITS
        first = int(self._pool.network_address) + (list(self._nodes).index(node) << _BLOCK_BITS)
        return ip_network((first, max(bits, self._pool.prefixlen)))

    def _learn_blocks(self) -> None:
        for node in self._nodes:
            block = self._block(node)
            self._memory.learn(
                {Placeholder("block", node): str(block), Placeholder("vtep", node): str(block.network_address)}
            )

    def _address(self, spec: PodSpec) -> str:
        asked = spec.annotations.get("cni.projectcalico.org/ipAddrs", "")
        if asked:
            return str(json.loads(asked)[0])
        at = self._taken[spec.node] = self._taken.get(spec.node, 0) + 1
        if at >= (1 << _BLOCK_BITS) - 1:
            raise ScenarioFault(f"more than {at - 1} pods on {spec.node}: spread them over more nodes")
        return str(self._block(spec.node).network_address + at)

    # --- checks

    def checks(self, step: str, expect: Expect) -> Iterator[Check]:
        self._cluster.settle()
        self.warnings.update(self._cluster.faults)
        for kind, lines in (("allow", expect.allow), ("deny", expect.deny)):
            for line in lines:
                yield self._check(step, "allow" if kind == "allow" else "deny", line)

    def _check(self, step: str, kind: Literal["allow", "deny"], line: str) -> Check:
        way = scenario.traffic(self._memory.fill(line, ROLES))
        if any(end.kind == "node" and self._cluster.hosts_of(end.name) for end in (way.source, way.destination)):
            return Check(step, kind, line, "not judged", "a host endpoint governs the node: `tortie lab run` tells")
        if service := self._translated(way):
            return Check(step, kind, line, "not judged", f"nodes translate what is {service}'s: `tortie lab run` tells")
        way, destination = self._aimed(way)
        answers = [
            self._ways(way, address, destination, tunnel)
            for address in self._sources(way, destination)
            for tunnel in (False, *self._tunnels)
        ]
        verdicts = {all(report.action == "allow" for report in reports) for reports in answers}
        if len(verdicts) > 1:
            return Check(step, kind, line, "not judged", "through a tunnel the answer is another than without")
        allowed, reports = verdicts.pop(), answers[0]
        deciding = next((r for r in reports if r.action == "deny"), None)
        why = "; ".join(f"{r.way} of {r.endpoint}: {r.because}" for r in ([deciding] if deciding else reports))
        return Check(step, kind, line, "ok" if allowed == (kind == "allow") else "FAIL", why, tuple(reports))

    def _translated(self, way: Traffic) -> str:
        """The Service whose address or node port the destination is; empty: of none."""
        address = self._addresses(way.destination)[0]
        of_node = any(address in self._addresses(Place("node", node)) for node in self._nodes)
        for resource in self._cluster.resources.values():
            if isinstance(resource, Service):
                spec, balanced = resource.spec, (each.ip for each in resource.status.load_balancer_ingress)
                own = address in (*spec.cluster_ips, *spec.external_ips, *balanced)
                if own or (of_node and any(port.node_port and port.node_port == way.port for port in spec.ports)):
                    return f"Service {resource.metadata.namespace}/{resource.metadata.name}"
        return ""

    @property
    def _tunnels(self) -> tuple[bool, ...]:
        """Empty: nothing goes through a tunnel."""
        pools = (r.spec for r in self._cluster.resources.values() if isinstance(r, IPPool) and not r.spec.disabled)
        return (True,) if any((pool.vxlan_mode, pool.ipip_mode) != ("Never", "Never") for pool in pools) else ()

    def _aimed(self, way: Traffic) -> tuple[Traffic, str]:
        """The traffic and the address that it goes to; what goes to an address of a pod goes to the pod."""
        if way.destination.kind == "ip":
            address = str(ip_address(way.destination.name))
            for key, (spec, own) in self._pods.items():
                if address in (own, *spec.addresses):
                    return replace(way, destination=Place("pod", str(key))), address
        return way, self._addresses(way.destination)[0]

    def _ways(self, way: Traffic, source: str, destination: str, tunnel: bool) -> list[WayReport]:
        protocol = NUMBERS[way.protocol.upper()]
        ours, theirs = ip_address(source), ip_address(destination)
        ping = {"icmp_type": 8 if ours.version == 4 else 128, "icmp_code": 0} if way.protocol == "icmp" else {}
        if ping and ours.version == 6:
            protocol = NUMBERS["ICMPV6"]
        flow = Flow(ours.packed, theirs.packed, protocol, 40000 if not ping else 0, way.port, **ping)
        reports: list[WayReport] = []
        if way.source == way.destination:
            return reports
        if way.source.kind == "pod":
            reports.append(self._cluster.way(scenario.pod_key(way.source.name), "egress", flow))
        reports += on_the_way(self._hops(way, tunnel), flow, self._cluster.world).reports
        if way.destination.kind == "pod":
            key = scenario.pod_key(way.destination.name)
            if not (way.source.kind == "node" and self._pod(key)[0].node == way.source.name):
                reports.append(self._cluster.way(key, "ingress", flow))
        return reports

    def _hops(self, way: Traffic, tunnel: bool) -> Iterator[Hop]:
        """The nodes that it passes. Through a tunnel only the host endpoint of every device sees it."""
        source, destination = self._node(way.source), self._node(way.destination)
        if way.source.kind == "node" and source == destination:
            return
        inside: dict[str, Device] = {"pod": "pod", "node": "itself"}
        for node in dict.fromkeys(filter(None, (source, destination))):
            yield Hop(
                inside[way.source.kind] if node == source else "uplink",
                inside[way.destination.kind] if node == destination else "uplink",
                [h for h in self._cluster.hosts_of(node) if h.interface == EVERY or not tunnel],
                [str(ip_interface(text).ip) for text in self._nodes[node].addresses],
            )

    def _node(self, place: Place) -> str:
        """Where it is; empty: outside."""
        if place.kind == "pod":
            return self._pod(scenario.pod_key(place.name))[0].node
        return place.name if place.kind == "node" else ""

    def _sources(self, way: Traffic, destination: str) -> Sequence[str]:
        """The addresses that the source may have: a node's own, and through a tunnel its tunnel's; a pod's of the
        destination's family."""
        if way.source.kind == "pod":
            spec, own = self._pod(scenario.pod_key(way.source.name))
            return [next((a for a in spec.addresses if (":" in a) == (":" in destination)), own)]
        if way.source.kind == "node" and way.destination.kind == "pod":
            return (*self._addresses(way.source), str(self._block(way.source.name).network_address))
        return self._addresses(way.source)

    def _addresses(self, place: Place) -> Sequence[str]:
        match place.kind:
            case "pod":
                return (self._pod(scenario.pod_key(place.name))[1],)
            case "node":
                return (str(ip_interface(self._nodes[place.name].address).ip),)
        return (place.name,)

    def _pod(self, key: PodKey) -> tuple[PodSpec, str]:
        if key not in self._pods:
            raise CannotDo(f"there is no pod {key} now")
        return self._pods[key]


def _relabelled(resource: Resource, labels: dict[str, str]) -> Resource:
    metadata = msgspec.structs.replace(resource.metadata, labels=labels)
    return msgspec.structs.replace(resource, metadata=metadata)


def _resources(text: str) -> list[Resource]:
    """Raises CannotDo with every fault."""
    found: list[Resource] = []
    faults: list[str] = []
    for outcome in read_manifests(text, ""):
        if isinstance(outcome, Rejected):
            faults += [f"{outcome.display}: {fault}" for fault in outcome.faults]
        else:
            found.append(outcome.resource)
    if faults:
        raise CannotDo("\n  ".join(faults))
    return found


def plain(result: Result) -> dict[str, Any]:
    """As JSON values."""
    return {
        "source": result.source,
        "name": result.name,
        "outcome": "passed" if result.passed else "failed",
        "fault": result.fault,
        "checks": [
            {
                "step": check.step,
                "expected": check.kind,
                "traffic": check.traffic,
                "outcome": check.outcome,
                "why": check.why,
                "path": msgspec.to_builtins(check.ways) if check.outcome == "FAIL" else [],
            }
            for check in result.checks
        ],
        "notJudged": result.not_judged,
        "warnings": result.warnings,
    }
