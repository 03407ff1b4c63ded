"""What is strange about objects that are about to be applied beside all others, as `bus_schemas.lint` has it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bus_schemas.lint import CHECKS, Landscape, lint
from bus_schemas.resources import Resource
from services.api.kinds import Kind

Key = tuple[Kind, tuple[str, str]]


def advice(arriving: Sequence[Resource], existing: Callable[[Kind], Iterable[Resource]]) -> Mapping[Key, list[str]]:
    """Sentences by object. Notes on what an object does not do yet are left out: the rest may follow."""
    concerned = [resource for resource in arriving if type(resource) in CHECKS]
    if not concerned:
        return {}
    replaced = {(type(resource), resource.key) for resource in arriving}

    def of(kind: Kind) -> Iterable[Resource]:
        yield from (resource for resource in arriving if isinstance(resource, kind))
        yield from (resource for resource in existing(kind) if (kind, resource.key) not in replaced)

    landscape = Landscape(of, cluster=True)
    found: dict[Key, list[str]] = {}
    for resource in concerned:
        texts = [finding.text for finding in lint([resource], landscape) if finding.severity == "warning"]
        if texts:
            found[type(resource), resource.key] = texts
    return found
