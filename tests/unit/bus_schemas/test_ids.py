"""Any name is one subject token, and comes back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.ids import MalformedToken, escape, unescape

NAMES = st.text(st.characters(exclude_categories=["Cs"]))


@given(NAMES)
def test_escape_and_back(name: str) -> None:
    token = escape(name)
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", token)
    assert unescape(token) == name


@given(NAMES, NAMES)
def test_different_names_are_different_tokens(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) is (one == other)


@given(st.text(alphabet="ab=_09AFaf.*> ", max_size=8))
def test_a_token_is_read_only_in_its_one_spelling(token: str) -> None:
    try:
        name = unescape(token)
    except MalformedToken:
        return
    assert escape(name) == token


@pytest.mark.parametrize("token", ["", "=", "=4", "=zz", "=2e", "=41", "a.b", "=FF", "a b", "*"])
def test_what_escape_cannot_have_made_is_refused(token: str) -> None:
    with pytest.raises(MalformedToken):
        unescape(token)


@pytest.mark.parametrize(
    ("name", "token"),
    [("", "_"), ("_", "=5F"), ("10.0.0.0/26", "10=2E0=2E0=2E0=2F26"), ("fd00::/64", "fd00=3A=3A=2F64"), ("a_b", "a_b")],
)
def test_the_spelling_on_the_wire(name: str, token: str) -> None:
    assert escape(name) == token
    assert unescape(token) == name
