"""Which events somebody wants to see. Pure.

    EventFilter(domains={"policy"}, pods=("shop/*",)).matches(event)

Conditions of different kinds are ANDed, several of one kind ORed; none of a kind means any.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from bus_schemas.events import SEVERITIES, Event
from bus_schemas.happenings import BY_NAME, DOMAINS, namespaces_of, pods_of


@dataclass(frozen=True)
class EventFilter:
    domains: frozenset[str] = frozenset()
    whats: frozenset[str] = frozenset()
    """`denied`, or with its domain `policy.denied`."""
    nodes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    pods: tuple[str, ...] = ()
    """`namespace/name`, or a name in any namespace; `*` stands for any letters."""
    severity: str = ""
    """At least this one of SEVERITIES."""

    def matches(self, event: Event) -> bool:
        return (
            (not self.domains or event.domain in self.domains)
            and (not self.whats or not self.whats.isdisjoint((event.what, f"{event.domain}.{event.what}")))
            and (not self.nodes or event.node in self.nodes)
            and (not self.severity or _rank(event.severity) >= _rank(self.severity))
            and (not self.namespaces or not self.namespaces.isdisjoint(namespaces_of(event)))
            and (not self.pods or any(_is(pod, self.pods) for pod in pods_of(event)))
        )

    def faults(self) -> list[str]:
        """What in it can never match, one sentence each: a misspelt word would look like silence."""
        known_whats = {what for _, what in BY_NAME} | {one.name for one in BY_NAME.values()}
        faults = [f"there is no domain {d}: {', '.join(DOMAINS)}" for d in sorted(self.domains - DOMAINS.keys())]
        faults += [f"there is no event {what}: docs/events.md lists them" for what in sorted(self.whats - known_whats)]
        if self.severity and self.severity not in SEVERITIES:
            faults.append(f"there is no severity {self.severity}: {', '.join(SEVERITIES)}")
        return faults


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _is(pod: str, wanted: tuple[str, ...]) -> bool:
    return any(fnmatchcase(pod if "/" in pattern else pod.partition("/")[2], pattern) for pattern in wanted)
