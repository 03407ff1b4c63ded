"""What would miss an object that is about to be deleted: sentences for the person who deletes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from bus_schemas.endpoints import Endpoint
from bus_schemas.ipam import Block
from bus_schemas.resources import IPPool, Namespace, Node, Pod, Resource, ServiceAccount

Resources = Iterable[Resource]
Blocks = Iterable[Block]
Endpoints = Iterable[Endpoint]


def dependants(resource: Resource, others: Resources, blocks: Blocks, endpoints: Endpoints) -> Iterator[str]:
    """One sentence for each way in which `resource` is still needed; `others` are the resources that stay."""
    judge = _JUDGES.get(type(resource))
    if judge is not None:
        yield from judge(resource, others, blocks, endpoints)


def _namespace(resource: Resource, others: Resources, _: Blocks, endpoints: Endpoints) -> Iterator[str]:
    name = resource.metadata.name
    inside = Counter(type(other) for other in others if other.metadata.namespace == name)
    if inside:
        listed = ", ".join(f"{count} {kind.KIND if count == 1 else kind.PLURAL}" for kind, count in inside.items())
        yield f"namespace {name} still holds {listed}; its pods are isolated until it exists again"
    running = sum(endpoint.namespace == name for endpoint in endpoints)
    if running:
        yield f"{_count(running, 'pod')} of namespace {name} still on the network: cut off from it"


def _service_account(resource: Resource, others: Resources, _: Blocks, __: Endpoints) -> Iterator[str]:
    namespace, name = resource.key
    users = sum(
        isinstance(other, Pod) and other.metadata.namespace == namespace and other.spec.service_account_name == name
        for other in others
    )
    if users:
        yield f"{_count(users, 'pod')} using service account {namespace}/{name}: policies no longer see its labels"


def _node(resource: Resource, _: Resources, blocks: Blocks, endpoints: Endpoints) -> Iterator[str]:
    name = resource.metadata.name
    running = sum(endpoint.node == name for endpoint in endpoints)
    if running:
        yield f"{_count(running, 'pod')} on node {name}: other nodes lose their routes to it"
    used = sum(len(block.allocations) for block in blocks if block.node == name)
    if used:
        yield f"{_count(used, 'address', 'addresses')} in use in the blocks of node {name}"


def _pool(resource: Resource, _: Resources, blocks: Blocks, __: Endpoints) -> Iterator[str]:
    name = resource.metadata.name
    used = sum(len(block.allocations) for block in blocks if block.pool == name)
    if used:
        yield f"{_count(used, 'address', 'addresses')} of pool {name} in use: reached without a tunnel from now on"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one} is" if number == 1 else f"{number} {many or one + 's'} are"


_Judge = Callable[[Resource, Resources, Blocks, Endpoints], Iterator[str]]
_JUDGES: dict[type[Resource], _Judge] = {
    Namespace: _namespace,
    ServiceAccount: _service_account,
    Node: _node,
    IPPool: _pool,
}
