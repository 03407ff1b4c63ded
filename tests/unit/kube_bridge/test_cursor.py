"""What a source is asked for next, after every kind of answer."""

from __future__ import annotations

import pytest

from services.kube_bridge.cursor import EXPIRED_PAGES, FIRST_WAIT_S, Cursor, Standing, Step
from services.kube_bridge.errors import Refused, Stalled, Unreachable

GONE = Refused(410, "Expired", "too old resource version: 1 (2)")
TOO_LARGE = Refused(504, "Timeout", "Too large resource version: 99, current: 7")
FORBIDDEN = Refused(403, "Forbidden", "pods is forbidden")
BROKEN = Refused(500, "InternalError", "no")
LOST = Unreachable("connection refused")


def watching(version: str = "7") -> Cursor:
    cursor = Cursor()
    cursor.listed(version)
    return cursor


def test_a_list_then_watches_from_the_last_event_or_bookmark() -> None:
    cursor = Cursor()
    assert cursor.step() is Step.STREAM_LIST
    cursor.listed("7")
    assert (cursor.step(), cursor.version, cursor.standing) == (Step.WATCH, "7", Standing.FOLLOWING)
    cursor.seen("9")
    assert cursor.ended(with_news=True) == 0
    assert (cursor.step(), cursor.version) == (Step.WATCH, "9")


@pytest.mark.parametrize("error", [LOST, Stalled("silent"), BROKEN], ids=["lost", "stalled", "500"])
def test_what_breaks_is_resumed_later_and_later(error: Unreachable | Refused) -> None:
    cursor = watching()
    waits = [cursor.failed(cursor.step(), error) for _ in range(12)]
    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-1] == cursor.max_s
    assert (cursor.step(), cursor.version) == (Step.WATCH, "7")
    assert (cursor.standing, cursor.why) == (Standing.FAILING, str(error))
    cursor.seen("8")
    assert (cursor.standing, cursor.failures) == (Standing.FOLLOWING, 0)


def test_one_break_is_nothing_to_tell() -> None:
    cursor = watching()
    cursor.failed(Step.WATCH, LOST)
    assert cursor.standing is Standing.FOLLOWING


@pytest.mark.parametrize("error", [GONE, TOO_LARGE], ids=["too old", "too new"])
def test_a_version_that_is_no_good_needs_a_list(error: Refused) -> None:
    cursor = watching()
    assert cursor.failed(Step.WATCH, error) == 0
    assert cursor.step() is Step.STREAM_LIST
    assert cursor.failed(Step.STREAM_LIST, error) > 0  # again: not in a hurry


@pytest.mark.parametrize("status", [400, 405, 422])
def test_a_server_that_does_not_stream_is_asked_in_pages_at_once(status: int) -> None:
    cursor = Cursor()
    assert cursor.failed(Step.STREAM_LIST, Refused(status, "Invalid", "sendInitialEvents")) == 0
    assert cursor.step() is Step.PAGE_LIST


def test_pages_that_expire_end_in_one_whole_list() -> None:
    cursor = Cursor(streams=False)
    for _ in range(EXPIRED_PAGES):
        assert cursor.step() is Step.PAGE_LIST
        cursor.failed(Step.PAGE_LIST, GONE)
    assert cursor.step() is Step.WHOLE_LIST
    cursor.listed("7")
    cursor.doubtful()
    assert cursor.step() is Step.PAGE_LIST


def test_forbidden_keeps_its_place() -> None:
    cursor = watching()
    assert cursor.failed(Step.WATCH, FORBIDDEN) == cursor.absent_s
    assert (cursor.standing, cursor.why, cursor.version) == (Standing.FORBIDDEN, "pods is forbidden", "7")
    cursor.opened()
    assert cursor.standing is Standing.FOLLOWING


def test_absent_begins_anew() -> None:
    cursor = watching()
    assert cursor.failed(Step.WATCH, Refused(404, "NotFound", "no")) == cursor.absent_s
    assert (cursor.standing, cursor.step()) == (Standing.ABSENT, Step.STREAM_LIST)


@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_when_to_come_back(status: int) -> None:
    cursor = watching()
    assert cursor.failed(Step.WATCH, Refused(status, "", "busy", retry_after_s=17)) == 17
    assert cursor.step() is Step.WATCH


def test_a_server_that_closes_every_watch_at_once_is_not_asked_in_a_loop() -> None:
    cursor = watching()
    waits = [cursor.ended(with_news=False) for _ in range(3)]
    assert waits == sorted(waits)
    assert waits[0] > 0
