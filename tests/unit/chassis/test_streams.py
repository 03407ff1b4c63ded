"""What the server answers is compared with what was asked."""

from __future__ import annotations

import pytest

from bus_schemas.subjects import STREAMS, Stream
from chassis.streams import differences, too_old, wanted


def test_an_ignored_field_is_named_with_asked_and_got() -> None:
    asked = wanted(STREAMS[Stream.STATUS], 3)
    old = {key: value for key, value in asked.items() if key not in ("allow_atomic", "subject_delete_marker_ttl")}
    assert differences(asked, old | {"num_replicas": 1}) == [
        "TORTIE_STATUS: asked for num_replicas = 3, the server has 1",
        "TORTIE_STATUS: asked for allow_atomic = True, the server has None",
        "TORTIE_STATUS: asked for subject_delete_marker_ttl = 3600000000000, the server has None",
    ]


def test_what_the_server_adds_does_not_matter() -> None:
    asked = wanted(STREAMS[Stream.ROUTES], 1)
    assert differences(asked, asked | {"compression": "none", "metadata": {"_nats.ver": "2.15.1"}}) == []


def test_state_streams_keep_one_message_and_events_keep_all() -> None:
    assert wanted(STREAMS[Stream.POLICY], 1)["max_msgs_per_subject"] == 1
    events = wanted(STREAMS[Stream.EVENTS], 1)
    assert (events["max_msgs_per_subject"], events["max_age"]) == (-1, 7 * 86400 * 10**9)


@pytest.mark.parametrize(
    ("version", "old"), [("2.9.10", True), ("2.11.9", True), ("2.12.0-beta.1", False), ("2.15.1", False), ("?", True)]
)
def test_versions(version: str, old: bool) -> None:
    assert too_old(version) is old
