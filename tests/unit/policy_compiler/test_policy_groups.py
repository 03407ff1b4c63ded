"""Groups: segments as a pure function of the members, and an order of writing that never loses one."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas import selectors
from bus_schemas.policy import SEGMENT_MEMBERS, Group
from services.policy_compiler.groups import (
    Groups,
    SegmentKey,
    addresses_of,
    ports_of,
    segment_of,
    segments_for,
    split_from,
)
from services.policy_compiler.members import Contents, NamedPort
from services.policy_compiler.selection import Selection

EVERYBODY = Selection("", selectors.ALL)
REF = addresses_of(EVERYBODY)


def contents(n: int) -> Contents:
    return Contents({}, (IPv4Address(0x0A000000 + n).packed,), (NamedPort("http", 6, 8080),), "c", True)


def members(group: Group) -> set[bytes]:
    width = 4 if group.of == "addresses" else 8
    return {group.v4[at : at + width] for at in range(0, len(group.v4), width)}


@pytest.mark.parametrize(
    ("size", "segments"),
    [(0, 1), (1, 1), (256, 1), (257, 2), (512, 2), (513, 3), (1024, 4), (1025, 5), (100_000, 391)],
)
def test_segments_for(size: int, segments: int) -> None:
    assert segments_for(size) == segments


@given(st.binary(min_size=4, max_size=4), st.integers(1, 3000))
def test_one_segment_more_moves_members_only_out_of_the_one_that_it_splits(member: bytes, segments: int) -> None:
    before, after = segment_of(member, segments), segment_of(member, segments + 1)
    assert 0 <= before < segments
    assert after == before or (before, after) == (split_from(segments), segments)


def test_one_member_across_a_boundary_rewrites_three_segments() -> None:
    groups = Groups()
    groups.hold(REF, map(contents, range(100 * SEGMENT_MEMBERS)))
    assert len(groups.flush()) == 100
    groups.move(EVERYBODY.uid, None, contents(100 * SEGMENT_MEMBERS))
    grown = groups.flush()
    assert {SegmentKey(REF.id, at) for at in (100, 0, split_from(100))} <= grown.keys()
    assert len(grown) <= 4
    groups.move(EVERYBODY.uid, contents(100 * SEGMENT_MEMBERS), None)
    joined = groups.flush()
    assert joined[SegmentKey(REF.id, 100)] is None
    assert len(joined) <= 4


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 2500), min_size=1, max_size=4))
def test_the_segments_do_not_depend_on_the_way_there(sizes: list[int]) -> None:
    groups = Groups()
    groups.hold(REF, [])
    reader: dict[SegmentKey, Group | None] = {}
    now = 0
    for size in sizes:
        for n in range(now, size):
            groups.move(EVERYBODY.uid, None, contents(n))
        for n in range(size, now):
            groups.move(EVERYBODY.uid, contents(n), None)
        now = size
        reader |= groups.flush()
    at_once = Groups()
    at_once.hold(REF, map(contents, range(now)))
    assert {key: group for key, group in reader.items() if group is not None} == at_once.flush()


def test_an_empty_group_has_a_segment() -> None:
    groups = Groups()
    groups.hold(REF, [])
    assert groups.flush() == {SegmentKey(REF.id, 0): Group(selector="all()")}
    assert groups.flush() == {}


def test_one_member_rewrites_one_segment() -> None:
    groups = Groups()
    groups.hold(REF, map(contents, range(2000)))
    assert len(groups.flush()) == 8
    groups.move(EVERYBODY.uid, None, contents(3000))
    ((key, group),) = groups.flush().items()
    assert group is not None
    assert contents(3000).addresses[0] in members(group)
    assert len(members(group)) < 2 * SEGMENT_MEMBERS
    assert (group.selector == "all()") == (key.segment == 0)


def test_ports() -> None:
    groups = Groups()
    ref = ports_of(EVERYBODY, "http")
    groups.hold(ref, [contents(1)])
    ((_, group),) = groups.flush().items()
    assert group == Group(of="ports", v4=bytes((10, 0, 0, 1, 6, 0, 0x1F, 0x90)), selector="all() :http")


def test_the_last_holder_takes_all_segments_away() -> None:
    groups = Groups()
    for _ in range(2):
        groups.hold(REF, map(contents, range(300)))
    groups.flush()
    groups.release(REF)
    assert groups.flush() == {}
    groups.release(REF)
    assert groups.flush() == {SegmentKey(REF.id, 0): None, SegmentKey(REF.id, 1): None}
    assert len(groups) == 0


def test_released_and_held_again_in_one_flush() -> None:
    groups = Groups()
    groups.hold(REF, map(contents, range(300)))
    groups.flush()
    groups.release(REF)
    groups.hold(REF, [contents(1)])
    written = groups.flush()
    assert written.pop(SegmentKey(REF.id, 1)) is None
    assert [members(group) for group in written.values() if group] == [{contents(1).addresses[0]}]


@settings(deadline=None)
@given(st.lists(st.sampled_from((200, 300, 600, 700, 1100, 1400)), min_size=1, max_size=6))
def test_no_member_is_ever_lost_on_the_way(sizes: list[int]) -> None:
    """Members that stay are in some segment after every single write, while the group grows and shrinks."""
    groups = Groups()
    groups.hold(REF, map(contents, range(200)))
    reader: dict[SegmentKey, Group] = {key: group for key, group in groups.flush().items() if group is not None}
    now = 200
    for size in sizes:
        for n in range(now, size):
            groups.move(EVERYBODY.uid, None, contents(n))
        for n in range(size, now):
            groups.move(EVERYBODY.uid, contents(n), None)
        stay = {contents(n).addresses[0] for n in range(min(now, size))}
        now = size
        changes = groups.flush()
        for key, group in changes.items():
            if group is not None:
                reader[key] = group
                assert stay <= set().union(*map(members, reader.values()))
                said = reader[SegmentKey(REF.id, 0)].segments
                counted = [group for key, group in reader.items() if key.segment < said]
                assert len(counted) == said
                assert stay <= set().union(*map(members, counted))
        for key, group in changes.items():
            if group is None:
                del reader[key]
        segments = reader[SegmentKey(REF.id, 0)].segments
        assert sorted(key.segment for key in reader) == list(range(segments)) == list(range(segments_for(size)))
        assert set().union(*map(members, reader.values())) == {contents(n).addresses[0] for n in range(size)}
