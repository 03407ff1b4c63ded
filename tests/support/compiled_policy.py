"""What the compiler has written, as an agent would hold it, and the verdict that follows from that alone.

No code of the compiler is used: groups are unpacked, rules walked and attachments followed as `bus_schemas.policy`
describes them. Whatever is missing (an attachment, rules, a group) denies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Literal

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import ADDRESS4, ADDRESS6, PORT4, PORT6, Attachment, Direction, Group, Icmp, Match, Rule, Rules
from services.policy_compiler.core import Changes

Way = Literal["ingress", "egress"]
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection."""

    source: str
    destination: str
    protocol: int
    port: int = 0
    """Destination port; for ICMP the type."""
    source_port: int = 40000
    code: int = 0


@dataclass
class CompiledPolicy:
    """The state of the POLICY stream."""

    groups: dict[tuple[GroupId, int], Group] = field(default_factory=dict)
    rules: dict[RulesId, Rules] = field(default_factory=dict)
    attachments: dict[tuple[str, str, str], Attachment] = field(default_factory=dict)

    def take(self, changes: Changes) -> None:
        for mine, theirs in (
            (self.groups, changes.groups),
            (self.rules, changes.rules),
            (self.attachments, changes.attachments),
        ):
            for key, message in theirs.items():
                if message is None:
                    mine.pop(key, None)  # type: ignore[call-overload]
                else:
                    mine[key] = message  # type: ignore[index]

    def members(self, group: GroupId) -> set[bytes] | None:
        """None: the group is not known, or not whole."""
        first = self.groups.get((group, 0))
        if first is None:
            return None
        width4, width6 = (ADDRESS4, ADDRESS6) if first.of == "addresses" else (PORT4, PORT6)
        found: set[bytes] = set()
        for at in range(first.segments):
            segment = self.groups.get((group, at))
            if segment is None:
                return None
            found.update(_cut(segment.v4, width4), _cut(segment.v6, width6))
        return found

    def allows(self, way: Way, attachment: tuple[str, str, str], packet: Packet) -> bool:
        """What the policies of one direction of one endpoint say."""
        found = self.attachments.get(attachment)
        return found is not None and self._decide(getattr(found, way), way, packet)

    def _decide(self, direction: Direction, way: Way, packet: Packet) -> bool:
        for tier in direction.tiers:
            verdict = self._tier(tier.rules, way, packet) or tier.default
            if verdict != "pass":
                return verdict == "allow"
        return direction.default == "allow"

    def _tier(self, ids: Iterable[RulesId], way: Way, packet: Packet) -> str | None:
        for uid in ids:
            rules = self.rules.get(uid)
            if rules is None:
                return "deny"
            for rule in getattr(rules, way):
                matched = self._matches(rule, packet)
                if matched is None and rule.action in ("allow", "log") and not rule.never:
                    continue
                if matched is None or (matched and rule.never):
                    return "deny"
                if matched and rule.action != "log":
                    return str(rule.action)
        return None

    def _matches(self, rule: Rule, packet: Packet) -> bool | None:
        """None: a group is missing, so nobody can say."""
        version = ip_address(packet.source).version
        if rule.ip_version not in (None, version) or rule.protocol not in (None, packet.protocol):
            return False
        if rule.not_protocol == packet.protocol:
            return False
        if rule.icmp is not None and not _is_icmp(rule.icmp, packet):
            return False
        if rule.not_icmp is not None and _is_icmp(rule.not_icmp, packet):
            return False
        source = self._end(rule.source, packet.source, packet.protocol, packet.source_port)
        destination = self._end(rule.destination, packet.destination, packet.protocol, packet.port)
        return None if source is None or destination is None else source and destination

    def _end(self, match: Match, address: str, protocol: int, port: int) -> bool | None:
        named = (*match.groups, *match.not_groups, *match.named_ports, *match.not_named_ports)
        groups = {uid: members for uid in named if (members := self.members(uid)) is not None}
        if len(groups) != len(set(named)):
            return None
        ip = ip_address(address)
        at_port = ip.packed + bytes((protocol, 0)) + port.to_bytes(2, "big")
        return (
            all(ip.packed in groups[uid] for uid in match.groups)
            and not any(ip.packed in groups[uid] for uid in match.not_groups)
            and (not match.nets or any(ip in ip_network(net) for net in match.nets))
            and not any(ip in ip_network(net) for net in match.not_nets)
            and (
                not (match.ports or match.named_ports)
                or any(r.first <= port <= r.last for r in match.ports)
                or any(at_port in groups[uid] for uid in match.named_ports)
            )
            and not any(r.first <= port <= r.last for r in match.not_ports)
            and not any(at_port in groups[uid] for uid in match.not_named_ports)
        )

    def complaints(self) -> list[str]:
        """References that lead nowhere, and things that nobody refers to."""
        found: list[str] = []
        for key, attachment in self.attachments.items():
            for direction in (attachment.ingress, attachment.egress):
                for tier in direction.tiers:
                    found += (f"{key} names unknown rules {uid}" for uid in tier.rules if uid not in self.rules)
        used: set[GroupId] = set()
        for uid, rules in self.rules.items():
            for rule in (*rules.ingress, *rules.egress):
                for end in (rule.source, rule.destination):
                    named = {*end.groups, *end.not_groups, *end.named_ports, *end.not_named_ports}
                    found += (f"{uid} names unknown group {group}" for group in named if self.members(group) is None)
                    used |= named
        for group, at in self.groups:
            if group not in used:
                found.append(f"nobody names group {group}")
            elif at >= self.groups[group, 0].segments:
                found.append(f"segment {at} of group {group} is left over")
        return found


def _is_icmp(icmp: Icmp, packet: Packet) -> bool:
    return icmp.type == packet.port and icmp.code in (None, packet.code)


def _cut(packed: bytes, width: int) -> set[bytes]:
    assert len(packed) % width == 0
    members = [packed[at : at + width] for at in range(0, len(packed), width)]
    assert members == sorted(set(members)), "members are ascending and distinct"
    return set(members)
