"""Builders for the world of the policy compiler, and the compiler run over a telling of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName
from bus_schemas.manifests import Accepted, read
from bus_schemas.resources import Metadata, Namespace, Pod, Resource, ServiceAccount
from bus_schemas.resources.core import Container, ContainerPort, PodSpec, PodStatus
from bus_schemas.subjects import DESIRED, ENDPOINT, Fact
from services.policy_compiler.core import Core
from tests.support.compiled_policy import CompiledPolicy


def desired(resource: Resource) -> Fact:
    return Fact(DESIRED[type(resource)], resource.key, resource)


def namespace(name: str, /, **labels: str) -> Fact:
    return desired(Namespace(metadata=Metadata(name=name, labels=labels)))


def account(space: str, name: str, /, **labels: str) -> Fact:
    return desired(ServiceAccount(metadata=Metadata(namespace=space, name=name, labels=labels)))


def pod(
    where: str,
    labels: Mapping[str, str] | None = None,
    ports: Iterable[tuple[str, str, int]] = (),
    *,
    account: str = "default",
    uid: str = "",
    host_network: bool = False,
    phase: str = "Running",
) -> Fact:
    """`where` is `namespace/name`; a port is (name, protocol, number)."""
    space, name = where.split("/")
    containers = (
        Container(ports=tuple(ContainerPort(name=n, protocol=protocol, container_port=p) for n, protocol, p in ports)),
    )
    return desired(
        Pod(
            metadata=Metadata(namespace=space, name=name, labels=dict(labels or {}), uid=uid),
            spec=PodSpec(service_account_name=account, host_network=host_network, containers=containers),
            status=PodStatus(phase=phase),
        )
    )


def endpoint(where: str, *addresses: str, node: str = "node1", container: str = "c1", **more: Any) -> Fact:
    space, name = where.split("/")
    value = Endpoint(
        node=NodeName(node),
        namespace=space,
        name=name,
        container=container,
        link=f"tor{name}",
        addresses=addresses,
        **more,
    )
    return Fact(ENDPOINT, (node, space, name), value)


def manifests(text: str) -> list[Fact]:
    """YAML documents as they would be applied."""
    facts = []
    for outcome in read(text):
        assert isinstance(outcome, Accepted), outcome
        facts.append(desired(outcome.resource))
    return facts


def compiled(batches: Iterable[Iterable[Fact]], core: Core | None = None) -> CompiledPolicy:
    """What the compiler wrote, flushed after every batch. Nothing may ever lead nowhere."""
    core = core or Core()
    written = CompiledPolicy()
    for batch in batches:
        for fact in batch:
            core.apply(fact)
        written.take(core.flush())
        assert not written.complaints()
    return written
