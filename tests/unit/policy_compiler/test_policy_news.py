"""Who tells of faults, and when."""

from __future__ import annotations

import pytest

from bus_schemas.events import Event
from bus_schemas.ids import GroupId, NodeName, RulesId
from bus_schemas.subjects import Key
from services.policy_compiler.core import Changes, Governed, PolicyChange
from services.policy_compiler.faults import Fault
from services.policy_compiler.news import EXACT, KEPT_S, News

FAULT = Fault("networkpolicy/shop/a", "spec.selector: no")
CHANGE = PolicyChange(RulesId("networkpolicy/shop/a"), "NetworkPolicy/shop/a", "changed", GroupId("g"))
RAISED, CLEARED = Changes(raised=(FAULT,)), Changes(cleared=(FAULT,))


class Replica:
    def __init__(self, *, holds: bool) -> None:
        self.holds = holds
        self.told: list[Event] = []
        self.news = News(self.told.append, lambda: self._covers, lambda _: Governed(2, frozenset({NodeName("node1")})))

    def _covers(self, key: Key) -> bool:
        assert key in ((FAULT.object,), (CHANGE.policy,))
        return self.holds


def test_whose_it_is_tells_once() -> None:
    replica, standby = Replica(holds=True), Replica(holds=False)
    for each in (replica, standby):
        each.news.tell(RAISED, 100.0)
        each.news.look_again(101.0)
        each.news.tell(CLEARED, 102.0)
    assert [(event.what, event.time) for event in replica.told] == [("not_compiled", 100.0), ("resolved", 102.0)]
    assert not standby.told


def test_a_lease_that_comes_a_moment_later_is_not_too_late() -> None:
    replica = Replica(holds=False)
    replica.news.tell(RAISED, 100.0)
    replica.holds = True
    replica.news.look_again(100.5)
    replica.news.look_again(101.0)
    assert [event.what for event in replica.told] == ["not_compiled"]


def test_old_news_is_no_news() -> None:
    replica = Replica(holds=False)
    replica.news.tell(RAISED, 100.0)
    replica.news.look_again(101.0 + KEPT_S)
    replica.holds = True
    replica.news.look_again(102.0 + KEPT_S)
    assert not replica.told


def test_what_is_no_longer_so_is_told_as_that_alone() -> None:
    replica = Replica(holds=False)
    replica.news.tell(RAISED, 100.0)
    replica.news.tell(CLEARED, 101.0)
    replica.holds = True
    replica.news.look_again(102.0)
    assert [event.what for event in replica.told] == ["resolved"]


def test_a_changed_policy_is_told_with_whom_it_governs() -> None:
    replica = Replica(holds=True)
    replica.news.tell(Changes(policies=(CHANGE,)), 100.0)
    (event,) = replica.told
    assert event.message == "NetworkPolicy/shop/a was changed: it governs 2 endpoints on 1 node."
    assert event.detail == {"policy": "NetworkPolicy/shop/a", "change": "changed", "endpoints": "2", "nodes": "node1"}


def test_a_removed_policy_is_told() -> None:
    replica = Replica(holds=True)
    replica.news.tell(Changes(policies=(CHANGE._replace(change="removed", subject=None),)), 100.0)
    assert [event.message for event in replica.told] == [
        "NetworkPolicy/shop/a was removed: it governs nobody any more."
    ]


def test_the_policies_of_a_start_are_no_news() -> None:
    replica = Replica(holds=True)
    replica.news.tell(Changes(policies=(CHANGE,), raised=(FAULT,)), 100.0, first=True)
    assert [event.what for event in replica.told] == ["not_compiled"]


@pytest.mark.parametrize("many", [1, EXACT, EXACT + 100])
def test_only_a_few_are_counted_exactly(many: int) -> None:
    asked = 0

    def governed(_: GroupId | None) -> Governed:
        nonlocal asked
        asked += 1
        return Governed(0, frozenset())

    told: list[Event] = []
    news = News(told.append, lambda: lambda _: True, governed)
    news.tell(Changes(policies=tuple(CHANGE._replace(policy=RulesId(str(i))) for i in range(many))), 100.0)
    assert (len(told), asked) == (many, min(many, EXACT))
