"""Repairs are immediate until somebody fights for the object; then ever later, and at once again when he is gone."""

from __future__ import annotations

from services.node_dataplane.contention import CALM_S, FIRST_REST_S, FREE, LONGEST_REST_S, Contention
from services.node_dataplane.repairs import NAMED, Repair, Repairs


def fought_for(contention: Contention, key: str, now: float) -> bool:
    return [contention.repaired(key, now) for _ in range(FREE)][-1]


def test_the_first_repairs_are_immediate() -> None:
    contention = Contention()
    for _ in range(FREE - 1):
        assert not contention.repaired("a", 0.0)
        assert not contention.rests("a", 0.0)
    assert contention.repaired("a", 0.0)
    assert contention.rests("a", FIRST_REST_S - 0.1)
    assert not contention.rests("a", FIRST_REST_S)
    assert not contention.rests("b", 0.0)


def test_pauses_grow_to_the_longest_and_are_told_once() -> None:
    contention, now, pauses = Contention(), 0.0, []
    assert fought_for(contention, "a", now)
    for _ in range(10):
        pauses.append(contention.contested()["a"])
        now += pauses[-1]
        assert not contention.rests("a", now)
        assert not contention.repaired("a", now)
    assert pauses[:3] == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]
    assert pauses[-1] == LONGEST_REST_S


def test_what_nobody_breaks_any_more_is_as_new() -> None:
    contention = Contention()
    contention.repaired("b", 0.0)
    fought_for(contention, "a", 0.0)
    assert contention.calm(CALM_S - 1) == []
    assert contention.calm(CALM_S) == ["a"]
    assert contention.calm(CALM_S) == []
    assert not contention.contested()
    assert not contention.repaired("a", CALM_S)


def test_thousands_of_repairs_are_few_events_and_a_fight_is_one() -> None:
    told: list[tuple[str, str, str]] = []
    repairs = Repairs(lambda: 0.0)
    many = [Repair(n, f"10.0.{n >> 8}.{n & 255}/32", "It was put right.", "ip monitor route") for n in range(1000)]
    assert repairs.tell(many, lambda *event: told.append(event)) == 1000
    assert [what for what, *_ in told] == ["repaired"] * (NAMED + 1)
    assert "980 more" in told[-1][2]

    told.clear()
    for _ in range(FREE + 3):
        repairs.tell(many[:1], lambda *event: told.append(event))
    fights = [event for event in told if event[0] == "contested"]
    assert [object_ for _, object_, _ in fights] == ["10.0.0.0/32"]
    assert "ip monitor route" in fights[0][2]
    assert repairs.rests(0)
    [phrase] = repairs.contested
    assert phrase.startswith("10.0.0.0/32 (repaired ")
