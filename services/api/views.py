"""Reports made of the mirror: the state of components and nodes, and pods on the network. Plain JSON values."""

from __future__ import annotations

from typing import Any

from bus_schemas.endpoints import Endpoint
from bus_schemas.resources import Node
from bus_schemas.status import Status
from services.api.core import Core

Json = dict[str, Any]


def status(core: Core) -> Json:
    """`{components: [...], nodes: [...]}`: every replica that is alive, and every node with its agent (or without)."""
    agents = {status.node: status for status in core.statuses.values() if status.node}
    components = [_component(core.statuses[key]) for key in sorted(core.statuses)]
    nodes = [_node(node, core, agents) for node in core.nodes()]
    return {"components": components, "nodes": nodes}


def endpoints(core: Core) -> list[Json]:
    """Every pod on the network with its node and addresses, by namespace and name."""

    def order(endpoint: Endpoint) -> tuple[str, str, str]:
        return endpoint.namespace, endpoint.name, endpoint.node

    return [
        {
            "namespace": endpoint.namespace,
            "name": endpoint.name,
            "node": endpoint.node,
            "addresses": list(endpoint.addresses),
            "link": endpoint.link,
            **_described(endpoint),
        }
        for endpoint in sorted(core.endpoints.values(), key=order)
    ]


def _described(endpoint: Endpoint) -> Json:
    """What an endpoint says of itself that otherwise a Pod says."""
    if endpoint.labels is None:
        return {}
    ports = [{"name": port.name, "protocol": port.protocol, "port": port.port} for port in endpoint.ports]
    return {"labels": endpoint.labels, "serviceAccount": endpoint.service_account, "ports": ports}


def _component(status: Status) -> Json:
    return {
        "component": status.component,
        "instance": status.instance,
        "node": status.node or "",
        "version": status.version,
        "started": status.started,
        "ready": status.ready,
        "causes": list(status.causes),
        "detail": status.detail,
    }


def _node(node: Node, core: Core, agents: dict[Any, Status]) -> Json:
    name = node.metadata.name
    agent = agents.get(name)
    return {
        "name": name,
        "addresses": [text for text in (node.address(4), node.address(6)) if text],
        "agent": agent is not None,
        "ready": agent is not None and agent.ready,
        "causes": list(agent.causes) if agent is not None else ["nothing is heard of its agent"],
        "pods": sum(endpoint.node == name for endpoint in core.endpoints.values()),
        "blocks": sorted(block.cidr for block in core.blocks.values() if block.node == name),
    }
