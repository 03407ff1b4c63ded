"""Which connections a change of policy ends. Pure.

By default those that live go on until they end. Where a policy says `cut` (`Rules.cut`), or the whole node does, what
the policy no longer allows is ended when the policy changes:

    facts --Changes.note--> noted --begin--> under way --committed--> due --take--> Changed
                                                                                      |
                                                     conntrack --Tracked--> not_allowed() --> Cut --> sentences

A policy changed for an endpoint when its rules did, when it began or ceased to govern the endpoint, or when a group
that it names lost members by which it allows, or gained some by which it denies. A change waits until it is in the
kernel: to cut before would only let the connection be made anew. Where nobody cuts, nothing is looked at. Which
connections a host endpoint does not allow is said by `host_cutting`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from bus_schemas.ids import GroupId, PodKey, RulesId
from bus_schemas.policy import Attachment, Direction, Group, HostAttachment, Match, Rule, Rules, Way
from bus_schemas.subjects import ATTACHMENT, GROUP, HOST_ATTACHMENT, RULES, Fact
from bus_schemas.verdicts import Flow, World, allows
from services.node_dataplane.denials import Told
from services.node_dataplane.netlink.conntrack import Tracked
from services.node_dataplane.nft.frame import NodeRules
from services.node_dataplane.nft.governed import Governed
from services.node_dataplane.packet_header import protocol_name

MOST_EVENTS = 20
"""Told one by one of one change; the rest as a number."""
CUT = "cut"


class Known(World, Protocol):
    """What of the policy table is asked here; `naming` and `segment` as they were before a fact is applied."""

    @property
    def attachments(self) -> Mapping[PodKey, Attachment]: ...

    @property
    def hosts(self) -> Mapping[str, HostAttachment]: ...

    @property
    def governed(self) -> Governed: ...

    @property
    def node(self) -> NodeRules: ...

    def naming(self, group: GroupId) -> frozenset[RulesId]: ...

    def segment(self, group: GroupId, number: int) -> Group | None: ...


@dataclass
class Changed:
    policies: set[RulesId] = field(default_factory=set)
    pods: dict[PodKey, set[RulesId]] = field(default_factory=dict)
    """What began or ceased to govern them, or only took another place."""
    hosts: dict[str, set[RulesId]] = field(default_factory=dict)
    """The same of host endpoints, by name."""

    def __bool__(self) -> bool:
        return bool(self.policies or self.pods or self.hosts)

    def add(self, other: Changed) -> None:
        self.policies |= other.policies
        for pod, rules in other.pods.items():
            self.pods.setdefault(pod, set()).update(rules)
        for host, rules in other.hosts.items():
            self.hosts.setdefault(host, set()).update(rules)


class Changes:
    def __init__(self, known: Known) -> None:
        self._known = known
        self._everywhere = False
        self._cutting: set[RulesId] = set()
        """Policies that say `cut`; those that are gone leave at the next `begin`."""
        self._keeping: set[RulesId] = set()
        """Policies that say `keep`, likewise."""
        self._noted = Changed()
        self._under_way = Changed()
        self._due = Changed()

    @property
    def active(self) -> bool:
        """Somebody cuts."""
        return self._everywhere or bool(self._cutting)

    def set_everywhere(self, everywhere: bool) -> None:
        """All policies of the node cut."""
        self._everywhere = everywhere

    def note(self, fact: Fact) -> None:
        """To be told of every fact before the policy table learns it (`PolicyTable.unfold`)."""
        if fact.family == RULES:
            self._note_rules(RulesId(fact.key[0]), fact.value)
        elif self.active and fact.family == ATTACHMENT:
            self._note_attachment(PodKey(fact.key[1], fact.key[2]), fact.value)
        elif self.active and fact.family == HOST_ATTACHMENT:
            self._note_host(fact.key[1], fact.value)
        elif self.active and fact.family == GROUP and fact.key[1].isdecimal():
            self._note_group(GroupId(fact.key[0]), int(fact.key[1]), fact.value)

    def _note_rules(self, id_: RulesId, rules: Rules | None) -> None:
        if rules is None:
            return  # What it no longer governs is told by attachments; that it is not known is no reason to cut.
        if rules.cut or (self._cuts(id_) and not rules.keep):
            self._noted.policies.add(id_)
        if rules.cut:
            self._cutting.add(id_)
        else:
            self._cutting.discard(id_)
        if rules.keep:
            self._keeping.add(id_)
        else:
            self._keeping.discard(id_)

    def _note_attachment(self, pod: PodKey, after: Attachment | None) -> None:
        before = self._known.attachments.get(pod)
        if before is None or after is None or before.container != after.container:
            return
        for old, new in ((before.ingress, after.ingress), (before.egress, after.egress)):
            if (old.tiers, old.profiles, old.default) == (new.tiers, new.profiles, new.default):
                continue
            changed = _policies(old) ^ _policies(new) or _policies(new)
            cutting = set(filter(self._cuts, changed))
            if cutting or (self._everywhere and not changed):
                self._noted.pods.setdefault(pod, set()).update(cutting)

    def _note_host(self, name: str, after: HostAttachment | None) -> None:
        """One that is new governs connections that live already; one that is gone denies nothing."""
        if after is None:
            return
        before = self._known.hosts.get(name)
        moved = before is None or (before.interface, before.addresses) != (after.interface, after.addresses)
        for stage in HostAttachment.DIRECTIONS:
            old = Direction() if before is None else getattr(before, stage)
            new = getattr(after, stage)
            if not moved and (old.tiers, old.profiles, old.default) == (new.tiers, new.profiles, new.default):
                continue
            changed = _policies(old) ^ _policies(new) or _policies(new)
            cutting = set(filter(self._cuts, changed))
            if cutting or (self._everywhere and not changed):
                self._noted.hosts.setdefault(name, set()).update(cutting)

    def _note_group(self, id_: GroupId, number: int, after: Group | None) -> None:
        policies = set(filter(self._cuts, self._known.naming(id_)))
        if not policies:
            return
        old, new = _members(self._known.segment(id_, number)), _members(after)
        lost, gained = bool(old - new), bool(new - old)
        for policy in policies:
            rules = self._known.rules(policy)
            if rules is not None and any(_matters(rule, id_, lost, gained) for rule in (*rules.ingress, *rules.egress)):
                self._noted.policies.add(policy)

    def _cuts(self, policy: RulesId) -> bool:
        return policy in self._cutting or (self._everywhere and policy not in self._keeping)

    # --- the kernel

    def begin(self) -> None:
        """What was noted so far is on its way to the kernel, and stays so when it does not arrive."""
        self._under_way.add(self._noted)
        self._noted = Changed()
        self._cutting = {policy for policy in self._cutting if self._known.rules(policy) is not None}
        self._keeping = {policy for policy in self._keeping if self._known.rules(policy) is not None}

    def committed(self) -> bool:
        """It is there. Whether anything is due now."""
        self._due.add(self._under_way)
        self._under_way = Changed()
        return bool(self._due)

    def take(self) -> Changed:
        """What is due, once."""
        due, self._due = self._due, Changed()
        return due

    def give_back(self, changed: Changed) -> None:
        """It could not be acted upon."""
        self._due.add(changed)


def governing(attachment: Attachment | HostAttachment) -> frozenset[RulesId]:
    """All policies that it names."""
    return frozenset().union(*(_policies(getattr(attachment, way)) for way in attachment.DIRECTIONS))


def _policies(direction: Direction) -> frozenset[RulesId]:
    return frozenset((*(rules for tier in direction.tiers for rules in tier.rules), *direction.profiles))


def _members(group: Group | None) -> frozenset[bytes]:
    if group is None:
        return frozenset()
    packed = (*_split(group.v4, 8 if group.of == "ports" else 4), *_split(group.v6, 20 if group.of == "ports" else 16))
    return frozenset((*packed, *_split(group.nets4, 5), *_split(group.nets6, 17)))


def _split(packed: bytes, width: int) -> Iterator[bytes]:
    return (packed[at : at + width] for at in range(0, len(packed), width))


def _matters(rule: Rule, group: GroupId, lost: bool, gained: bool) -> bool:
    """Whether the rule can take away what was allowed, when members come or go.

    An allow covers less when its group loses members, a deny more when its group gains them; and the other way round
    where the group is excluded. A pass leads elsewhere either way."""
    included, excluded = _names(rule, group)
    if rule.action == "allow":
        return (included and lost) or (excluded and gained)
    if rule.action == "deny":
        return (included and gained) or (excluded and lost)
    return rule.action == "pass" and (included or excluded)


def _names(rule: Rule, group: GroupId) -> tuple[bool, bool]:
    ends: tuple[Match, Match] = (rule.source, rule.destination)
    return (
        any(group in (*end.groups, *end.named_ports) for end in ends),
        any(group in (*end.not_groups, *end.not_named_ports) for end in ends),
    )


# --- connections


class Concerned(NamedTuple):
    """A pod whose connections are to be looked at."""

    pod: PodKey
    attachment: Attachment
    policies: frozenset[RulesId]
    """Those that changed for it."""

    @property
    def title(self) -> str:
        return str(self.pod)


class Subject(Protocol):
    """Whose policy does not allow a connection."""

    @property
    def title(self) -> str: ...

    @property
    def policies(self) -> frozenset[RulesId]: ...


class Cut(NamedTuple):
    connection: Tracked
    concerned: Subject
    way: Way


def concerned(
    changed: Changed, attachments: Mapping[PodKey, Attachment], addresses: Mapping[PodKey, Iterable[str]]
) -> dict[bytes, Concerned]:
    """By address, the pods of `addresses` that the changes reach."""
    found: dict[bytes, Concerned] = {}
    for pod, own in addresses.items():
        attachment = attachments.get(pod)
        if attachment is None:
            continue
        policies = governing(attachment) & changed.policies
        if policies or pod in changed.pods:
            entry = Concerned(pod, attachment, frozenset(policies | changed.pods.get(pod, set())))
            found.update((ip_address(address).packed, entry) for address in own)
    return found


def flow_of(connection: Tracked) -> Flow:
    return Flow(*connection[:7])


def not_allowed(
    connections: Iterable[Tracked], pods: Mapping[bytes, Concerned], world: World, node: Set[bytes]
) -> Iterator[Cut]:
    """Those that could not be made now. `node`: its own addresses; it always reaches its pods."""
    for connection in connections:
        flow = flow_of(connection)
        source, destination = pods.get(flow.source), pods.get(flow.destination)
        if source is not None and not allows(source.attachment.egress, "egress", flow, world):
            yield Cut(connection, source, "egress")
        elif destination is None or flow.source in node:
            continue
        elif not allows(destination.attachment.ingress, "ingress", flow, world):
            yield Cut(connection, destination, "ingress")


# --- words


def describe(cuts: Iterable[Cut], world: World) -> list[Told]:
    """One sentence for each pod and peer, the most connections first."""
    counts = Counter(
        (cut.concerned.title, cut.concerned.policies, cut.way, _peer(cut), cut.connection.protocol, cut.connection.port)
        for cut in cuts
    )
    told = []
    for (subject, changed, way, peer, protocol, port), count in counts.most_common(MOST_EVENTS):
        policies = ", ".join(sorted(_title(policy, world) for policy in changed))
        what = f"{count} connection{'s' if count > 1 else ''}"
        ends = f"of {subject} to {peer}" if way == "egress" else f"of {peer} to {subject}"
        service = protocol_name(protocol) + (f" port {port}" if port else "")
        since = f"since {policies} changed" if policies else "since other policies govern it"
        detail = {
            "direction": way,
            "peer": peer,
            "protocol": protocol_name(protocol),
            "port": str(port or ""),
            "policy": policies,
            "count": str(count),
        }
        message = f"{what} {ends}, {service}, cut: not allowed {since}."
        told.append(Told(CUT, subject, message, {key: text for key, text in detail.items() if text}))
    rest = counts.total() - sum(count for _, count in counts.most_common(MOST_EVENTS))
    if rest:
        told.append(Told(CUT, "", f"{rest} more connections cut that are no longer allowed.", {"count": str(rest)}))
    return told


def _peer(cut: Cut) -> str:
    return str(ip_address(cut.connection.destination if cut.way == "egress" else cut.connection.source))


def _title(policy: RulesId, world: World) -> str:
    rules = world.rules(policy)
    return rules.policy if rules is not None else policy
