from __future__ import annotations

from collections.abc import Iterable

from bus_schemas.resources import Namespace
from services.api.requests import Stored
from services.api.watch import Watch
from tests.support.api import NAMESPACE, resource

KEY = ("", "develop")
ONE = Stored(resource(NAMESPACE), 1)
TWO = Stored(resource(NAMESPACE.replace("test", "other")), 2)


def watch(*first: Stored, purpose: str | None = None) -> Watch:
    return Watch(
        lambda _, r: purpose is None or r.metadata.labels.get("purpose") == purpose, [(one, None) for one in first]
    )


def told(watch: Watch) -> list[tuple[str, int]]:
    return [(event, stored.sequence) for event, stored in watch.take()]


def change(watch: Watch, states: Iterable[Stored | None]) -> None:
    for stored in states:
        watch.change(Namespace, KEY, stored)


def test_it_begins_with_what_there_is() -> None:
    watching = watch(ONE)
    assert told(watching) == [("ADDED", 1)]
    assert told(watching) == []


def test_then_come_the_changes() -> None:
    watching = watch()
    for stored, event in ((ONE, ("ADDED", 1)), (TWO, ("MODIFIED", 2)), (None, ("DELETED", 2)), (ONE, ("ADDED", 1))):
        change(watching, [stored])
        assert told(watching) == [event]


def test_a_slow_reader_sees_the_last_state_only() -> None:
    watching = watch()
    change(watching, [ONE, TWO])
    assert told(watching) == [("ADDED", 2)]
    change(watching, [None, ONE])
    assert told(watching) == [("MODIFIED", 1)]
    change(watching, [TWO, None])
    assert told(watching) == [("DELETED", 1)]


def test_what_came_and_went_unseen_is_never_told() -> None:
    watching = watch()
    change(watching, [ONE, None])
    assert told(watching) == []


def test_an_object_that_no_longer_matches_is_deleted_for_the_watcher() -> None:
    watching = watch(purpose="test")
    change(watching, [ONE])
    assert told(watching) == [("ADDED", 1)]
    change(watching, [TWO])
    assert told(watching) == [("DELETED", 1)]
    change(watching, [TWO])
    assert told(watching) == []


def test_what_is_said_beside_an_object_is_news_too() -> None:
    watching = watch(ONE)
    assert told(watching) == [("ADDED", 1)]
    watching.change(Namespace, KEY, ONE, ("a rule cannot be compiled",))
    assert told(watching) == [("MODIFIED", 1)]
    watching.change(Namespace, KEY, ONE, ("a rule cannot be compiled",))
    assert told(watching) == []
    watching.change(Namespace, KEY, ONE)
    assert told(watching) == [("MODIFIED", 1)]
