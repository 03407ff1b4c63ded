"""How the sources stand, in the sentences of health. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from services.kube_bridge.cursor import Standing
from services.kube_bridge.sources import Source

NOTHING, UNREACHABLE, FORBIDDEN = "mirror", "kubernetes", "forbidden"
ABSENT, KEPT = "not served", "kept"
NAMED = 6
"""How many are spelt out."""


class Stand(NamedTuple):
    source: Source
    standing: Standing
    why: str


class Report(NamedTuple):
    """By the names under which health has them; None: it is well."""

    causes: Mapping[str, str | None]
    notes: Mapping[str, str | None]


def report(stands: Iterable[Stand], leftovers: Mapping[Source, int]) -> Report:
    by: dict[Standing, list[Stand]] = {standing: [] for standing in Standing}
    for stand in stands:
        by[stand.standing].append(stand)
    served = {s.source.resource for standing in Standing if standing is not Standing.ABSENT for s in by[standing]}
    absent = [stand for stand in by[Standing.ABSENT] if stand.source.resource not in served]
    starting, failing, forbidden = by[Standing.STARTING], by[Standing.FAILING], by[Standing.FORBIDDEN]
    return Report(
        {
            NOTHING: f"not read yet: {_names(starting)}" if starting else None,
            UNREACHABLE: f"cannot follow {_names(failing)}: {failing[0].why}" if failing else None,
            FORBIDDEN: (
                f"may not read {_names(forbidden)} ({forbidden[0].why}): grant get, list and watch; what is on the bus "
                "of them stays"
                if forbidden
                else None
            ),
        },
        {
            ABSENT: f"no such resource in this cluster, looked for again later: {_names(absent)}" if absent else None,
            KEPT: (
                "; ".join(
                    f"{count} {source.name} stay in force though their CRD is gone"
                    for source, count in leftovers.items()
                )
                or None
            ),
        },
    )


def _names(stands: list[Stand]) -> str:
    names = [stand.source.name for stand in stands]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
