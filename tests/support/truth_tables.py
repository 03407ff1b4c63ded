"""Truth tables of other projects' suites: policies, and which pod must then reach which.

    for case in truth_tables.cases("k8s_e2e.json"):
        world = case.start                      resources that exist before the first step
        for step in case.steps:
            step.put, step.delete               resources to create or replace, and to remove, as Tortie reads them
            for table in step.tables:           what must be true then
                complaint = table.difference(lambda source, destination: ...)
                assert not complaint, complaint

A Pod's address is `pod.status.pod_ips[0]`; its named ports are those on which it listens. State carries over from step
to step. `parameters(file)` makes pytest parameters of the cases, or one skipped parameter where the file is absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

from bus_schemas.ids import PodKey
from bus_schemas.manifests import Accepted, read_object
from bus_schemas.resources import KubernetesNetworkPolicy, Metadata, Namespace, Pod, Resource
from bus_schemas.resources.core import Container, ContainerPort, PodSpec, PodStatus

FILES = ("k8s_e2e.json", "cyclonus.json", "cyclonus_extra.json")

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
class Step:
    put: tuple[Resource, ...]
    delete: tuple[Resource, ...]
    """As they were; what lies in a deleted namespace is listed too, before it."""
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Case:
    id: str
    description: str
    traits: frozenset[str]
    """What it is about, in the file's words: family, features, tags, and the kinds of its actions."""
    start: tuple[Resource, ...]
    """Namespaces, then pods."""
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


def cases(file: str) -> Iterator[Case]:
    whole = document(file)
    for raw in whole["cases"]:
        cluster = raw["cluster"]
        if isinstance(cluster, str):
            cluster = whole["clusters"][cluster]
        yield _case(raw, cluster)


def policy(manifest: Mapping[str, Any]) -> KubernetesNetworkPolicy:
    """A Kubernetes NetworkPolicy as the API server would have it."""
    outcome = read_object({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", **manifest})
    assert isinstance(outcome, Accepted), outcome
    assert isinstance(outcome.resource, KubernetesNetworkPolicy)
    return outcome.resource


def namespace(name: str, labels: Mapping[str, str]) -> Namespace:
    return Namespace(metadata=Metadata(name=name, labels=dict(labels)))


def pod(space: str, name: str, labels: Mapping[str, str], address: str, ports: list[Mapping[str, Any]]) -> Pod:
    listening = tuple(ContainerPort(container_port=p["port"], name=p["name"], protocol=p["protocol"]) for p in ports)
    return Pod(
        metadata=Metadata(namespace=space, name=name, labels=dict(labels)),
        spec=PodSpec(containers=(Container(name="main", ports=listening),)),
        status=PodStatus(phase="Running", pod_ips=(address,)),
    )


Where = tuple[type[Resource], str, str]


def _case(raw: Mapping[str, Any], cluster: Mapping[str, Any]) -> Case:
    ports = cluster.get("pod_ports_default", [])
    start: list[Resource] = [namespace(name, labels) for name, labels in cluster["namespaces"].items()]
    start += [pod(p["namespace"], p["name"], p["labels"], p["ip"], p.get("ports", ports)) for p in cluster["pods"]]
    existing = {_where(resource): resource for resource in start}
    return Case(
        id=raw["id"],
        description=raw["description"],
        traits=frozenset(
            (
                raw["family"],
                *raw.get("features", ()),
                *raw.get("tags", ()),
                *(action["action"] for step in raw["steps"] for action in step["actions"]),
            )
        ),
        start=tuple(start),
        steps=tuple(_step(step, existing, ports) for step in raw["steps"]),
    )


def _step(raw: Mapping[str, Any], existing: dict[Where, Resource], ports: list[Mapping[str, Any]]) -> Step:
    before = dict(existing)
    for action in raw["actions"]:
        ACTIONS[action["action"]](existing, action, ports)
    deleted = [resource for where, resource in before.items() if where not in existing]
    deleted.sort(key=lambda resource: isinstance(resource, Namespace))
    return Step(
        put=tuple(resource for where, resource in existing.items() if before.get(where) != resource),
        delete=tuple(deleted),
        tables=tuple(_tables(raw["expected"])),
    )


def _tables(expected: Mapping[str, Any]) -> Iterator[Table]:
    pods = tuple(PodKey(*name.split("/")) for name in expected["pods"])
    for direction in ("combined", "ingress", "egress"):
        for service, rows in expected.get(direction, {}).items():
            protocol, port = service.split("/")
            yield Table(direction, protocol, int(port), pods, tuple(rows))  # type: ignore[arg-type]


def _where(resource: Resource) -> Where:
    return (type(resource), *resource.key)


# --- actions, as the files name them


def _put_policy(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    resource = policy(action["policy"])
    existing[_where(resource)] = resource


def _delete_policy(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    del existing[KubernetesNetworkPolicy, action["namespace"], action["name"]]


def _put_namespace(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    resource = namespace(action["namespace"], action["labels"])
    existing[_where(resource)] = resource


def _delete_namespace(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    name = action["namespace"]
    del existing[Namespace, "", name]
    for where in [where for where in existing if where[1] == name]:
        del existing[where]


def _create_pod(existing: dict[Where, Resource], action: Mapping[str, Any], ports: list[Mapping[str, Any]]) -> None:
    resource = pod(action["namespace"], action["pod"], action["labels"], action["ip"], action.get("ports", ports))
    existing[_where(resource)] = resource


def _delete_pod(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    del existing[Pod, action["namespace"], action["pod"]]


def _set_pod_labels(existing: dict[Where, Resource], action: Mapping[str, Any], _: object) -> None:
    where = (Pod, action["namespace"], action["pod"])
    old = existing[where]
    assert isinstance(old, Pod)
    metadata = Metadata(namespace=where[1], name=where[2], labels=action["labels"])
    existing[where] = Pod(metadata=metadata, spec=old.spec, status=old.status)


ACTIONS: dict[str, Callable[[dict[Where, Resource], Mapping[str, Any], list[Mapping[str, Any]]], None]] = {
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
