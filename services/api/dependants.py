"""What would miss an object that is about to be deleted: sentences for the person who deletes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property

from bus_schemas.endpoints import Endpoint
from bus_schemas.ipam import Block
from bus_schemas.resources import IPPool, Namespace, Node, Pod, Resource, ServiceAccount


class Beside:
    """What stays when some objects go, counted once for all of them: there can be very many pods."""

    def __init__(self, others: Iterable[Resource], blocks: Iterable[Block], endpoints: Iterable[Endpoint]) -> None:
        """`others`: the resources that stay."""
        self._given = others
        self._blocks = blocks
        self._endpoints = endpoints

    @cached_property
    def _others(self) -> tuple[Resource, ...]:
        return tuple(self._given)

    @cached_property
    def inside(self) -> Mapping[str, Counter[type[Resource]]]:
        """Objects by namespace and kind."""
        found: dict[str, Counter[type[Resource]]] = {}
        for other in self._others:
            found.setdefault(other.metadata.namespace, Counter())[type(other)] += 1
        return found

    @cached_property
    def users(self) -> Counter[tuple[str, str]]:
        """Pods by service account."""
        pods = (other for other in self._others if isinstance(other, Pod))
        return Counter((pod.metadata.namespace, pod.spec.service_account_name) for pod in pods)

    @cached_property
    def running_in(self) -> Counter[str]:
        """Endpoints by namespace."""
        return Counter(endpoint.namespace for endpoint in self._endpoints)

    @cached_property
    def running_on(self) -> Counter[str]:
        """Endpoints by node."""
        return Counter(str(endpoint.node) for endpoint in self._endpoints)

    def used(self, which: Callable[[Block], bool]) -> int:
        """Addresses in use in such blocks."""
        return sum(len(block.allocations) for block in self._blocks if which(block))


def dependants(resource: Resource, beside: Beside) -> Iterator[str]:
    """One sentence for each way in which `resource` is still needed."""
    judge = _JUDGES.get(type(resource))
    if judge is not None:
        yield from judge(resource, beside)


def _namespace(resource: Resource, beside: Beside) -> Iterator[str]:
    name = resource.metadata.name
    inside = beside.inside.get(name)
    if inside:
        listed = ", ".join(f"{count} {kind.KIND if count == 1 else kind.PLURAL}" for kind, count in inside.items())
        yield f"namespace {name} still holds {listed}; its pods are isolated until it exists again"
    running = beside.running_in[name]
    if running:
        yield f"{_count(running, 'pod', of=f'namespace {name}')} still on the network: cut off from it"


def _service_account(resource: Resource, beside: Beside) -> Iterator[str]:
    namespace, name = resource.key
    users = beside.users[namespace, name]
    if users:
        yield f"{_count(users, 'pod')} using service account {namespace}/{name}: policies no longer see its labels"


def _node(resource: Resource, beside: Beside) -> Iterator[str]:
    name = resource.metadata.name
    running = beside.running_on[name]
    if running:
        yield f"{_count(running, 'pod')} on node {name}: other nodes lose their routes to it"
    used = beside.used(lambda block: block.node == name)
    if used:
        yield f"{_count(used, 'address', 'addresses')} in use in the blocks of node {name}"


def _pool(resource: Resource, beside: Beside) -> Iterator[str]:
    name = resource.metadata.name
    used = beside.used(lambda block: block.pool == name)
    if used:
        yield f"{_count(used, 'address', 'addresses', of=f'pool {name}')} in use: reached without a tunnel from now on"


def _count(number: int, one: str, many: str = "", *, of: str = "") -> str:
    what, verb = (one, "is") if number == 1 else (many or one + "s", "are")
    return " ".join(filter(None, (str(number), what, "of" if of else "", of, verb)))


_Judge = Callable[[Resource, Beside], Iterator[str]]
_JUDGES: dict[type[Resource], _Judge] = {
    Namespace: _namespace,
    ServiceAccount: _service_account,
    Node: _node,
    IPPool: _pool,
}
