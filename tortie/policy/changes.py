"""Which connections between pods a change of policies would open or close. Pure.

    pods --same policies, same memberships--> classes       members of a class cannot be told apart by any policy
    classes x classes x samples, before and after --> Change

A verdict on one direction depends on its rules and on which of the groups and networks that they name hold the two
addresses. So every (direction, source's memberships, destination's memberships) is judged once for all samples, as a
bit mask, and a pair of classes is four look-ups. Beside pods, addresses outside stand at either end: one of every
region that the networks of the rules cut the address space into.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Literal

from bus_schemas.explanations import way_report
from bus_schemas.ids import GroupId, PodKey
from bus_schemas.policy import Direction, Match, Rule, Way
from bus_schemas.policy_snapshot import Snapshot, groups_of_match
from bus_schemas.verdicts import allows
from tortie.policy.offline import OfflineCluster
from tortie.policy.samples import Sample, describe, samples

_ELSEWHERE = {4: ("203.0.113.1", "198.51.100.1", "192.0.2.1"), 6: ("2001:db8::1", "2001:db8:ffff::1")}
"""Addresses of nobody (RFC 5737, RFC 3849): the first that no network holds stands for the rest of the world."""
_OUTSIDE_MOST = 200
"""Regions of addresses outside that are looked at."""
_CLOSED = Direction()
"""Of a pod for which nothing is compiled."""

Pods = Mapping[PodKey, Sequence[str]]
"""With their addresses."""


@dataclass(frozen=True)
class Change:
    kind: Literal["denied then", "allowed then"]
    sources: tuple[str, ...]
    """Pods, or addresses outside."""
    destinations: tuple[str, ...]
    traffic: str
    because: str
    """What decides, after the change."""


@dataclass(frozen=True)
class Comparison:
    changes: tuple[Change, ...]
    pods: int
    classes: int
    """Of pods that no policy tells apart."""
    asked: int
    """Samples of protocol and port."""
    outside: tuple[str, ...]
    truncated: bool
    """There were more regions outside than were looked at."""


def compare(before: OfflineCluster, after: OfflineCluster, pods: Pods) -> Comparison:
    changes: list[Change] = []
    classes, asked, outside, truncated = 0, 0, list[str](), False
    for version in (4, 6):
        known = {key: a for key, listed in pods.items() for a in listed if ip_address(a).version == version}
        if not known:
            continue
        family = _Family(before, after, known, version)
        found = family.changes()
        changes += (change for change in found if change not in changes)
        classes += sum(one.pod is not None for one in family.classes)
        asked += len(family.asked)
        outside += family.outside
        truncated |= family.truncated
    return Comparison(tuple(changes), len(pods), classes, asked, tuple(outside), truncated)


class _Judge:
    """One of the two worlds."""

    def __init__(self, cluster: OfflineCluster, asked: Sequence[Sample]) -> None:
        self.world: Snapshot = cluster.world
        self._cluster = cluster
        self._asked = asked
        self._ends: dict[tuple[Direction, Way], tuple[_End, _End]] = {}
        self._memberships: dict[tuple[int, bytes], tuple[object, ...]] = {}
        self._masks: dict[tuple[int, tuple[object, ...], tuple[object, ...]], int] = {}

    def direction(self, key: PodKey, way: Way) -> Direction:
        attachment = self._cluster.attachments.get(key)
        found: Direction = _CLOSED if attachment is None else getattr(attachment, way)
        return found

    def ends(self, direction: Direction, way: Way) -> tuple[_End, _End]:
        known = self._ends.get((direction, way))
        if known is None:
            rules = list(rules_of(direction, way, self.world))
            known = _End.of(rule.source for rule in rules), _End.of(rule.destination for rule in rules)
            self._ends[direction, way] = known
        return known

    def membership(self, end: _End, address: bytes) -> tuple[object, ...]:
        key = id(end), address
        known = self._memberships.get(key)
        if known is None:
            known = self._memberships[key] = end.membership(self.world, address)
        return known

    def key(
        self, ends: tuple[_End, _End], source: bytes, destination: bytes
    ) -> tuple[int, tuple[object, ...], tuple[object, ...]]:
        """All that the verdicts of a direction depend on."""
        return id(ends), self.membership(ends[0], source), self.membership(ends[1], destination)

    def mask(self, direction: Direction, ends: tuple[_End, _End], way: Way, source: bytes, destination: bytes) -> int:
        """Bit n: sample n is allowed this way."""
        key = self.key(ends, source, destination)
        known = self._masks.get(key)
        if known is None:
            known = 0
            for at, sample in enumerate(self._asked):
                if allows(direction, way, sample.flow(source, destination), self.world):
                    known |= 1 << at
            self._masks[key] = known
        return known


@dataclass(frozen=True, eq=False)
class _End:
    """What the rules of one direction ask of one end."""

    groups: tuple[GroupId, ...]
    ports: tuple[GroupId, ...]
    nets: tuple[tuple[int, int, int], ...]
    """Bytes of an address, prefix, bits that it leaves open."""

    @classmethod
    def of(cls, matches: Iterable[Match]) -> _End:
        groups: set[GroupId] = set()
        ports: set[GroupId] = set()
        nets: set[str] = set()
        for match in matches:
            groups.update(match.groups, match.not_groups)
            ports.update(match.named_ports, match.not_named_ports)
            nets.update(match.nets, match.not_nets)
        return cls(tuple(sorted(groups)), tuple(sorted(ports)), tuple(sorted(map(_net, nets))))

    def membership(self, world: Snapshot, address: bytes) -> tuple[object, ...]:
        number = int.from_bytes(address, "big")
        return (
            *(world.in_group(group, address) for group in self.groups),
            *(
                frozenset(
                    key[-4:] for key in members.keys if key[: len(address)] == address and len(key) - 4 == len(address)
                )
                if (members := world.members(group)) is not None
                else None
                for group in self.ports
            ),
            *(size == len(address) and number >> free == prefix for size, prefix, free in self.nets),
        )


def _net(cidr: str) -> tuple[int, int, int]:
    net = ip_network(cidr)
    free = net.max_prefixlen - net.prefixlen
    return net.max_prefixlen // 8, int(net.network_address) >> free, free


def rules_of(direction: Direction, way: Way, world: Snapshot) -> Iterable[Rule]:
    for id in (*(id for tier in direction.tiers for id in tier.rules), *direction.profiles):
        rules = world.rules(id)
        if rules is not None:
            yield from rules.ingress if way == "ingress" else rules.egress


@dataclass(frozen=True)
class _Class:
    members: tuple[str, ...]
    address: bytes
    """Of one of them."""
    pod: PodKey | None
    """One of them; None: outside."""
    directions: tuple[Direction, Direction, Direction, Direction] | None
    """Egress before, ingress before, egress after, ingress after."""


@dataclass(frozen=True)
class _Side:
    """The directions of a class of pods, (egress, ingress), with what their rules ask of either end."""

    before: tuple[Direction, Direction]
    after: tuple[Direction, Direction]
    before_ends: tuple[tuple[_End, _End], tuple[_End, _End]]
    after_ends: tuple[tuple[_End, _End], tuple[_End, _End]]

    @classmethod
    def of(
        cls, old: _Judge, new: _Judge, out: Direction, into: Direction, out_after: Direction, into_after: Direction
    ) -> _Side:
        return cls(
            (out, into),
            (out_after, into_after),
            (old.ends(out, "egress"), old.ends(into, "ingress")),
            (new.ends(out_after, "egress"), new.ends(into_after, "ingress")),
        )


class _Family:
    def __init__(self, before: OfflineCluster, after: OfflineCluster, pods: Mapping[PodKey, str], version: int) -> None:
        self._clusters = before, after
        self._reasons: dict[object, str] = {}
        directions = {
            (direction, way, at)
            for at, cluster in enumerate((before, after))
            for key in pods
            for way, direction in _ways(cluster, key)
        }
        rules = [
            rule for direction, way, at in directions for rule in rules_of(direction, way, self._clusters[at].world)
        ]
        named = {id for rule in rules for end in (rule.source, rule.destination) for id in groups_of_match(end)}
        known = [m for cluster in self._clusters for id in named if (m := cluster.world.members(id)) is not None]
        width = 4 if version == 4 else 16
        port_keys = {key for members in known for key in members.keys if len(key) == width + 4}
        self.asked = samples(rules, port_keys, version)
        self._judges = _Judge(before, self.asked), _Judge(after, self.asked)
        nets = {net for rule in rules for end in (rule.source, rule.destination) for net in (*end.nets, *end.not_nets)}
        shapes = {_net(net) for net in nets}
        shapes |= {(size, prefix, free) for m in known for (size, free), found in m.nets.items() for prefix in found}
        taken = {ip_address(address).packed for address in pods.values()}
        regions = _regions([shape for shape in shapes if shape[0] == width], taken, version)
        self.truncated = len(regions) > _OUTSIDE_MOST
        self.outside = [str(ip_address(packed)) for packed in regions[:_OUTSIDE_MOST]]
        self.classes = self._classify(pods, regions[:_OUTSIDE_MOST], named, sorted(shapes))

    def _classify(
        self,
        pods: Mapping[PodKey, str],
        regions: Sequence[bytes],
        named: Iterable[GroupId],
        shapes: Sequence[tuple[int, int, int]],
    ) -> list[_Class]:
        all_ends = _End(tuple(sorted(named)), (), tuple(shapes))
        by_ports = _ports_by_address(self._clusters, all_ends.groups)
        found: dict[object, list[PodKey]] = {}
        for key, address in pods.items():
            packed = ip_address(address).packed
            memberships = tuple(all_ends.membership(cluster.world, packed) for cluster in self._clusters)
            directions = self._directions(key)
            found.setdefault((directions, memberships, by_ports.get(packed)), []).append(key)
        classes = [
            _Class(tuple(map(str, keys)), ip_address(pods[keys[0]]).packed, keys[0], self._directions(keys[0]))
            for keys in found.values()
        ]
        outside: dict[object, bytes] = {}
        for packed in regions:
            outside.setdefault(tuple(all_ends.membership(c.world, packed) for c in self._clusters), packed)
        return classes + [_Class((f"outside {ip_address(packed)}",), packed, None, None) for packed in outside.values()]

    def _directions(self, key: PodKey) -> tuple[Direction, Direction, Direction, Direction]:
        old, new = self._judges
        return (
            old.direction(key, "egress"),
            old.direction(key, "ingress"),
            new.direction(key, "egress"),
            new.direction(key, "ingress"),
        )

    def changes(self) -> list[Change]:
        full = (1 << len(self.asked)) - 1
        old, new = self._judges
        sides = [None if c.directions is None else _Side.of(old, new, *c.directions) for c in self.classes]
        still: dict[tuple[Direction, Way], bool] = {}
        still_out = [c.directions is None or self._still(c.directions[0::2], "egress", still) for c in self.classes]
        still_in = [c.directions is None or self._still(c.directions[1::2], "ingress", still) for c in self.classes]
        rows: dict[tuple[str, int, str, int], list[int]] = {}
        for s, source in enumerate(self.classes):
            for d, destination in enumerate(self.classes):
                if still_out[s] and still_in[d]:
                    continue
                out, into = sides[s], sides[d]
                if (s == d and len(source.members) == 1) or (out is None and into is None):
                    continue
                was = now = full
                a, b = source.address, destination.address
                if out is not None:
                    was &= old.mask(out.before[0], out.before_ends[0], "egress", a, b)
                    now &= new.mask(out.after[0], out.after_ends[0], "egress", a, b)
                if into is not None:
                    was &= old.mask(into.before[1], into.before_ends[1], "ingress", a, b)
                    now &= new.mask(into.after[1], into.after_ends[1], "ingress", a, b)
                if was == now:
                    continue
                for kind, mask in (("denied then", was & ~now), ("allowed then", now & ~was)):
                    if mask:
                        why = self._because(out, into, a, b, mask)
                        rows.setdefault((kind, mask, why, s), []).append(d)
        return self._merged(rows)

    def _still(self, pair: tuple[Direction, ...], way: Way, known: dict[tuple[Direction, Way], bool]) -> bool:
        """Whether nothing changes for a direction, before and after."""
        if pair[0] != pair[1]:
            return False
        if (pair[0], way) not in known:
            known[pair[0], way] = self._same(pair[0], way)
        return known[pair[0], way]

    def _same(self, direction: Direction, way: Way) -> bool:
        """Whether rules and members are what they were."""
        before, after = (cluster.world for cluster in self._clusters)
        old, new = (list(rules_of(direction, way, world)) for world in (before, after))
        if old != new:
            return False
        named = {id for rule in old for end in (rule.source, rule.destination) for id in groups_of_match(end)}
        return all(before.members(id) == after.members(id) for id in named)

    def _because(self, out: _Side | None, into: _Side | None, a: bytes, b: bytes, mask: int) -> str:
        """What decides the first of the samples, after the change."""
        first = (mask & -mask).bit_length() - 1
        new = self._judges[1]
        key = (
            first,
            None if out is None else new.key(out.after_ends[0], a, b),
            None if into is None else new.key(into.after_ends[1], a, b),
        )
        if key not in self._reasons:
            flow = self.asked[first].flow(a, b)
            reports = []
            if out is not None:
                reports.append(way_report("the source", out.after[0], "egress", flow, new.world))
            if into is not None:
                reports.append(way_report("the destination", into.after[1], "ingress", flow, new.world))
            told = [report for report in reports if report.action == "deny"][:1] or reports
            self._reasons[key] = "; ".join(f"{report.way}: {report.because}" for report in told)
        return self._reasons[key]

    def _merged(self, rows: Mapping[tuple[str, int, str, int], list[int]]) -> list[Change]:
        """Sources that the same happens to with the same destinations are one row."""
        by_rest: dict[tuple[str, int, str, tuple[int, ...]], list[int]] = {}
        for (kind, mask, because, source), destinations in rows.items():
            by_rest.setdefault((kind, mask, because, tuple(destinations)), []).append(source)
        return [
            Change(
                "denied then" if kind == "denied then" else "allowed then",
                self._names(sources),
                self._names(destinations),
                describe(self.asked, mask),
                because,
            )
            for (kind, mask, because, destinations), sources in sorted(by_rest.items())
        ]

    def _names(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple(sorted(name for number in numbers for name in self.classes[number].members))


def _ways(cluster: OfflineCluster, key: PodKey) -> Iterable[tuple[Way, Direction]]:
    attachment = cluster.attachments.get(key)
    if attachment is not None:
        yield "ingress", attachment.ingress
        yield "egress", attachment.egress


def _ports_by_address(
    clusters: Sequence[OfflineCluster], groups: Iterable[GroupId]
) -> Mapping[bytes, frozenset[tuple[int, GroupId, bytes]]]:
    found: dict[bytes, set[tuple[int, GroupId, bytes]]] = {}
    for group in groups:
        for at, cluster in enumerate(clusters):
            members = cluster.world.members(group)
            for key in members.keys if members is not None else ():
                if len(key) in (8, 20):
                    found.setdefault(key[:-4], set()).add((at, group, key[-4:]))
    return {address: frozenset(ports) for address, ports in found.items()}


def _regions(shapes: Sequence[tuple[int, int, int]], taken: set[bytes], version: int) -> list[bytes]:
    """Addresses that are nobody's: the ends of every network and their neighbours, and one of the rest of the world."""
    width = 4 if version == 4 else 16
    last = (1 << 8 * width) - 1
    candidates = [int(ip_address(text)) for text in _ELSEWHERE[version]]
    for _, prefix, free in sorted(shapes):
        low, high = prefix << free, ((prefix + 1) << free) - 1
        candidates += [low, low + 1, high, high - 1, low - 1, high + 1]
    found: dict[tuple[bool, ...], bytes] = {}
    for number in candidates:
        packed = number.to_bytes(width, "big") if 0 < number < last else b""
        if packed and packed not in taken:
            found.setdefault(tuple(number >> free == prefix for _, prefix, free in shapes), packed)
    return list(found.values())
