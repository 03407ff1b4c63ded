"""Clusters in which it shows whether two policies mean the same: of the labels, ports and networks that they name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from itertools import product
from typing import Any, NamedTuple

from bus_schemas.resources import Pod, Resource
from tests.support import truth_tables
from tests.support.compiled_policy import NUMBERS
from tests.support.policy_judges import Connection, MemoryJudge, Way

PORTS: tuple[dict[str, Any], ...] = (
    {"name": "foo", "protocol": "TCP", "port": 7000},
    {"name": "http", "protocol": "TCP", "port": 8080},
)
MOST_SERVICES = 14


class Words(NamedTuple):
    """What a manifest speaks of."""

    labels: dict[str, str]
    namespaces: frozenset[str]
    ports: frozenset[int]
    nets: frozenset[str]


def words(*manifests: Any) -> Words:
    found = Words({}, frozenset(), frozenset(), frozenset())
    for manifest in manifests:
        for key, value in _walk(manifest):
            if key == "matchLabels" and isinstance(value, Mapping):
                found.labels.update(value)
            elif key == "matchExpressions" and isinstance(value, list):
                found.labels.update({e["key"]: next(iter(e.get("values") or ["v"])) for e in value})
            elif key in ("cidr", "nets", "networks", "except", "notNets"):
                nets = [value] if isinstance(value, str) else value or []
                found = found._replace(nets=found.nets | set(nets))
            elif key in ("number", "start", "end", "port", "endPort") and isinstance(value, int):
                found = found._replace(ports=found.ports | {value})
            elif key == "namespace" and isinstance(value, str):
                found = found._replace(namespaces=found.namespaces | {value})
    return found


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


def label_sets(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """All of them, none, each one missing, each one with another value."""
    sets = [dict(labels), {}]
    for key in labels:
        sets.append({k: v for k, v in labels.items() if k != key})
        sets.append({**labels, key: f"{labels[key]}-not"})
    return [s for at, s in enumerate(sets) if s not in sets[:at]]


class Cluster(NamedTuple):
    resources: tuple[Resource, ...]
    addresses: tuple[str, ...]
    """Of the pods, and of nobody."""
    services: tuple[tuple[str, int], ...]
    """Protocol and port."""

    def connections(self) -> Iterator[Connection]:
        for (source, destination), (protocol, port) in product(product(self.addresses, repeat=2), self.services):
            if source != destination:
                yield Connection(source, destination, NUMBERS[protocol], port)


def cluster(spoken_of: Words, own: str = "default") -> Cluster:
    """Pods of every set of labels in the policy's own namespace, one with all labels in namespaces of every set."""
    sets = label_sets(spoken_of.labels)
    spaces: dict[str, dict[str, str]] = {f"ns-{at}": labels for at, labels in enumerate(sets)}
    spaces |= {name: {} for name in (own, *spoken_of.namespaces)}
    placed = [(space, spoken_of.labels) for space in spaces] + [(own, labels) for labels in sets[1:]]
    placed += [("ns-0", {})]
    pods = [truth_tables.pod(s, f"p-{at}", labels, f"10.65.0.{at + 1}", PORTS) for at, (s, labels) in enumerate(placed)]
    outside = {"203.0.113.9"}
    for text in spoken_of.nets:
        net = ip_network(text, strict=False)
        if net.version == 4 and net.prefixlen:
            outside |= {str(net.network_address), str(net.network_address - 1)}
    numbers = sorted({n for port in spoken_of.ports for n in (port - 1, port, port + 1)} & set(range(1, 65536)))
    services = [("TCP", 7000), ("TCP", 12345), ("UDP", 12345)]
    services += [(protocol, number) for number in numbers for protocol in ("TCP", "UDP")]
    return Cluster(
        (*(truth_tables.namespace(name, labels) for name, labels in spaces.items()), *pods),
        (*(pod.status.pod_ips[0] for pod in pods if isinstance(pod, Pod)), *sorted(outside)),
        tuple(services[:MOST_SERVICES]),
    )


def says(judge: MemoryJudge, policy: Resource, among: Cluster) -> dict[tuple[Connection, Way], bool]:
    """Everything that the judge says with the policy in the cluster."""
    for resource in (*among.resources, policy):
        judge.put(resource)
    judge.settle()
    ways: Iterable[Way] = ("ingress", "egress")
    return {(c, way): judge.passes(c, (way,)) for c in among.connections() for way in ways}
