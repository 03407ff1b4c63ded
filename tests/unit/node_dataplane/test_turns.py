"""When the self-check looks."""

from __future__ import annotations

import pytest

from services.node_dataplane.turns import LONGEST_REST_S, SHARE, Turns, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90s", 90.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("100ms", 0.1),
        ("0", 0.0),
        ("0s", 0.0),
        ("", None),
        ("90", None),
        ("90 s", None),
        ("s", None),
    ],
)
def test_durations(text: str, value: float | None) -> None:
    assert seconds(text) == (pytest.approx(value) if value is not None else None)


def test_what_was_cheap_may_be_done_again_and_what_was_dear_rests() -> None:
    turns = Turns()
    assert turns.due("kernel", 0.0)
    turns.took("kernel", 0.0, 1.0)
    assert not turns.due("kernel", 1.0 + SHARE - 0.1, heard=True)
    assert turns.due("kernel", 1.0 + SHARE)
    assert turns.due("policy", 1.0), "each rests for itself"
    turns.took("policy", 0.0, 1000.0)
    assert turns.due("policy", 1000.0 + LONGEST_REST_S)


def test_a_period_makes_turns_rarer_but_what_is_heard_is_looked_at() -> None:
    turns = Turns()
    turns.pace({"route_refresh_interval": "90s"})
    assert turns.due("kernel", 0.0), "never looked at"
    turns.took("kernel", 0.0, 0.0)
    assert not turns.due("kernel", 89.0)
    assert turns.due("kernel", 89.0, heard=True)
    assert turns.due("kernel", 90.0)
    assert turns.due("policy", 0.0)


def test_zero_means_only_when_heard_and_nonsense_means_nothing() -> None:
    turns = Turns()
    turns.pace({"route_refresh_interval": "0", "nftables_refresh_interval": "soon"})
    for part in ("kernel", "policy"):
        turns.took(part, 0.0, 0.0)
    assert not turns.due("kernel", 1e9)
    assert turns.due("kernel", 1e9, heard=True)
    assert turns.due("policy", 1.0)


def test_a_configuration_that_is_gone_asks_for_nothing() -> None:
    turns = Turns()
    turns.pace({"nftables_refresh_interval": "1h"})
    turns.took("policy", 0.0, 0.0)
    assert not turns.due("policy", 10.0)
    turns.pace({})
    assert turns.due("policy", 10.0)
