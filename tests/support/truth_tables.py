"""Truth tables of other projects' suites: policies, and which pod must then reach which.

    for case in truth_tables.cases("k8s_e2e.json"):
        world = case.start                      resources that exist before the first step
        for step in case.steps:
            step.put, step.delete               resources to create or replace, and to remove, as Tortie reads them
            for table in step.tables:           what must be true then
                complaint = table.difference(lambda source, destination: ...)
                assert not complaint, complaint
            for probe in step.probes:           the same, one cell at a time, in the files that have no tables

A Pod's addresses are `pod.status.pod_ips`; its named ports are those on which it listens. State carries over from step
to step. `parameters(file)` makes pytest parameters of the cases, or one skipped parameter where the file is absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import pytest

from bus_schemas.ids import PodKey
from bus_schemas.manifests import Accepted, read_object
from bus_schemas.resources import (
    ClusterNetworkPolicy,
    KubernetesNetworkPolicy,
    Metadata,
    Namespace,
    Node,
    Pod,
    Resource,
)
from bus_schemas.resources.core import Container, ContainerPort, NodeAddress, NodeSpec, PodSpec, PodStatus

FILES = ("k8s_e2e.json", "cyclonus.json", "cyclonus_extra.json")
"""Those with tables."""
PROBE_FILES = ("cluster_network_policy.json", "kube_router.json")
"""Those with probes. A case without steps is about something else and is left out."""

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared" / "conformance"

Reaches = Callable[[PodKey, PodKey], bool]


@dataclass(frozen=True)
class Table:
    """Who may reach whom on one port."""

    direction: Literal["combined", "ingress", "egress"]
    """`ingress` and `egress`: the verdict of that direction's policies alone."""
    protocol: str
    """TCP, UDP or SCTP."""
    port: int
    pods: tuple[PodKey, ...]
    rows: tuple[str, ...]
    """`rows[i][j]` is `.` where pod i reaches pod j, and `X` where it does not."""

    def cells(self) -> Iterator[tuple[PodKey, PodKey, bool]]:
        """(source, destination, allowed), without those where a pod speaks to itself: that no policy can forbid."""
        for i, source in enumerate(self.pods):
            for j, destination in enumerate(self.pods):
                if i != j:
                    yield source, destination, self.rows[i][j] == "."

    def difference(self, reaches: Reaches) -> str:
        """Empty when every cell is as expected; otherwise the table, `!` before every wrong cell."""
        wrong = {(s, d) for s, d, allowed in self.cells() if reaches(s, d) != allowed}
        if not wrong:
            return ""
        lines = [f"{self.direction} {self.protocol}/{self.port}, expected ('!': the opposite was seen)"]
        for source, row in zip(self.pods, self.rows, strict=True):
            cells = (
                f"{'!' if (source, destination) in wrong else ' '}{cell}"
                for destination, cell in zip(self.pods, row, strict=True)
            )
            lines.append(f"  {source!s:>12} {''.join(cells)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Probe:
    """One cell: whether a pod may reach another."""

    source: PodKey
    destination: PodKey
    protocol: str
    """TCP, UDP or SCTP."""
    port: int
    allowed: bool
    family: Literal[4, 6] | None = None
    """None: by every family that both have."""


@dataclass(frozen=True)
class Step:
    put: tuple[Resource, ...]
    delete: tuple[Resource, ...]
    """As they were; what lies in a deleted namespace is listed too, before it."""
    tables: tuple[Table, ...] = ()
    probes: tuple[Probe, ...] = ()


@dataclass(frozen=True)
class Case:
    id: str
    description: str
    traits: frozenset[str]
    """What it is about, in the file's words: family, features, tags, and the kinds of its actions."""
    start: tuple[Resource, ...]
    """Namespaces, then nodes, then pods."""
    steps: tuple[Step, ...]


def directory() -> Path:
    """Where the files are: $TORTIE_CONFORMANCE, or `../shared/conformance` beside the repository."""
    return Path(os.environ.get("TORTIE_CONFORMANCE") or _BESIDE_THE_REPOSITORY)


@cache
def document(file: str) -> Mapping[str, Any]:
    """One file as it is."""
    return json.loads((directory() / file).read_text())  # type: ignore[no-any-return]


def parameters(file: str) -> list[Any]:
    if not (directory() / file).is_file():
        return [pytest.param(None, id=file, marks=pytest.mark.skip(reason=f"{directory() / file} is absent"))]
    return [pytest.param(case, id=case.id) for case in cases(file)]


def unread(file: str) -> list[Any]:
    """The same with functions that read the case: what is wrong with one of them is that one's failure."""
    if not (directory() / file).is_file():
        return parameters(file)
    return [
        pytest.param(partial(_case, raw, cluster_of(file, raw)), id=raw["id"])
        for raw in document(file)["cases"]
        if "steps" in raw
    ]


def raw_cases(file: str) -> list[Any]:
    """The same, of every case, as it is in the file."""
    if not (directory() / file).is_file():
        return parameters(file)
    return [pytest.param(raw, id=raw["id"]) for raw in document(file)["cases"]]


def cases(file: str) -> Iterator[Case]:
    for raw in document(file)["cases"]:
        if "steps" in raw:
            yield _case(raw, cluster_of(file, raw))


def cluster_of(file: str, raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """A case's cluster: one of the file's, or its own."""
    cluster = raw["cluster"]
    return document(file)["clusters"][cluster] if isinstance(cluster, str) else cluster  # type: ignore[no-any-return]


def policy(manifest: Mapping[str, Any]) -> KubernetesNetworkPolicy:
    """A Kubernetes NetworkPolicy as the API server would have it."""
    outcome = read_object({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", **manifest})
    assert isinstance(outcome, Accepted), outcome
    assert isinstance(outcome.resource, KubernetesNetworkPolicy)
    return outcome.resource


def resource_of(manifest: Mapping[str, Any]) -> Resource:
    """An object of any kind, as it would be applied."""
    outcome = read_object(manifest)
    assert isinstance(outcome, Accepted), outcome
    return outcome.resource


def namespace(name: str, labels: Mapping[str, str]) -> Namespace:
    return Namespace(metadata=Metadata(name=name, labels=dict(labels)))


def pod(
    space: str,
    name: str,
    labels: Mapping[str, str],
    addresses: str | Sequence[str],
    ports: Sequence[Mapping[str, Any]],
    *,
    host_network: bool = False,
    node: str = "",
) -> Pod:
    listening = tuple(
        ContainerPort(container_port=p["port"], name=p.get("name", ""), protocol=p.get("protocol", "TCP"))
        for p in ports
    )
    return Pod(
        metadata=Metadata(namespace=space, name=name, labels=dict(labels)),
        spec=PodSpec(containers=(Container(name="main", ports=listening),), host_network=host_network, node_name=node),
        status=PodStatus(phase="Running", pod_ips=(addresses,) if isinstance(addresses, str) else tuple(addresses)),
    )


def _pod_of(raw: Mapping[str, Any], name: str, default_ports: Sequence[Mapping[str, Any]]) -> Pod:
    """A pod as clusters and actions describe it."""
    return pod(
        raw["namespace"],
        name,
        raw.get("labels") or {},
        raw["ips"] if "ips" in raw else raw["ip"],
        raw.get("ports", default_ports) or (),
        host_network=raw.get("hostNetwork", False),
        node=raw.get("node", ""),
    )


def node(raw: Mapping[str, Any]) -> Node:
    return Node(
        metadata=Metadata(name=raw["name"], labels=dict(raw.get("labels") or {})),
        spec=NodeSpec(addresses=tuple(NodeAddress(address=a, type="InternalIP") for a in raw["addresses"])),
    )


Where = tuple[type[Resource], str, str]


def resources_of(cluster: Mapping[str, Any]) -> list[Resource]:
    """Namespaces, then nodes, then pods."""
    ports = cluster.get("pod_ports_default", [])
    start: list[Resource] = [
        namespace(name, labels or {}) for name, labels in (cluster.get("namespaces") or {}).items()
    ]
    start += map(node, cluster.get("nodes") or ())
    start += [_pod_of(p, p["name"], ports) for p in cluster.get("pods") or ()]
    return start


def _case(raw: Mapping[str, Any], cluster: Mapping[str, Any]) -> Case:
    ports = cluster.get("pod_ports_default", [])
    start = resources_of(cluster)
    existing = {_where(resource): resource for resource in start}
    return Case(
        id=raw["id"],
        description=raw.get("description", ""),
        traits=frozenset(
            (
                raw.get("family", ""),
                *raw.get("features", ()),
                *raw.get("tags", ()),
                *raw.get("contexts", ()),
                *(action["action"] for step in raw["steps"] for action in step.get("actions", ())),
            )
        ),
        start=tuple(start),
        steps=tuple(_step(step, existing, ports) for step in raw["steps"]),
    )


def _step(raw: Mapping[str, Any], existing: dict[Where, Resource], ports: list[Mapping[str, Any]]) -> Step:
    before = dict(existing)
    for action in raw.get("actions", ()):
        ACTIONS[action["action"]](existing, action, ports)
    deleted = [resource for where, resource in before.items() if where not in existing]
    deleted.sort(key=lambda resource: isinstance(resource, Namespace))
    return Step(
        put=tuple(resource for where, resource in existing.items() if before.get(where) != resource),
        delete=tuple(deleted),
        tables=tuple(_tables(raw["expected"])) if "expected" in raw else (),
        probes=tuple(
            Probe(_key(p["from"]), _key(p["to"]), p["protocol"], p["port"], p["allowed"], _family(p))
            for p in raw.get("probes", ())
        ),
    )


def _family(probe: Mapping[str, Any]) -> Literal[4, 6] | None:
    if "to_ip" not in probe:
        return None
    return 6 if ":" in probe["to_ip"] else 4


def _key(text: str) -> PodKey:
    return PodKey(*text.split("/"))


def _tables(expected: Mapping[str, Any]) -> Iterator[Table]:
    pods = tuple(map(_key, expected["pods"]))
    for direction in ("combined", "ingress", "egress"):
        for service, rows in expected.get(direction, {}).items():
            protocol, port = service.split("/")
            yield Table(direction, protocol, int(port), pods, tuple(rows))


def _where(resource: Resource) -> Where:
    return (type(resource), *resource.key)


# --- actions, as the files name them


def _put(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    resource = resource_of(action["object"] if "object" in action else action["policy"])
    existing[_where(resource)] = resource


def _put_policy(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    resource = policy(action["policy"])
    existing[_where(resource)] = resource


def _delete_policy(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    space = action.get("namespace") or ""
    del existing[KubernetesNetworkPolicy if space else ClusterNetworkPolicy, space, action["name"]]


def _put_namespace(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    resource = namespace(action["namespace"], action.get("labels") or {})
    existing[_where(resource)] = resource


def _delete_namespace(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    name = action["namespace"]
    del existing[Namespace, "", name]
    for where in [where for where in existing if where[1] == name]:
        del existing[where]


def _create_pod(existing: dict[Where, Resource], action: Mapping[str, Any], ports: list[Mapping[str, Any]]) -> None:
    resource = _pod_of(action, action["pod"], ports)
    existing[_where(resource)] = resource


def _delete_pod(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    del existing[Pod, action["namespace"], action["pod"]]


def _set_pod_labels(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    where = (Pod, action["namespace"], action["pod"])
    old = existing[where]
    assert isinstance(old, Pod)
    metadata = Metadata(namespace=where[1], name=where[2], labels=action.get("labels") or {})
    existing[where] = Pod(metadata=metadata, spec=old.spec, status=old.status)


ACTIONS: dict[str, Callable[[dict[Where, Resource], Mapping[str, Any], list[Mapping[str, Any]]], None]] = {
    "create": _put,
    "update_cluster_policy": _put,
    "create_policy": _put_policy,
    "update_policy": _put_policy,
    "delete_policy": _delete_policy,
    "create_namespace": _put_namespace,
    "set_namespace_labels": _put_namespace,
    "delete_namespace": _delete_namespace,
    "create_pod": _create_pod,
    "delete_pod": _delete_pod,
    "set_pod_labels": _set_pod_labels,
}
