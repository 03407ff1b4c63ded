"""The merge of snapshot and live feed, as a table of histories and as a state machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.ledger import Ledger, disjoint, overlap


def hear(ledger: Ledger, subject: str, sequence: int, *, tombstone: bool = False, now: float = 0.0) -> bool:
    return ledger.heard(subject, sequence, tombstone=tombstone, now=now, ttl_s=10)


def test_newer_is_news_older_and_equal_are_not() -> None:
    ledger = Ledger()
    assert hear(ledger, "a", 5)
    assert not hear(ledger, "a", 5)
    assert not hear(ledger, "a", 4)
    assert hear(ledger, "a", 6)
    assert (ledger.sequence("a"), ledger.highest) == (6, 6)


def test_an_old_value_does_not_bring_a_deleted_key_back() -> None:
    ledger = Ledger()
    assert hear(ledger, "a", 6, tombstone=True)
    assert not hear(ledger, "a", 5)
    assert "a" not in ledger
    assert hear(ledger, "a", 7)
    assert "a" in ledger


def test_tombstones_are_forgotten_when_they_have_expired() -> None:
    ledger = Ledger()
    hear(ledger, "a", 1, tombstone=True, now=0)
    hear(ledger, "b", 2, tombstone=True, now=5)
    hear(ledger, "a", 3, tombstone=True, now=6)
    ledger.expire(15)
    assert (ledger.sequence("a"), ledger.sequence("b")) == (3, 0)
    ledger.expire(16)
    assert ledger.sequence("a") == 0


def test_sweep_takes_what_is_missing_and_nothing_that_is_newer() -> None:
    ledger = Ledger()
    for sequence, subject in enumerate("abcd", 1):
        hear(ledger, subject, sequence)
    assert ledger.sweep({"a"}, upto=3) == ["b", "c"]
    assert set(ledger) == {"a", "d"}


def test_lost_keys_are_kept_until_the_next_word() -> None:
    ledger = Ledger()
    hear(ledger, "a", 100)
    hear(ledger, "b", 101)
    hear(ledger, "c", 102)
    ledger.lose()
    assert ledger.sweep(set(), upto=1000) == []
    assert ledger.kept == {"a", "b", "c"}
    assert hear(ledger, "a", 1)
    assert hear(ledger, "b", 2, tombstone=True)
    assert ledger.kept == {"c"}
    assert set(ledger) == {"a", "c"}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=12),
    st.lists(st.integers(0, 11), max_size=40),
)
def test_any_order_and_repetition_of_messages_ends_the_same(written: list[tuple[str, bool]], order: list[int]) -> None:
    """Once the last message of each key was heard, whatever else was heard when, the ledger is as the stream is."""
    ledger = Ledger()
    last = {subject: (sequence, tombstone) for sequence, (subject, tombstone) in enumerate(written, 1)}
    for i in order:
        if i < len(written):
            hear(ledger, written[i][0], i + 1, tombstone=written[i][1])
    for subject, (sequence, tombstone) in last.items():
        hear(ledger, subject, sequence, tombstone=tombstone)
    assert set(ledger) == {subject for subject, (_, tombstone) in last.items() if not tombstone}
    assert all(ledger.sequence(subject) == sequence for subject, (sequence, _) in last.items())


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*.c", "a.b.*", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b.c", False),
        ("a.x.*", "a.y.*", False),
    ],
)
def test_overlap(one: str, other: str, both: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is both


def test_disjoint_groups() -> None:
    assert disjoint(["a.*", "a.b", "c.*", "a.*"], 10) == [["a.*", "c.*"], ["a.b"]]
    assert disjoint(["a", "b", "c"], 2) == [["a", "b"], ["c"]]
