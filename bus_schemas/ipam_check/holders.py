"""Who says that he uses an address: pods (endpoints), nodes beside their pods (holdings), Services."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import LOAD_BALANCER, Handle, load_balancer_handle
from bus_schemas.ipam_check.records import Records

LOAD_BALANCER_TYPE = "LoadBalancer"


class Holder(NamedTuple):
    node: NodeName
    handle: HandleId
    """What he believes to hold it under; empty: under none."""
    text: str
    pod: tuple[str, str] | None = None
    """(namespace, name) of an endpoint."""


class Holders:
    def __init__(self, records: Records) -> None:
        self.of: defaultdict[str, list[Holder]] = defaultdict(list)
        """By address."""
        for endpoint in records.endpoints.values():
            for address, holder in _of_endpoint(endpoint):
                self.of[address].append(holder)
        for node, holding in records.holdings.items():
            for held in holding.held:
                for address in held.addresses:
                    text = f"node {node} ({held.use})"
                    self.of[address].append(Holder(holding.node, held.handle, text))
        for (namespace, name), given in records.service_addresses.items():
            service = records.services.get((namespace, name))
            if service is not None and service.spec.type == LOAD_BALANCER_TYPE:
                handle = load_balancer_handle(namespace, name)
                for address in given.addresses:
                    self.of[address].append(Holder(LOAD_BALANCER, handle, f"service {namespace}/{name}"))

    def pods(self, address: str) -> list[Holder]:
        """The different pods that use an address; one, where all is well."""
        return [holder for holder in self.of.get(address, ()) if holder.pod is not None]


def _of_endpoint(endpoint: Endpoint) -> Iterator[tuple[str, Holder]]:
    pod = endpoint.namespace, endpoint.name
    text = f"pod {endpoint.namespace}/{endpoint.name} on {endpoint.node}"
    for address in endpoint.addresses:
        yield address, Holder(endpoint.node, endpoint.handle, text, pod)
    floating = HandleId(f"{endpoint.handle}.floating") if endpoint.handle else HandleId("")
    for address, _ in endpoint.floating:
        yield address, Holder(endpoint.node, floating, f"{text} (floating)", pod)


def believes(holder: Holder, handle: HandleId, record: Handle | None) -> bool:
    """Whether a holder means the allocation of `handle`. One that names no handle is known by its pod."""
    if holder.handle:
        return holder.handle == handle
    return record is None or holder.pod is None or (record.namespace, record.pod) == holder.pod
