"""Reports made of the mirror: address management, and the state of components and nodes. Plain JSON values.

Sizes and counts are exact integers whatever the family; shares are left to whoever prints them.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from bus_schemas.endpoints import Endpoint
from bus_schemas.ipam import Block
from bus_schemas.resources import IPPool, Node
from bus_schemas.status import Status
from services.api.core import Core

Json = dict[str, Any]

CONFIGURATION_DEFAULTS = {"strictAffinity": "false", "AutoAllocateBlocks": "true", "MaxBlocksPerHost": "20"}
"""What address management does where its replicas say nothing else in their status."""


def ipam(core: Core) -> Json:
    """`{configuration, pools, orphans}`; a pool is `{name, cidr, total, inUse, free, blocks}`, a block `{cidr, node,
    total, inUse, free, borrowed}`. It belongs to the pool that it was cut from; those of pools that are gone are
    `orphans`."""
    pools = [_pool(stored.resource, core) for stored in core.resources(IPPool)]
    named = {pool["name"] for pool in pools}
    orphans = [block for block in core.blocks.values() if block.pool not in named]
    return {"configuration": _configuration(core.statuses.values()), "pools": pools, "orphans": _blocks(orphans)}


def address(core: Core, text: str) -> Json:
    """Who holds one address: `{ip, assigned, pool, block, owner, handle, node, namespace, pod, use}`; what does not
    apply is empty. Raises ValueError when the text is no address."""
    ip = ip_address(text)
    block = next((b for b in core.blocks.values() if ip in ip_network(b.cidr)), None)
    pools = (stored.resource for stored in core.resources(IPPool))
    pool = next((p.metadata.name for p in pools if isinstance(p, IPPool) and ip in ip_network(p.spec.cidr)), "")
    report = {"ip": str(ip), "assigned": False, "pool": pool, "block": "", "owner": "", "handle": ""}
    report |= {"node": "", "namespace": "", "pod": "", "use": ""}
    if block is None:
        return report
    report |= {"pool": block.pool, "block": block.cidr, "owner": block.node or ""}
    ordinal = int(ip) - int(ip_network(block.cidr).network_address)
    allocation = next((a for a in block.allocations if a.ordinal == ordinal), None)
    if allocation is None:
        return report
    report |= {"assigned": True, "handle": allocation.handle, "node": allocation.borrower or block.node or ""}
    handle = core.handles.get(allocation.handle)
    if handle is not None:
        report |= {"node": handle.node, "namespace": handle.namespace, "pod": handle.pod, "use": handle.use}
    return report


def status(core: Core) -> Json:
    """`{components: [...], nodes: [...]}`: every replica that is alive, and every node with its agent (or without)."""
    agents = {status.node: status for status in core.statuses.values() if status.node}
    components = [_component(core.statuses[key]) for key in sorted(core.statuses)]
    nodes = [_node(stored.resource, core, agents) for stored in core.resources(Node)]
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


def _pool(pool: Any, core: Core) -> Json:
    assert isinstance(pool, IPPool)
    blocks = [block for block in core.blocks.values() if block.pool == pool.metadata.name]
    counts = _counts(ip_network(pool.spec.cidr).num_addresses, sum(len(block.allocations) for block in blocks))
    return {"name": pool.metadata.name, "cidr": pool.spec.cidr, **counts, "blocks": _blocks(blocks)}


def _blocks(blocks: Iterable[Block]) -> list[Json]:
    rows = []
    for block in sorted(blocks, key=lambda block: _position(ip_network(block.cidr))):
        borrowed = sum(a.borrower is not None and a.borrower != block.node for a in block.allocations)
        counts = _counts(ip_network(block.cidr).num_addresses, len(block.allocations))
        rows.append({"cidr": block.cidr, "node": block.node or "", **counts, "borrowed": borrowed})
    return rows


def _position(network: IPv4Network | IPv6Network) -> tuple[int, int]:
    return network.version, int(network.network_address)


def _counts(total: int, used: int) -> Json:
    return {"total": total, "inUse": used, "free": total - used}


def _configuration(statuses: Iterable[Status]) -> Json:
    replicas = [status for status in statuses if status.component == "ipam"]
    return {name: _told(replicas, name) or default for name, default in CONFIGURATION_DEFAULTS.items()}


def _told(replicas: Iterable[Status], name: str) -> str:
    """What the replicas say of one setting; where they differ, each with what it says."""
    said = {status.instance: status.detail[name] for status in replicas if name in status.detail}
    if len(set(said.values())) <= 1:
        return next(iter(said.values()), "")
    return ", ".join(f"{value} ({instance})" for instance, value in sorted(said.items()))


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


def _node(node: Any, core: Core, agents: dict[Any, Status]) -> Json:
    assert isinstance(node, Node)
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
