"""Which life of the address records a replica knows, whatever it hears, in whatever order."""

from __future__ import annotations

from bus_schemas.ipam import Epoch
from bus_schemas.subjects import EPOCH, Fact
from services.ipam.life import Life


def epoch(name: str, sequence: int, state: str = "ready") -> Fact:
    return Fact(EPOCH, (), Epoch(id=name, state=state, began=1.0), sequence)


def test_a_late_word_of_the_same_life_counts_for_nothing() -> None:
    life = Life()
    life.heard(epoch("one", 7))
    life.heard(epoch("one", 3, "recovering"))
    assert life.token == "one"


def test_a_stream_that_was_made_anew_counts_from_one_again() -> None:
    life = Life()
    life.heard(epoch("one", 500))
    life.heard(epoch("two", 1, "recovering"))  # that the first one was lost was never heard
    assert life.is_anew
    assert not life.token
    life.heard(epoch("two", 40))
    assert life.is_anew
    life.begin_anew()
    assert life.token == "two"
    life.heard(epoch("one", 30))
    assert life.token == "two", "a late word of a former life"


def test_what_was_lost_is_closed_until_there_is_another() -> None:
    life = Life()
    life.heard(epoch("one", 500))
    life.heard(Fact(EPOCH, (), None, 0))
    assert (life.token, life.is_anew) == ("", False)
    life.heard(epoch("one", 2))  # a server that lagged behind seemed to have lost it
    assert life.token == "one"
