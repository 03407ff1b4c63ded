"""Many rules of one action as a few lookups.

Consecutive rules of one tier that all allow, or all deny, are a union: a packet that any of them matches has the same
fate. So those of the usual shapes become elements of maps, and the price of a packet does not grow with their number:

    peers of a group           ip saddr . meta l4proto . th dport          hash map: member x protocol x port
    any peer                   meta l4proto . th dport                     hash map
    peers in networks          ip saddr & 255.0.0.0 . meta l4proto . th dport     hash map, one a length (`prefixes`)
                               ip saddr . meta l4proto . th dport          interval map, where those would be too many
    a group too large for it   ip saddr @g..   meta l4proto . th dport     one lookup of the peer, one of the port

An element belongs to the first policy that it is due to. Where the rules allow, the map's data are counter objects, and
`counter name <key> map @m.. accept` counts and decides at once; where they deny, they are the chains that count and
report. Counters are the better data: a kernel checks all chains for loops whenever a map gains an element that leads to
one, which takes 2 ms at 1,000 policies. Rules of other shapes (named ports, negations, ICMP types) are written one by
one as ever. Hash maps change with the groups'
members, element by element (`lookup`). Networks change with policies and network sets alone; of networks exceptions are
cut out. A kernel deletes from interval maps at a price, so they are named after their content and replaced as a whole.

A map has room for so many elements: an agent's memory is bounded. The smallest groups come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from bus_schemas.ids import GroupId
from bus_schemas.policy import Match, Rule
from services.node_dataplane.nft.lookup import Lookup
from services.node_dataplane.nft.names import address_set, merged_map
from services.node_dataplane.nft.prefixes import few, prefixes, split
from services.node_dataplane.nft.ranges import (
    Box,
    Claim,
    Range,
    boxes,
    difference,
    merged,
    of_cidrs,
    of_packed,
    spelled,
)
from services.node_dataplane.nft.render import WITH_PORTS
from services.node_dataplane.nft.sets import MapData, SetSpec, Shape, suffix

FROM = 5
"""So many rules are worth a lookup."""
MOST_PORTS = 32
"""Of one rule in a hash map: more are left to a rule of its own."""
ROWS = 65_536
"""Elements of the hash maps of one run of rules."""
CLAIMS = 524_288
"""Of rules on those elements: several can claim one."""
BOXES = 16_384
"""Elements of an interval map, or of the hash maps in its place, and steps to make it."""
ROOM, SPREAD = 1024, 2
"""Elements by which, and times as many as which, networks may be split for the sake of fewer lookups."""

_FAMILIES: tuple[Literal[4, 6], ...] = (4, 6)


class Mergeable(NamedTuple):
    """A rule in one of the shapes that can be looked up."""

    side: Literal["saddr", "daddr", ""]
    """Of the peer; empty: any peer."""
    group: GroupId | None
    nets: Mapping[int, Sequence[Range]]
    """Family -> ranges of the peer's addresses."""
    families: tuple[Literal[4, 6], ...]
    protocol: int | None
    ports: tuple[Range, ...]
    """Destination ports; empty: any."""


class Entry(NamedTuple):
    rule: Mergeable
    data: str
    """Of its elements: an allow's counter, `goto <chain>` for a deny."""

    @property
    def sort(self) -> str:
        """With which others it can be merged, if they are many enough."""
        return "nets" if self.rule.nets else "members"


class Members(NamedTuple):
    """Of a group whose members are known."""

    keys4: Mapping[bytes, int]
    keys6: Mapping[bytes, int]
    nets4: Mapping[bytes, int]
    nets6: Mapping[bytes, int]

    def keys(self, family: int) -> Mapping[bytes, int]:
        return self.keys4 if family == 4 else self.keys6

    def nets(self, family: int) -> Mapping[bytes, int]:
        return self.nets4 if family == 4 else self.nets6


@dataclass
class Merged:
    """What stands for the rules of one run."""

    data: MapData
    allow: str = "accept"
    """What an allow is written as."""
    lines: list[str] = field(default_factory=list)
    maps: dict[str, tuple[SetSpec, dict[bytes, str]]] = field(default_factory=dict)
    lookups: dict[str, tuple[Shape, Lookup]] = field(default_factory=dict)
    """Those of the maps that change with members."""
    named: set[GroupId] = field(default_factory=set)
    """Groups whose sets the lines name."""
    watched: set[GroupId] = field(default_factory=set)
    """Groups whose networks are in a map."""
    left: set[int] = field(default_factory=set)
    """Entries that it does not stand for."""


def mergeable(rule: Rule) -> Mergeable | None:
    """None: the rule is of another shape."""
    far = (rule.source.ports, rule.source.named_ports, rule.source.not_ports, rule.source.not_named_ports)
    near = (rule.destination.named_ports, rule.destination.not_ports, rule.destination.not_named_ports)
    if rule.action not in ("allow", "deny") or any(far) or any(near):
        return None
    if not (rule.not_protocol is None and rule.icmp is None and rule.not_icmp is None):
        return None
    ports = tuple(merged((p.first, p.last) for p in rule.destination.ports if p.first <= p.last))
    if ports and rule.protocol not in WITH_PORTS:
        return None
    families = _FAMILIES if rule.ip_version is None else (rule.ip_version,)
    source, destination = _concerned(rule.source), _concerned(rule.destination)
    if not source and not destination:
        any_peer = rule.ip_version is None and 0 < _size(ports) <= MOST_PORTS
        return Mergeable("", None, {}, families, rule.protocol, ports) if any_peer else None
    if source and destination:
        return None
    match, side = (rule.source, "saddr") if source else (rule.destination, "daddr")
    if match.not_groups or len(match.groups) > 1 or (match.groups and (match.nets or match.not_nets)):
        return None
    if match.groups:
        if _size(ports) > MOST_PORTS:
            return None
        return Mergeable(side, match.groups[0], {}, families, rule.protocol, ports)  # type: ignore[arg-type]
    if not match.nets:
        return None
    nets = {family: difference(of_cidrs(match.nets, family), of_cidrs(match.not_nets, family)) for family in families}
    return Mergeable(side, None, nets, families, rule.protocol, ports)  # type: ignore[arg-type]


def _concerned(match: Match) -> bool:
    return bool(match.groups or match.not_groups or match.nets or match.not_nets)


def _size(ports: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ports)


def _suffixes(rule: Mergeable) -> list[bytes]:
    if not rule.ports:
        return [suffix(rule.protocol, None)]
    return [suffix(rule.protocol, port) for first, last in rule.ports for port in range(first, last + 1)]


def _shape(rule: Mergeable, family: Literal[0, 4, 6]) -> Shape:
    return Shape(family, rule.side, rule.protocol is not None, bool(rule.ports))


def merge(
    name: str,
    data: MapData,
    entries: Sequence[Entry],
    members: Callable[[GroupId], Members],
    allow: str = "accept",
) -> Merged:
    """The lookups of one run of rules, in order. The names of its maps are derived from `name`."""
    made = Merged(data, allow)
    peers = [index for index, entry in enumerate(entries) if entry.rule.group is not None]
    anyone = [index for index, entry in enumerate(entries) if not entry.rule.side]
    nets = [index for index, entry in enumerate(entries) if entry.rule.nets]
    if len(peers) + len(anyone) < FROM:
        made.left.update(peers, anyone)
    else:
        _any_peer(made, name, [entries[index] for index in anyone])
        _groups(made, name, entries, peers, members)
    nets += [index for index in peers if index not in made.left and _has_nets(entries[index], members)]
    _networks(made, name, entries, nets, members)
    return made


def _lookup(made: Merged, fields: str, map_: str) -> str:
    return f"{fields} vmap @{map_}" if made.data == "verdict" else f"counter name {fields} map @{map_} {made.allow}"


def _has_nets(entry: Entry, members: Callable[[GroupId], Members]) -> bool:
    found = members(entry.rule.group) if entry.rule.group is not None else None
    return found is not None and bool(found.nets4 or found.nets6)


def _any_peer(made: Merged, name: str, entries: Sequence[Entry]) -> None:
    for entry in entries:
        shape = _shape(entry.rule, 0)
        map_ = merged_map(name, f"{made.data} {shape}")
        if map_ not in made.maps:
            made.maps[map_] = SetSpec(shape.kind(made.data)), {}
            made.lines.append(_lookup(made, shape.fields, map_))
        for key in _suffixes(entry.rule):
            made.maps[map_][1].setdefault(key, entry.data)


def _groups(
    made: Merged, name: str, entries: Sequence[Entry], peers: Sequence[int], members: Callable[[GroupId], Members]
) -> None:
    by_group: dict[GroupId, list[int]] = {}
    for index in peers:
        group = entries[index].rule.group
        assert group is not None
        by_group.setdefault(group, []).append(index)

    def claims(group: GroupId) -> int:
        found = members(group)
        return sum(
            len(found.keys(family)) * max(1, _size(entries[index].rule.ports))
            for index in by_group[group]
            for family in entries[index].rule.families
        )

    room, claimed = ROWS, 0
    large: list[GroupId] = []
    for group in sorted(by_group, key=lambda group: (claims(group), group)):
        wanted = claims(group)
        if wanted > room - sum(len(made.maps[map_][1]) for map_ in made.lookups) or claimed + wanted > CLAIMS:
            large.append(group)
            continue
        claimed += wanted
        for index in by_group[group]:
            for family in entries[index].rule.families:
                _claim(made, name, entries, peers, index, family, members(group).keys(family))
    # In an order that does not tell how large each group is: a restarted agent must find the chain that it would write.
    for shape, map_ in sorted((shape, map_) for map_, (shape, _) in made.lookups.items()):
        made.lines.append(_lookup(made, shape.fields, map_))
    for group in sorted(large):
        _factored(made, name, group, entries, by_group[group])


def _claim(
    made: Merged,
    name: str,
    entries: Sequence[Entry],
    peers: Sequence[int],
    index: int,
    family: Literal[4, 6],
    keys: Iterable[bytes],
) -> None:
    rule, data = entries[index]
    assert rule.group is not None
    shape = _shape(rule, family)
    map_ = merged_map(name, f"{made.data} {shape}")
    if map_ not in made.maps:
        made.maps[map_] = SetSpec(shape.kind(made.data)), {}
        lookup = Lookup()
        for each in peers:
            lookup.order(entries[each].data)
        made.lookups[map_] = shape, lookup
    made.lookups[map_][1].add(rule.group, data, _suffixes(rule), keys, made.maps[map_][1])


def _factored(made: Merged, name: str, group: GroupId, entries: Sequence[Entry], indexes: Sequence[int]) -> None:
    """One lookup of the peer, and one of protocol and port."""
    for side in ("saddr", "daddr"):
        alike = [index for index in indexes if entries[index].rule.side == side and entries[index].rule.ports]
        made.left.update(index for index in indexes if entries[index].rule.side == side and index not in alike)
        if len(alike) < FROM:
            made.left.update(alike)
            continue
        made.named.add(group)
        ports = Shape(0, "", protocol=True, port=True)
        for family in _FAMILIES:
            map_ = merged_map(name, f"{made.data} {group} {side} {family}")
            rows: dict[bytes, str] = {}
            for index in alike:
                if family in entries[index].rule.families:
                    for key in _suffixes(entries[index].rule):
                        rows.setdefault(key, entries[index].data)
            made.maps[map_] = SetSpec(ports.kind(made.data)), rows
            peer = Shape(family, side, protocol=False, port=False).fields
            made.lines.append(f"{peer} @{address_set(group, family)} {_lookup(made, ports.fields, map_)}")


def _networks(
    made: Merged, name: str, entries: Sequence[Entry], indexes: Sequence[int], members: Callable[[GroupId], Members]
) -> None:
    if not indexes:
        return
    by_shape: dict[Shape, dict[int | None, list[Claim]]] = {}
    users: dict[Shape, list[int]] = {}
    for index in sorted(indexes):
        rule, data = entries[index]
        for family in rule.families:
            found = rule.nets.get(family, ()) if rule.group is None else of_packed(members(rule.group).nets(family))
            if found:
                shape = _shape(rule, family)
                by_shape.setdefault(shape, {}).setdefault(rule.protocol, []).append(Claim(found, rule.ports, data))
                users.setdefault(shape, []).append(index)
    few = len(indexes) < FROM and all(entries[index].rule.group is None for index in indexes)
    for shape, claims in by_shape.items():
        disjoint = None if few else _boxes(claims)
        if disjoint is None:
            made.left.update(users[shape])
            continue
        hashed = _hashed(shape, disjoint)
        if hashed is None:
            rows = {_key(shape, protocol, box): box.verdict for protocol, box in disjoint}
            content = "".join(f"{key.decode()} {verdict}\n" for key, verdict in rows.items())
            map_ = merged_map(name, f"{shape} {content}")
            made.maps[map_] = SetSpec(shape.ranges(made.data)), rows
            made.lines.append(_lookup(made, shape.ranged_fields, map_))
            continue
        for length, rows in sorted(hashed.items()):
            map_ = merged_map(name, f"{made.data} {shape} /{length}")
            made.maps[map_] = SetSpec(shape.kind(made.data)), rows
            made.lines.append(_lookup(made, shape.masked(length), map_))
    made.watched.update(group for index in indexes if (group := entries[index].rule.group) is not None)


def _boxes(claims: Mapping[int | None, Sequence[Claim]]) -> list[tuple[int | None, Box]] | None:
    """Protocol and box. None: there would be too many."""
    disjoint: list[tuple[int | None, Box]] = []
    for protocol, claimed in claims.items():
        found = boxes(claimed, BOXES)
        if found is None or len(disjoint) + len(found) > BOXES:
            return None
        disjoint += [(protocol, box) for box in found]
    return disjoint


def _hashed(shape: Shape, disjoint: Sequence[tuple[int | None, Box]]) -> dict[int, dict[bytes, str]] | None:
    """Length of a prefix -> rows of its hash map. None: there would be too many lengths, ports or rows."""
    bits = 32 if shape.family == 4 else 128
    covers = []
    wanted: dict[int, int] = {}
    for protocol, (addresses, (first, last), verdict) in disjoint:
        if shape.port and last - first >= MOST_PORTS:
            return None
        suffixes = [
            suffix(protocol, port if shape.port else None)
            for port in range(first, last + 1 if shape.port else first + 1)
        ]
        found = list(prefixes(addresses, bits))
        covers.append((found, suffixes, verdict))
        for _, length in found:
            wanted[length] = wanted.get(length, 0) + len(suffixes)
    to = few(wanted, min(BOXES, ROOM + SPREAD * sum(wanted.values())))
    if to is None:
        return None
    rows: dict[int, dict[bytes, str]] = {length: {} for length in to.values()}
    for found, suffixes, verdict in covers:
        for start, length in found:
            for address in split(start, length, to[length], bits):
                key = address.to_bytes(bits // 8, "big")
                rows[to[length]].update((key + each, verdict) for each in suffixes)
    return rows


def _key(shape: Shape, protocol: int | None, box: Box) -> bytes:
    parts = [spelled(box.addresses, shape.family), "0-255" if protocol is None else str(protocol)]
    if shape.port:
        first, last = box.ports
        parts.append(str(first) if first == last else f"{first}-{last}")
    return " . ".join(parts).encode()
