"""Who tells of faults, and when."""

from __future__ import annotations

from bus_schemas.events import Event
from bus_schemas.subjects import Key
from services.policy_compiler.core import Changes
from services.policy_compiler.faults import Fault
from services.policy_compiler.news import KEPT_S, News

FAULT = Fault("networkpolicy/shop/a", "spec.selector: no")
RAISED, CLEARED = Changes(raised=(FAULT,)), Changes(cleared=(FAULT,))


class Replica:
    def __init__(self, *, holds: bool) -> None:
        self.holds = holds
        self.told: list[Event] = []
        self.news = News(self.told.append, lambda: self._covers)

    def _covers(self, key: Key) -> bool:
        assert key == (FAULT.object,)
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
