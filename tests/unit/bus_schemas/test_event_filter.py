"""Which events a filter lets through, and what it says of conditions that nothing can meet."""

from __future__ import annotations

import pytest

from bus_schemas.event_filter import EventFilter
from bus_schemas.events import Event, Severity
from bus_schemas.happenings import completed, namespaces_of, pods_of
from bus_schemas.ids import NodeName


def event(name: str, object_: str, node: str = "", severity: Severity = "info", **detail: str) -> Event:
    domain, _, what = name.partition(".")
    where = NodeName(node) if node else None
    return Event(
        time=1.0, domain=domain, what=what, severity=severity, node=where, object=object_, message="m", detail=detail
    )


ASSIGNED = event("ipam.assigned", "shop/web")
DENIED = event("policy.denied", "shop/db", "node2", "warning", peer_pod="other/client")
LOST = event("node.lost", "node2", "node2", "error")
IN_FORCE = event("policy.in_force", "NetworkPolicy/guarded/all", "node1")
ROUTE = event("route.changed", "10.244.0.0/26")
EVERYTHING = (ASSIGNED, DENIED, LOST, IN_FORCE, ROUTE)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (EventFilter(), EVERYTHING),
        (EventFilter(domains=frozenset({"policy"})), (DENIED, IN_FORCE)),
        (EventFilter(domains=frozenset({"policy", "ipam"})), (ASSIGNED, DENIED, IN_FORCE)),
        (EventFilter(whats=frozenset({"assigned"})), (ASSIGNED,)),
        (EventFilter(whats=frozenset({"node.lost", "policy.denied"})), (DENIED, LOST)),
        (EventFilter(nodes=frozenset({"node2"})), (DENIED, LOST)),
        (EventFilter(namespaces=frozenset({"other"})), (DENIED,)),
        (EventFilter(namespaces=frozenset({"guarded"})), (IN_FORCE,)),
        (EventFilter(pods=("shop/db",)), (DENIED,)),
        (EventFilter(pods=("w*",)), (ASSIGNED,)),
        (EventFilter(pods=("shop/*",)), (ASSIGNED, DENIED)),
        (EventFilter(pods=("other/client",)), (DENIED,)),
        (EventFilter(pods=("10.244.0.0/26",)), ()),
        (EventFilter(severity="warning"), (DENIED, LOST)),
        (EventFilter(severity="error"), (LOST,)),
        (EventFilter(domains=frozenset({"policy"}), nodes=frozenset({"node1"})), (IN_FORCE,)),
    ],
)
def test_what_passes(wanted: EventFilter, found: tuple[Event, ...]) -> None:
    assert tuple(filter(wanted.matches, EVERYTHING)) == found


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (
            EventFilter(domains=frozenset({"polizy"})),
            "there is no domain polizy: pod, ipam, route, bgp, policy, node, kube",
        ),
        (EventFilter(whats=frozenset({"dennied"})), "there is no event dennied: docs/events.md lists them"),
        (EventFilter(severity="bad"), "there is no severity bad: info, warning, error"),
    ],
)
def test_what_nothing_can_meet_is_said(wanted: EventFilter, says: str) -> None:
    assert wanted.faults() == [says]
    assert EventFilter(domains=frozenset({"pod"}), whats=frozenset({"pod.started"}), severity="info").faults() == []


def test_an_event_is_completed_from_the_table_unless_it_says_it_itself() -> None:
    told = completed(event("node.link_gone", "shop/db"))
    assert (told.severity, told.advice) == ("error", "Restart the pod.")
    own = Event(time=1.0, domain="node", what="link_gone", advice="Do nothing.", message="m")
    assert completed(own) is own
    unknown = event("bus.strange", "")
    assert completed(unknown) is unknown


def test_whom_an_event_concerns() -> None:
    assert pods_of(DENIED) == {"shop/db", "other/client"}
    assert pods_of(event("policy.in_force", "NetworkPolicy/a/b", pods="a/x,a/y")) == {"a/x", "a/y"}
    assert pods_of(event("policy.not_compiled", "globalnetworkpolicy/x")) == frozenset()
    assert namespaces_of(event("policy.cut", "shop/db", policy="NetworkPolicy/a/b")) == {"shop", "a"}
