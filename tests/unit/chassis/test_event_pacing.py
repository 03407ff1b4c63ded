"""How many events are told one by one, and what becomes of the rest."""

from __future__ import annotations

import pytest

from bus_schemas.events import Event
from chassis.event_pacing import SETTLE_S, WINDOW_S, EventPacing


def event(object_: str, what: str = "changed", **detail: str) -> Event:
    return Event(time=1.0, domain="route", what=what, object=object_, message="m", detail=detail)


def test_a_storm_is_a_few_events_and_a_number() -> None:
    pacing = EventPacing()
    told = [one for i in range(5000) if (one := pacing.see(event(f"10.{i}.0.0/16"), 0.0))]
    assert (len(told), pacing.due, pacing.settle(SETTLE_S - 0.1)) == (20, SETTLE_S, [])
    (total,) = pacing.settle(SETTLE_S)
    assert (total.object, total.detail) == ("", {"count": "4980"})
    assert "4,980 more of route.changed" in total.message
    assert "10.20.0.0/16, 10.21.0.0/16" in total.message
    assert (pacing.due, pacing.settle(100.0)) == (None, [])


def test_a_storm_that_goes_on_stays_few() -> None:
    pacing = EventPacing()
    told, summed = 0, 0
    for tick in range(600):  # a minute, a hundred a second
        now = tick / 10
        told += sum(pacing.see(event(str(i)), now) is not None for i in range(10))
        summed += sum(int(one.detail["count"]) for one in pacing.settle(now))
    assert told + summed == 6000 or told + summed + sum(int(o.detail["count"]) for o in pacing.settle(1e9)) == 6000
    assert told <= 20 + 60 / WINDOW_S * 20


def test_the_allowance_comes_back() -> None:
    pacing = EventPacing(lambda *_: 2)
    assert [pacing.see(event("a"), 0.0) is not None for _ in range(2)] == [True, True]
    assert pacing.see(event("a"), WINDOW_S / 2) is not None
    assert pacing.see(event("a"), WINDOW_S / 2) is None


def test_kinds_do_not_share_an_allowance() -> None:
    pacing = EventPacing(lambda domain, what: 1)
    assert pacing.see(event("a"), 0.0)
    assert pacing.see(event("a", "resolved"), 0.0)
    assert pacing.see(event("a"), 0.0) is None


def test_who_counts_by_himself_is_left_alone() -> None:
    pacing = EventPacing(lambda *_: None)
    assert all(pacing.see(event("a"), 0.0) for _ in range(1000))


def test_what_counts_several_things_is_summed() -> None:
    pacing = EventPacing(lambda *_: 1)
    pacing.see(event("a"), 0.0)
    pacing.see(event("b", count="40"), 0.0)
    pacing.see(event("c"), 0.0)
    assert pacing.settle(SETTLE_S)[0].detail == {"count": "41"}


@pytest.mark.parametrize("many", [1, 20])
def test_a_few_are_told_as_they_are(many: int) -> None:
    pacing = EventPacing()
    sent = [event(str(i)) for i in range(many)]
    assert [pacing.see(one, 0.0) for one in sent] == sent
    assert pacing.due is None
