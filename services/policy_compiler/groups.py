"""The members of every group that a rule names, in segments that are small enough to rewrite.

    GroupId -> _Group: holders (policies that name it)
                       segments: [ {member: how many workloads have it}, ... ]   one for every SEGMENT_MEMBERS
    selection -> port name or "" -> _Group        who has to hear when a workload joins or leaves

Members are addresses, networks (of network sets) and (address, protocol, port): their lengths tell them apart. How
many segments there are is a pure function of how many members there are, and where a member lies one of that and the
member, so any replica cuts the same group alike (linear hashing): one segment more splits one that exists and touches
no other, one less joins two. Members are counted: for a moment two workloads can have one address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from zlib import crc32

from bus_schemas.ids import GroupId
from bus_schemas.policy import ADDRESS4, ADDRESS6, NET4, NET6, PORT4, PORT6, SEGMENT_MEMBERS, Group
from services.policy_compiler.members import Contents
from services.policy_compiler.selection import Selection, identity


class GroupRef(NamedTuple):
    """A group as a rule names it."""

    id: GroupId
    selection: Selection
    port: str
    """The name of the ports that are the members; empty: the members are addresses."""


class SegmentKey(NamedTuple):
    group: GroupId
    segment: int


def addresses_of(selection: Selection) -> GroupRef:
    return GroupRef(selection.uid, selection, "")


def ports_of(selection: Selection, port: str) -> GroupRef:
    return GroupRef(identity(f"{selection.canonical} :{port}"), selection, port)


def segments_for(size: int) -> int:
    """How many segments a group of `size` members has."""
    return max(1, -(-size // SEGMENT_MEMBERS))


def segment_of(member: bytes, segments: int) -> int:
    """Where a member of a group of so many segments lies.

    By as many bits of its hash as number all of them; where that segment does not exist yet, by one bit less."""
    if segments == 1:
        return 0
    bits = (segments - 1).bit_length()
    at = crc32(member) & ((1 << bits) - 1)
    return at if at < segments else at - (1 << bits - 1)


def split_from(segment: int) -> int:
    """The segment whose members it takes its own from, and gives them back to: its number without the highest bit."""
    return segment - (1 << segment.bit_length() - 1)


class _Group:
    __slots__ = ("changed", "holders", "ref", "segments", "size", "told")

    def __init__(self, ref: GroupRef, told: int) -> None:
        self.ref = ref
        self.holders = 0
        self.size = 0
        """Distinct members."""
        self.segments: list[dict[bytes, int]] = [{}]
        self.changed: set[int] = {0}
        self.told = told
        """How many segments the last flush said there are."""

    def join(self, contents: Contents) -> None:
        for member in contents.members(self.ref.port):
            at = segment_of(member, len(self.segments))
            segment = self.segments[at]
            count = segment.get(member, 0)
            segment[member] = count + 1
            if not count:
                self.size += 1
                self.changed.add(at)

    def leave(self, contents: Contents) -> None:
        for member in contents.members(self.ref.port):
            at = segment_of(member, len(self.segments))
            segment = self.segments[at]
            if segment[member] > 1:
                segment[member] -= 1
            else:
                del segment[member]
                self.size -= 1
                self.changed.add(at)

    def flush(self) -> Iterator[tuple[SegmentKey, Group]]:
        """The segments that changed, in order: see `Groups.flush`."""
        self._cut(segments_for(self.size))
        for at in sorted(self.changed, key=self._turn):
            yield SegmentKey(self.ref.id, at), self._message(at)
        self.changed = set()

    def _turn(self, at: int) -> int:
        """What is new first, then the number of segments, then what shrinks for it; or what grows, then the number."""
        if at >= self.told:
            return 0
        grows = len(self.segments) > self.told
        return 1 if (at == 0) == grows else 2

    def _cut(self, segments: int) -> None:
        now = len(self.segments)
        if not now // 2 < segments < 2 * now:
            self._cut_anew(segments)
            return
        for at in range(now, segments):
            parent = split_from(at)
            members = self.segments[parent]
            moved = {member: count for member, count in members.items() if segment_of(member, at + 1) == at}
            for member in moved:
                del members[member]
            self.segments.append(moved)
            self.changed |= {0, parent, at}
        for at in range(now - 1, segments - 1, -1):
            parent = split_from(at)
            self.segments[parent].update(self.segments.pop())
            self.changed |= {0, parent}
            self.changed.discard(at)

    def _cut_anew(self, segments: int) -> None:
        members = [item for segment in self.segments for item in segment.items()]
        self.segments = [{} for _ in range(segments)]
        for member, count in members:
            self.segments[segment_of(member, segments)][member] = count
        self.changed = set(range(segments))

    def _message(self, at: int) -> Group:
        ref = self.ref
        by_width: dict[int, list[bytes]] = {}
        for member in sorted(self.segments[at]):
            by_width.setdefault(len(member), []).append(member)
        width4, width6 = (PORT4, PORT6) if ref.port else (ADDRESS4, ADDRESS6)
        return Group(
            of="ports" if ref.port else "addresses",
            v4=b"".join(by_width.get(width4, ())),
            v6=b"".join(by_width.get(width6, ())),
            nets4=b"".join(by_width.get(NET4, ())),
            nets6=b"".join(by_width.get(NET6, ())),
            segments=1 if at else len(self.segments),
            selector="" if at else f"{ref.selection.canonical} :{ref.port}" if ref.port else ref.selection.canonical,
        )


class Groups:
    def __init__(self) -> None:
        self._groups: dict[GroupId, _Group] = {}
        self._of_selection: dict[GroupId, dict[str, _Group]] = {}
        self._changed: dict[_Group, None] = {}
        self._released: dict[GroupId, int] = {}
        """Groups that went since the last flush, and how many segments of them are known outside."""

    def __len__(self) -> int:
        return len(self._groups)

    def hold(self, ref: GroupRef, members: Iterable[Contents]) -> None:
        """One more policy names the group. The first makes it, of these members; otherwise they are not looked at."""
        group = self._groups.get(ref.id)
        if group is None:
            group = self._groups[ref.id] = _Group(ref, self._released.pop(ref.id, 0))
            self._of_selection.setdefault(ref.selection.uid, {})[ref.port] = group
            self._changed[group] = None
            for contents in members:
                group.join(contents)
        group.holders += 1

    def release(self, ref: GroupRef) -> None:
        """One policy less. The last one takes the group away."""
        group = self._groups[ref.id]
        group.holders -= 1
        if group.holders:
            return
        del self._groups[ref.id]
        self._changed.pop(group, None)
        self._released[ref.id] = group.told
        siblings = self._of_selection[ref.selection.uid]
        del siblings[ref.port]
        if not siblings:
            del self._of_selection[ref.selection.uid]

    def move(self, selection: GroupId, before: Contents | None, after: Contents | None) -> None:
        """A workload was a member of the selection as `before`, and is as `after`; None: is not."""
        for group in self._of_selection.get(selection, {}).values():
            if after is not None:
                group.join(after)
            if before is not None:
                group.leave(before)
            self._changed[group] = None

    def flush(self) -> dict[SegmentKey, Group | None]:
        """The segments that changed. Written in this order, with removals (None) after everything else, no member is
        ever in no segment, nor in one that the group is not said to have: of a group that is cut finer the new segments
        come before segment 0, which has their number, and that before those that shrink; of one that is joined those
        that grow come before segment 0, and the removed segments after everything."""
        written: dict[SegmentKey, Group | None] = {}
        removed: list[SegmentKey] = []
        for group in self._changed:
            written.update(group.flush())
            removed += (SegmentKey(group.ref.id, at) for at in range(len(group.segments), group.told))
            group.told = len(group.segments)
        for uid, told in self._released.items():
            removed += (SegmentKey(uid, at) for at in range(told))
        self._changed = {}
        self._released = {}
        written.update(dict.fromkeys(removed))
        return written
