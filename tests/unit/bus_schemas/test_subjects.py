"""Subjects and keys: a bijection, and families that cannot be mistaken for one another."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas import subjects
from bus_schemas.subjects import FAMILIES, PREFIX, STREAMS, Family, family_of, live, stored

TOKENS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.data())
def test_a_subject_gives_its_key_back(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(FAMILIES))
    key = tuple(data.draw(TOKENS) for _ in family.key)
    subject = family.subject(*key)
    assert family.parse(subject) == key
    assert family_of(subject) == (family, key)
    assert subject_matches(family.filter(), subject)
    assert subject_matches(family.filter(*key[:1]), subject)
    assert stored(live(subject)) == subject


@given(st.data())
def test_a_key_is_within_the_subjects_of_its_stream_alone(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(FAMILIES))
    subject = family.subject(*(data.draw(TOKENS) for _ in family.key))
    streams = [
        spec.stream
        for spec in STREAMS.values()
        if any(subject_matches(PREFIX + pattern, subject) for pattern in spec.subjects)
    ]
    assert streams == [family.stream]


@pytest.mark.parametrize(("one", "other"), list(combinations(FAMILIES, 2)), ids=lambda family: family.name)
def test_no_subject_is_of_two_families(one: Family[Any], other: Family[Any]) -> None:
    assert other.parse(one.subject(*("x" for _ in one.key))) is None


@pytest.mark.parametrize("subject", ["", PREFIX, "tortie.v1.ipam.block", "tortie.v1.ipam.block.=zz", "other.thing"])
def test_foreign_subjects_are_of_no_family(subject: str) -> None:
    assert family_of(subject) is None


def test_requests_have_subjects_of_their_own() -> None:
    names = [rpc.subject for rpc in subjects.RPCS]
    assert len(set(names)) == len(names)
    assert all(family_of(name) is None for name in names)


def subject_matches(pattern: str, subject: str) -> bool:
    """NATS' rule: `*` is one token, `>` is one or more at the end."""
    wanted, given_ = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given_) >= len(wanted) and subject_matches(
            ".".join(wanted[:-1]), ".".join(given_[: len(wanted) - 1])
        )
    return len(wanted) == len(given_) and all(w in ("*", g) for w, g in zip(wanted, given_, strict=True))
