"""One group's members, put together from its segments.

A member may stand in two segments for a moment while a group is split or joined, so members are counted: one is in the
set while any segment has it. A group is known once all its segments have been seen, and stays so while segment 0
exists: in the middle of a split some segments are always missing, and that must not close anybody's traffic.

Networks are counted alike. The kernel holds them in interval sets of their own, and only while there are any.
"""

from __future__ import annotations

from typing import NamedTuple

from bus_schemas.policy import ADDRESS4, ADDRESS6, NET4, NET6, PORT4, PORT6, Group
from services.node_dataplane.nft.render import Facts
from services.node_dataplane.nft.sets import port_key


class Delta(NamedTuple):
    """Kernel keys of the members that came and went, per family."""

    added4: list[bytes]
    removed4: list[bytes]
    added6: list[bytes]
    removed6: list[bytes]
    nets: bool
    """Some networks came or went."""


class MalformedGroup(ValueError):
    """The packed members are not a whole number of members."""


class GroupState:
    __slots__ = ("_segments", "keys4", "keys6", "known", "nets4", "nets6", "of", "selector")

    def __init__(self) -> None:
        self._segments: dict[int, Group] = {}
        self.keys4: dict[bytes, int] = {}
        """Kernel key -> how many segments hold it."""
        self.keys6: dict[bytes, int] = {}
        self.nets4: dict[bytes, int] = {}
        """Packed network -> how many segments hold it."""
        self.nets6: dict[bytes, int] = {}
        self.known = False
        self.of = "addresses"
        self.selector = ""

    def put(self, segment: int, group: Group | None) -> Delta:
        """Replace one segment. Raises MalformedGroup, and then nothing has changed."""
        before = self._segments.get(segment)
        new4, new6 = _members(group)
        old4, old6 = _members(before)
        new_nets, old_nets = _nets(group), _nets(before)
        if group is None:
            self._segments.pop(segment, None)
        else:
            self._segments[segment] = group
            self.of = group.of
            if segment == 0:
                self.selector = group.selector
        self.known = 0 in self._segments and (self.known or self._whole())
        for counts, new, old in zip((self.nets4, self.nets6), new_nets, old_nets, strict=True):
            _raise(counts, new - old)
            _lower(counts, old - new)
        return Delta(
            _raise(self.keys4, new4 - old4),
            _lower(self.keys4, old4 - new4),
            _raise(self.keys6, new6 - old6),
            _lower(self.keys6, old6 - new6),
            new_nets != old_nets,
        )

    @property
    def facts(self) -> Facts | None:
        return Facts(bool(self.nets4), bool(self.nets6)) if self.known else None

    @property
    def empty(self) -> bool:
        """No segment at all is known."""
        return not self._segments

    def segment(self, number: int) -> Group | None:
        return self._segments.get(number)

    def contains(self, key: bytes) -> bool:
        """Of a packed address, or of address, protocol, zero, port."""
        if self.of == "ports":
            return port_key(key) in (self.keys4 if len(key) == PORT4 else self.keys6)
        if len(key) == ADDRESS4:
            return key in self.keys4 or _within(key, self.nets4)
        return key in self.keys6 or _within(key, self.nets6)

    def _whole(self) -> bool:
        count = max(group.segments for group in self._segments.values())
        return all(index in self._segments for index in range(count))


def _members(group: Group | None) -> tuple[set[bytes], set[bytes]]:
    if group is None:
        return set(), set()
    v4, v6 = group.v4, group.v6
    ports = group.of == "ports"
    width4, width6 = (PORT4, PORT6) if ports else (ADDRESS4, ADDRESS6)
    if len(v4) % width4 or len(v6) % width6:
        raise MalformedGroup(f"{len(v4)} and {len(v6)} bytes are not a whole number of members of {group.of}")
    members4 = {v4[i : i + width4] for i in range(0, len(v4), width4)}
    members6 = {v6[i : i + width6] for i in range(0, len(v6), width6)}
    if ports:
        return set(map(port_key, members4)), set(map(port_key, members6))
    return members4, members6


def _nets(group: Group | None) -> tuple[set[bytes], set[bytes]]:
    if group is None or not (group.nets4 or group.nets6):
        return set(), set()
    if group.of == "ports" or len(group.nets4) % NET4 or len(group.nets6) % NET6:
        raise MalformedGroup(f"{len(group.nets4)} and {len(group.nets6)} bytes are not networks of {group.of}")
    nets4 = {group.nets4[i : i + NET4] for i in range(0, len(group.nets4), NET4)}
    nets6 = {group.nets6[i : i + NET6] for i in range(0, len(group.nets6), NET6)}
    if any(net[-1] > 8 * (len(net) - 1) for net in (*nets4, *nets6)):
        raise MalformedGroup("a network's prefix is longer than an address")
    return nets4, nets6


def _within(address: bytes, nets: dict[bytes, int]) -> bool:
    """In one of the networks: as many looks as there are lengths of prefixes, however many networks."""
    if not nets:
        return False
    size, number = len(address), int.from_bytes(address, "big")
    hosts = range(size * 8, -1, -1)  # Bits behind each length of prefix, from none to all.
    masked = ((number >> bits << bits).to_bytes(size, "big") for bits in hosts)
    return any(net + bytes((prefix,)) in nets for prefix, net in enumerate(masked))


def _raise(counts: dict[bytes, int], keys: set[bytes]) -> list[bytes]:
    came = []
    for key in keys:
        count = counts.get(key, 0)
        counts[key] = count + 1
        if not count:
            came.append(key)
    return came


def _lower(counts: dict[bytes, int], keys: set[bytes]) -> list[bytes]:
    went = []
    for key in keys:
        count = counts[key] - 1
        if count:
            counts[key] = count
        else:
            del counts[key]
            went.append(key)
    return went
