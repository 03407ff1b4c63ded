"""Pools that Kubernetes has side by side and that may not be: which of them count. Pure.

The API server cannot compare two objects, so both are there. The older one stays as it is; a pool whose change is not
possible (its blocks would be without a pool) is refused and stays what it was.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from bus_schemas.manifests import validate_against
from bus_schemas.resources import IPPool

K = TypeVar("K", bound=Hashable)


def settle(candidates: Mapping[K, IPPool], before: Mapping[K, IPPool]) -> dict[K, tuple[str, ...]]:
    """The faults of those that do not count. `before`: what was in force, which stays where a change is refused."""
    faults: dict[K, tuple[str, ...]] = {}
    counting: dict[K, IPPool] = {}
    for key, pool in sorted(candidates.items(), key=lambda item: (item[0] not in before, _age(item[1]))):
        earlier = [before[key]] if key in before else []
        found = validate_against(pool, [*counting.values(), *earlier])
        if found:
            faults[key] = tuple(map(str, found))
            if key in before:
                counting[key] = before[key]
        else:
            counting[key] = pool
    return faults


def _age(pool: IPPool) -> tuple[str, str]:
    return pool.metadata.creation_timestamp, pool.metadata.name
