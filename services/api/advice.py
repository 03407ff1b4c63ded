"""What is strange about objects that are about to be applied beside all others, as `bus_schemas.lint` has it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bus_schemas.lint import CONCERNED, Landscape, lockouts, of_one
from bus_schemas.lint.lockout import MATTERS
from bus_schemas.resources import Resource
from services.api.kinds import Kind

Key = tuple[Kind, tuple[str, str]]


def advice(arriving: Sequence[Resource], existing: Callable[[Kind], Iterable[Resource]]) -> Mapping[Key, list[str]]:
    """Sentences by object. Notes on what an object does not do yet are left out: the rest may follow."""
    concerned = [resource for resource in arriving if type(resource) in CONCERNED]
    if not concerned:
        return {}
    replaced = {(type(resource), resource.key) for resource in arriving}

    def of(kind: Kind) -> Iterable[Resource]:
        yield from (resource for resource in arriving if isinstance(resource, kind))
        yield from (resource for resource in existing(kind) if (kind, resource.key) not in replaced)

    landscape = Landscape(of, cluster=True)
    found: dict[Key, list[str]] = {}
    for resource in concerned:
        texts = [finding.text for finding in of_one(resource, landscape) if finding.severity == "warning"]
        if texts:
            found[type(resource), resource.key] = texts
    by_name: dict[str, Key] = {r.display: (type(r), r.key) for r in concerned if isinstance(r, MATTERS)}
    for finding in lockouts(concerned, landscape):
        found.setdefault(by_name[finding.object], []).append(finding.text)
    return found
