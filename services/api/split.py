"""One pool into several of equal size. Pure.

The parts differ from the pool in name and CIDR alone, so addresses that are in use stay as they are and are reached as
before; address management then notes for each block which part it belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import ip_network

import msgspec

from bus_schemas.resources import IPPool, Metadata, Namespace, Pod, Resource, Service

MOST = 512
"""Parts: they and the pool change in one batch of the bus."""
MAX_NAME = 253

_ANNOTATIONS: tuple[tuple[type[Resource], tuple[str, ...]], ...] = (
    (Pod, ("cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools")),
    (Namespace, ("cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools")),
    (Service, ("projectcalico.org/ipv4pools", "projectcalico.org/ipv6pools")),
)
"""Where pools are asked for by name."""


class CannotSplit(ValueError):
    """The text says why."""


def split(pool: IPPool, count: int) -> list[IPPool]:
    """`count` pools, called `split-<pool>-<i>`, in the order of their addresses. Raises CannotSplit."""
    if count < 2 or count > MOST or count & (count - 1):
        raise CannotSplit(f"a pool is split into 2, 4, 8 ... {MOST} parts, not {count}")
    whole = ip_network(pool.spec.cidr)
    prefix = whole.prefixlen + count.bit_length() - 1
    if prefix > pool.block_size:
        blocks = 1 << max(0, pool.block_size - whole.prefixlen)
        held = f"{blocks} block{'s' if blocks != 1 else ''} of /{pool.block_size}"
        raise CannotSplit(f"{pool.display} ({whole}) holds {held}: it cannot be split into {count}")
    names = [f"split-{pool.metadata.name}-{i}" for i in range(count)]
    if len(names[-1]) > MAX_NAME:
        raise CannotSplit(f"the parts' names would be longer than {MAX_NAME} characters: {names[-1]}")
    return [
        IPPool(
            metadata=Metadata(name=name, labels=pool.metadata.labels, annotations=pool.metadata.annotations),
            spec=msgspec.structs.replace(pool.spec, cidr=str(part)),
        )
        for name, part in zip(names, whole.subnets(new_prefix=prefix), strict=True)
    ]


def asking_by_name(pool: str, resources: Iterable[Resource]) -> Iterator[str]:
    """Who asks for the pool by name and will not find it any more, one sentence each."""
    for resource in resources:
        for kind, names in _ANNOTATIONS:
            if isinstance(resource, kind):
                for annotation in names:
                    if pool in _named(resource.metadata.annotations.get(annotation, "")):
                        yield f"{resource.display} asks for pool {pool} by name ({annotation}): name the parts instead"


def _named(text: str) -> tuple[str, ...]:
    """A JSON list of names or CIDRs; what is none names nothing."""
    try:
        found = json.loads(text) if text else []
    except ValueError:
        return ()
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, list) else ()
