"""Groups: segments as a pure function of the members, and an order of writing that never loses one."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas import selectors
from bus_schemas.policy import SEGMENT_MEMBERS, Group
from services.policy_compiler.groups import Groups, SegmentKey, addresses_of, ports_of, segments_for
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
    [(0, 1), (1, 1), (256, 1), (257, 2), (512, 2), (513, 4), (1024, 4), (1025, 8), (100_000, 512)],
)
def test_segments_for(size: int, segments: int) -> None:
    assert segments_for(size) == segments


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
@given(st.lists(st.sampled_from((200, 300, 600, 1100)), min_size=1, max_size=5))
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
        for key, group in changes.items():
            if group is None:
                del reader[key]
        segments = reader[SegmentKey(REF.id, 0)].segments
        assert sorted(key.segment for key in reader) == list(range(segments)) == list(range(segments_for(size)))
        assert set().union(*map(members, reader.values())) == {contents(n).addresses[0] for n in range(size)}
