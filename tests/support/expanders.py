"""One world, many ways to hear of it: the input transformations that must never change a core's output.

A *world* is what is true at one moment, one Fact per key. A *history* is a list of worlds, each derived from the one
before it. An expander tells a history as *batches* of facts (the core is flushed after every batch); however it is
told, a core that depends on current state only ends with the same output.

    @pytest.mark.parametrize("tell", EXPANDERS.values(), ids=EXPANDERS)
    def test_it(tell):
        assert outcome(tell([empty, base, changed])) == expected
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bus_schemas.subjects import Fact, Family, Key

World = Sequence[Fact]
History = Sequence[World]
Batches = list[list[Fact]]
Expander = Callable[[History], Batches]

Where = tuple[Family[Any], Key]


def by_key(world: Iterable[Fact]) -> dict[Where, Fact]:
    """The world as a mapping; a later fact of a key replaces an earlier one, an absent value stays listed."""
    return {(fact.family, fact.key): fact for fact in world}


def world(*parts: Fact | Iterable[Fact]) -> list[Fact]:
    """A world from single facts and other worlds: a later one replaces an earlier one of the same key, and a fact
    without a value takes the key out."""
    facts: list[Fact] = []
    for part in parts:
        facts.extend([part] if isinstance(part, Fact) else part)
    return [fact for fact in by_key(facts).values() if fact.value is not None]


def gone(fact: Fact) -> Fact:
    """The tombstone of a fact's key."""
    return Fact(fact.family, fact.key, None, fact.sequence + 1)


def difference(before: World, after: World) -> list[Fact]:
    """What has to be told to somebody who knows `before`: changed and new keys, then those that vanished."""
    old, new = by_key(before), by_key(after)
    told = [fact for key, fact in new.items() if key not in old or old[key].value != fact.value]
    return told + [gone(fact) for key, fact in old.items() if key not in new]


def _steps(history: History) -> Batches:
    return [difference(before, after) for before, after in zip([[], *history], history, strict=False)]


def plain(history: History) -> Batches:
    """Every change of the world as one batch, in its own order."""
    return _steps(history)


def reverse(history: History) -> Batches:
    """The facts of every batch in reverse order: who refers to whom must not matter."""
    return [batch[::-1] for batch in _steps(history)]


def split(history: History) -> Batches:
    """Every fact alone, flushed at once: all the states in between are passed through."""
    return [[fact] for batch in _steps(history) for fact in batch]


def split_reverse(history: History) -> Batches:
    return [[fact] for batch in reverse(history) for fact in batch]


def squash(history: History) -> Batches:
    """Everything in one batch, the last value of each key only: what a slow follower sees."""
    return [list(by_key(fact for batch in _steps(history) for fact in batch).values())]


def duplicate(history: History) -> Batches:
    """Every fact twice in a row, and every batch twice."""
    return [twice for batch in _steps(history) for twice in [[f for fact in batch for f in (fact, fact)]] * 2]


def insert_empties(history: History) -> Batches:
    """Between two worlds everything vanishes, and nothing at all happens now and then."""
    batches: Batches = [[]]
    before: World = []
    for after in history:
        batches += [[gone(fact) for fact in before], [], list(after), []]
        before = after
    return batches


def retell(history: History) -> Batches:
    """Every world told whole again after its change, as after a reconnection."""
    return [batch for step, state in zip(_steps(history), history, strict=True) for batch in (step, list(state))]


def delete_unknown(history: History) -> Batches:
    """Every key is deleted before it ever was."""
    everything = by_key(fact for state in history for fact in state).values()
    return [[gone(fact) for fact in everything], *_steps(history)]


EXPANDERS: dict[str, Expander] = {
    tell.__name__: tell
    for tell in (
        plain,
        reverse,
        split,
        split_reverse,
        squash,
        duplicate,
        insert_empties,
        retell,
        delete_unknown,
    )
}
