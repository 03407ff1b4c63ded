"""The model of the table: fed with facts, asked for the transaction that brings the kernel to them.

    set_endpoint, ATTACHMENT      pod ----> rule group (structure of its attachment, one per way)   chain from_, to_
                                               |
    RULES                                      +----> policy (one per way)                          chain out_, in_
                                                         |
    GROUP                                                +----> group                               sets g4_ g6_ p4_ p6_

    set_services                  frontend -> backends (`service_maps`)                             services, backends

    set_devices, HOST_ATTACHMENT  host endpoint -> rule group (one per stage of `host`)             chain host_

Each arrow is a `References`: a thing is followed while something above it uses it, and exists in the kernel while a
chain or a map names it. A change marks what it touches as stale, `_settle` writes that anew from the top of the drawing
to the bottom, into the journals of the `Ruleset`; `flush` takes their differences as one transaction.

Attachments come with their shared directions in place: `directions` is in front of it all.

A change of members touches none of the above but the elements of its sets.

The protocol: `flush` (or `whole`), commit it, then `committed` or `failed`, and only then the next flush. After a
failure nobody knows what the kernel holds, so the next flush replaces the whole table; so does the very first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from bus_schemas.ids import DirectionId, GroupId, PodKey, RulesId
from bus_schemas.policy import Attachment, Direction, Group, HostAttachment, Rule, Rules
from bus_schemas.subjects import ATTACHMENT, DIRECTION, GROUP, HOST_ATTACHMENT, RULES, Fact
from services.node_dataplane.nft import by_address, floating, foreign_sources, frame, host
from services.node_dataplane.nft.attribution import GUARDS, Claims, Counted, Denial
from services.node_dataplane.nft.chains import Chain, endpoint_chains
from services.node_dataplane.nft.directions import Directions
from services.node_dataplane.nft.frame import NodeRules
from services.node_dataplane.nft.governed import Devices, Governed, govern
from services.node_dataplane.nft.groups import Delta, GroupState, MalformedGroup
from services.node_dataplane.nft.layout import ByLink, Layout, Spot
from services.node_dataplane.nft.link_groups import LinkGroups
from services.node_dataplane.nft.lookups import Lookups
from services.node_dataplane.nft.merge import Members
from services.node_dataplane.nft.names import (
    WAYS,
    Way,
    address_set,
    endpoint_chain,
    net_set,
    policy_chain,
    port_set,
)
from services.node_dataplane.nft.policies import UNKNOWN, Policy, policy_of, preview_of
from services.node_dataplane.nft.references import References
from services.node_dataplane.nft.render import Facts, Rendered, groups_of
from services.node_dataplane.nft.ruleset import Ruleset
from services.node_dataplane.nft.service_maps import ServiceMaps
from services.node_dataplane.nft.sets import (
    ADDRESSES4,
    ADDRESSES6,
    NETS4,
    NETS6,
    PORTS4,
    PORTS6,
    SetKind,
    SetSpec,
    device_key,
    link_key,
    packed_net_keys,
)
from services.node_dataplane.nft.transaction import Command, Transaction
from services.node_dataplane.service_proxy.core import Changes

__all__ = ["Counted", "Denial", "Expected", "Flush", "NodeRules", "PolicyTable", "Wanted"]


class Wanted(NamedTuple):
    """What to follow on the bus. Whatever is not in it has been forgotten here."""

    rules: frozenset[RulesId]
    groups: frozenset[GroupId]
    directions: frozenset[DirectionId]


class Flush(NamedTuple):
    transaction: Transaction | None
    """None: the kernel already has everything."""
    programmed: frozenset[PodKey]
    """Pods whose whole policy is in this transaction or an earlier one: true once it is committed."""
    blocked: Mapping[PodKey, str]
    """The other pods, which are dropped at least in part, and why."""


class Expected(NamedTuple):
    """What the kernel should hold, for the driver's self-check."""

    revision: int
    structure: tuple[Command, ...]
    """The whole table without the elements of hash sets."""
    elements: Mapping[str, Mapping[bytes, str]]
    """Set -> key -> verdict, for every hash set."""
    kinds: Mapping[str, SetKind]
    """Of the same sets: how their keys are written."""


@dataclass(frozen=True)
class _Endpoint:
    link: str
    addresses: tuple[str, ...]
    container: str
    floating: tuple[tuple[str, str], ...] = ()
    sources: tuple[str, ...] = ()
    device: int = 0
    bridged: bool = False

    @property
    def spot(self) -> Spot:
        return Spot(self.link, self.addresses, self.device, self.bridged)


class _Structure(NamedTuple):
    """A rule group's identity, one way."""

    way: Way
    direction: Direction
    stage: host.Stage | None = None
    """Of host endpoints; None: of pods."""

    @property
    def enforced(self) -> frozenset[_Policy]:
        tiers = (rules for tier in self.direction.tiers for rules in tier.rules)
        return frozenset((self.way, rules) for rules in (*tiers, *self.direction.profiles))

    @property
    def previewed(self) -> frozenset[_Policy]:
        return frozenset((self.way, rules) for tier in self.direction.preview or () for rules in tier.rules)


_Policy = tuple[Way, RulesId]


class PolicyTable:
    def __init__(self, node: NodeRules | None = None, layout: Layout | None = None, *, services: bool = False) -> None:
        """`layout`: None: by link. `services`: it translates service addresses."""
        # Facts
        self._node = node or NodeRules()
        self._endpoints: dict[PodKey, _Endpoint] = {}
        self.link_groups = LinkGroups()
        """The keys of pods' links. What is in the kernel is to be adopted before the first endpoint is told."""
        self._layout: Layout = layout or ByLink(self.link_groups)
        self._directions = Directions()
        self._attachments: dict[PodKey, Attachment] = {}
        self._rules: dict[RulesId, Rules] = {}
        self._groups: dict[GroupId, GroupState] = {}
        self._hosts: dict[str, HostAttachment] = {}
        self._devices: Devices = {}
        # Who uses what, by the facts: what is followed
        self._structures: dict[str, _Structure] = {}
        self._pod_uses: References[PodKey, str] = References()
        self._host_uses: References[str, str] = References()
        self._governed = Governed({}, None, {})
        self._governing: frozenset[str] = frozenset()
        """Host endpoints that govern a device."""
        self._idle: Mapping[str, str] = {}
        """Those that govern none, and why."""
        self._structure_uses: References[str, _Policy] = References()
        self._policy_uses: References[_Policy, GroupId] = References()
        # Who uses what, as it is written: what exists
        self._enforces: References[str, _Policy] = References()
        """Rule group -> policies, without those that it only previews."""
        self._jumps: References[str, _Policy] = References()
        """Rule group -> policies whose chain it jumps to."""
        self._inlines: References[str, _Policy] = References()
        """Rule group -> policies whose rules it holds itself."""
        self._names: References[object, GroupId] = References()
        """Rule group, policy -> groups whose sets its lines name."""
        self._policies: dict[_Policy, Policy] = {}
        self._written: dict[object, frozenset[str]] = {}
        """Rule group, policy -> the chains that it consists of."""
        # What is wrong
        self._lacking: dict[_Policy, str] = {}
        """Policies of which something is not known yet, and what."""
        self._faulty: set[_Policy] = set()
        """Policies with rules that were closed."""
        self._unattached: dict[PodKey, str] = {}
        """Plugged pods that their attachment does not govern yet, and why."""
        self._malformed: dict[GroupId, str] = {}
        # What is to be settled
        self._stale_hosts = False
        self._stale_pods: set[PodKey] = set()
        self._stale_structures: set[str] = set()
        self._stale_policies: set[_Policy] = set()
        self._stale_groups: set[GroupId] = set()
        # What the kernel shall hold, what was told, and the flush under way
        self._ruleset = Ruleset()
        self._lookups = Lookups(self._ruleset)
        self._services = ServiceMaps(self._ruleset) if services else None
        self._wanted: Wanted | None = None
        self._unasked: set[RulesId | GroupId] = set()
        """Told of, though not wanted at that time."""
        self._programmed: frozenset[PodKey] = frozenset()
        self._blocked: dict[PodKey, str] = {}
        self._reported = False
        self._revision = 0
        self._pending: Transaction | None = None
        self._in_kernel = False

        for name, spec in (*self._layout.sets.items(), *host.SETS.items()):
            self._ruleset.open(name, spec)
        self._frame()

    # --- facts

    def set_endpoint(
        self,
        pod: PodKey,
        link: str,
        addresses: tuple[str, ...],
        container: str,
        *,
        floating: tuple[tuple[str, str], ...] = (),
        sources: tuple[str, ...] = (),
        device: int = 0,
        bridged: bool = False,
    ) -> None:
        """The pod is plugged in: its addresses may be sent from, and its policy is wanted. `floating` as in
        `Endpoint.floating`; `sources`: CIDRs, see `foreign_sources`; `device` and `bridged` as in `layout.Spot`."""
        endpoint = _Endpoint(link, addresses, container, floating, sources, device, bridged)
        before = self._endpoints.get(pod)
        if endpoint == before:
            return
        if before is not None:
            self._withdraw(before)
            if before.link != endpoint.link:
                self._layout.release(before.spot)
        self._endpoints[pod] = endpoint
        for name, key in self._layout.own(endpoint.spot):
            self._ruleset.put(name, key)
        self._stale_pods.add(pod)
        self._translate(before, endpoint)

    def remove_endpoint(self, pod: PodKey) -> None:
        endpoint = self._endpoints.pop(pod, None)
        if endpoint is not None:
            self._withdraw(endpoint)
            self._layout.release(endpoint.spot)
            self._stale_pods.add(pod)
            self._translate(endpoint)

    def set_pod_devices(self, devices: Set[int]) -> None:
        """By address: the indices of the devices behind which there are pods, known or not, and nothing else."""
        self._ruleset.fill(by_address.POD_DEVICES, {device_key(index): "" for index in devices})

    def set_devices(self, devices: Devices) -> bool:
        """The node's own devices with their addresses; whether that is news for any host endpoint."""
        if devices != self._devices:
            self._devices = devices
            self._stale_hosts |= bool(self._hosts)
            return self._stale_hosts
        return False

    def set_node(self, node: NodeRules) -> None:
        if node == self._node:
            return
        if (node.log_prefix, node.log_limit) != (self._node.log_prefix, self._node.log_limit):
            self._stale_policies.update(self._structure_uses.used)
        self._node = node
        self._stale_hosts |= bool(self._hosts)
        self._frame()

    def set_services(self, changes: Changes) -> None:
        """Where service addresses lead, as far as that changed."""
        assert self._services is not None, "a table that translates none"
        self._services.update(changes)

    def apply(self, fact: Fact) -> None:
        """ATTACHMENT and HOST_ATTACHMENT (of this node), DIRECTION, RULES and GROUP facts; all others are none of its
        business."""
        for whole in self.unfold(fact):
            self.learn(whole)

    def unfold(self, fact: Fact) -> Sequence[Fact]:
        """What a fact comes to with shared directions in their place: each is to be learnt, in order. Whoever wants to
        know what a fact changes looks between this and `learn`."""
        if fact.family == ATTACHMENT:
            self._stale_pods.add(PodKey(fact.key[1], fact.key[2]))
        elif fact.family not in (HOST_ATTACHMENT, DIRECTION):
            return (fact,)
        return self._directions.take(fact)

    def learn(self, fact: Fact) -> None:
        """A fact that was unfolded."""
        if fact.family == GROUP:
            self._apply_group(GroupId(fact.key[0]), fact.key[1], fact.value)
        elif fact.family == RULES:
            self._apply_rules(RulesId(fact.key[0]), fact.value)
        elif fact.family == ATTACHMENT:
            pod = PodKey(fact.key[1], fact.key[2])
            if fact.value is None:
                self._attachments.pop(pod, None)
            else:
                self._attachments[pod] = fact.value
            self._stale_pods.add(pod)
        elif fact.family == HOST_ATTACHMENT:
            if fact.value is None:
                self._hosts.pop(fact.key[1], None)
            else:
                self._hosts[fact.key[1]] = fact.value
            self._stale_hosts = True

    def _apply_rules(self, id_: RulesId, rules: Rules | None) -> None:
        if rules is None:
            self._rules.pop(id_, None)
        else:
            self._rules[id_] = rules
        used = [(way, id_) for way in WAYS if self._structure_uses.users((way, id_))]
        self._stale_policies.update(used)
        if not used:
            self._unasked.add(id_)

    def _apply_group(self, id_: GroupId, segment: str, value: object) -> None:
        if not segment.isdecimal():
            self._malformed[id_] = f"there is no segment {segment!r}"
            return
        state = self._groups.get(id_)
        if state is None:
            state = self._groups[id_] = GroupState()
        was = state.facts
        try:
            delta = state.put(int(segment), value)  # type: ignore[arg-type]
        except MalformedGroup as error:
            self._malformed[id_] = f"segment {segment}: {error}"
            return
        self._malformed.pop(id_, None)
        if state.facts != was:
            self._stale_groups.add(id_)
        elif state.known and id_ not in self._stale_groups:  # Else it is about to be written as a whole.
            self._move(id_, state, delta)
        if state.empty:
            del self._groups[id_]
        if not self._policy_uses.users(id_):
            self._unasked.add(id_)

    # --- questions

    def wanted(self) -> Wanted:
        """What to follow now. Facts about anything else are forgotten: their keys are read anew when wanted again."""
        self._settle()
        directions = self._directions.wanted()
        if self._wanted is None or self._wanted.directions is not directions:
            wanted = frozenset(rules for _, rules in self._structure_uses.used)
            self._wanted = Wanted(wanted, frozenset(self._policy_uses.used), directions)
            self._unasked |= self._rules.keys() | self._groups.keys()
        for id_ in self._unasked - self._wanted.rules - self._wanted.groups:
            self._rules.pop(RulesId(id_), None)
            self._groups.pop(GroupId(id_), None)
            self._malformed.pop(GroupId(id_), None)
        self._unasked.clear()
        return self._wanted

    def faults(self) -> tuple[str, ...]:
        """What is dropped because it could not be understood, one sentence each, for people."""
        self._settle()
        policies = [
            f"{self._rules[policy[1]].policy} {policy[0]}, {fault}"
            for policy in self._faulty
            for fault in self._policies[policy].rendered.faults
        ]
        return (*sorted(policies), *(f"group {id_}, {why}" for id_, why in sorted(self._malformed.items())))

    def host_faults(self) -> tuple[str, ...]:
        """Host endpoints that do not do what was asked of them, one sentence each, for people."""
        self._settle()
        faults = [f"HostEndpoint/{name} governs nothing: {why}" for name, why in self._idle.items()]
        faults += [f"HostEndpoint/{name}: {why}" for name in self._governing for why in host.faults(self._hosts[name])]
        for policy, why in self._lacking.items():
            users = {name for group in self._enforces.users(policy) for name in self._host_uses.users(group)}
            faults += [f"HostEndpoint/{name}: {why}" for name in users]
        return tuple(sorted(faults))

    def expected(self) -> Expected | None:
        """What the kernel holds if nobody else touched it; None while a transaction is pending or due."""
        self._settle()
        if self._ruleset.due or self._pending is not None or not self._in_kernel:
            return None
        kinds = self._ruleset.hash_sets()
        elements = {name: dict(self._ruleset.elements(name)) for name in kinds}
        return Expected(self._revision, tuple(self._ruleset.script(with_elements=False)), elements, kinds)

    def host_endpoint(self, device: str) -> str:
        """The name of the one that governs a device; empty: none."""
        return self._governed.by_device.get(device) or self._governed.others or ""

    def rules(self, id: RulesId) -> Rules | None:
        """What is known of a policy that is wanted."""
        return self._rules.get(id)

    def in_group(self, group: GroupId, key: bytes) -> bool | None:
        """As `bus_schemas.verdicts.World` asks it."""
        state = self._groups.get(group)
        return state.contains(key) if state is not None and state.known else None

    def segment(self, group: GroupId, number: int) -> Group | None:
        state = self._groups.get(group)
        return state.segment(number) if state is not None else None

    def naming(self, group: GroupId) -> frozenset[RulesId]:
        """The policies that name a group."""
        return frozenset(rules for _, rules in self._policy_uses.users(group))

    @property
    def attachments(self) -> Mapping[PodKey, Attachment]:
        """Of this node, whether the pod is plugged in or not; with shared directions in their place."""
        return self._attachments

    @property
    def hosts(self) -> Mapping[str, HostAttachment]:
        """The node's host endpoints, whether they govern a device or not; with shared directions in their place."""
        return self._hosts

    @property
    def governed(self) -> Governed:
        """Which devices they govern."""
        self._settle()
        return self._governed

    @property
    def node(self) -> NodeRules:
        return self._node

    def counted(self) -> Mapping[str, Counted]:
        """Counter object -> what it counts; those of the guards (`attribution.GUARDS`) are not among them."""
        return {name: counted for name, counted in self._ruleset.counters.items() if counted.rules}

    def denial(self, prefix: str) -> Denial | None:
        """What a message to the log group tells; None: whatever sent it is not in the table any more."""
        found = self._ruleset.denial(prefix)
        if found is None or found.tier or not found.rules:
            return found
        for name in self._enforces.users((found.way, found.rules)):
            for tier in self._structures[name].direction.tiers:
                if found.rules in tier.rules:
                    return replace(found, tier=tier.tier)
        return found

    # --- flushing

    def flush(self) -> Flush:
        """The differences since the last flush."""
        if not self._in_kernel:
            transaction: Transaction | None = self.whole()
        else:
            assert self._pending is None, "a transaction is neither committed nor failed"
            self._settle()
            changes = self._ruleset.differences()
            transaction = self._begin(*changes) if any(changes) else None
        self._report()
        return Flush(transaction, self._programmed, self._blocked)

    def whole(self) -> Transaction:
        """The complete table, in place of whatever is there."""
        assert self._pending is None, "a transaction is neither committed nor failed"
        self._settle()
        self._ruleset.settle()
        return self._begin(tuple(self._ruleset.script(with_elements=True)), whole=True)

    def committed(self, transaction: Transaction) -> None:
        assert transaction is self._pending, "not the transaction under way"
        self._pending = None
        self._in_kernel = True

    def failed(self, transaction: Transaction) -> None:
        """The kernel refused it, or nobody knows: the next flush is the whole table."""
        assert transaction is self._pending, "not the transaction under way"
        self._pending = None
        self._in_kernel = False

    def _begin(
        self,
        commands: tuple[Command, ...],
        ahead: tuple[Command, ...] = (),
        behind: tuple[Command, ...] = (),
        *,
        whole: bool = False,
    ) -> Transaction:
        self._revision += 1
        self._pending = Transaction(self._revision, commands, whole, ahead, behind)
        return self._pending

    # --- settling: from the top of the drawing to its bottom

    def _settle(self) -> None:
        stale = self._stale_pods or self._stale_structures or self._stale_policies or self._stale_groups
        if not (stale or self._stale_hosts):
            return
        self._reported = False
        self._wanted = None
        if self._stale_hosts:
            self._settle_hosts()
        while self._stale_pods:
            self._settle_pod(self._stale_pods.pop())
        for name in self._stale_structures:
            self._link_structure(name)
        for policy in list(self._stale_policies):
            self._link_policy(policy)
        # Now it is certain what is followed. How a rule is written depends on what is known of its groups.
        for group in self._stale_groups:
            self._stale_policies.update(self._policy_uses.users(group))
        moved = set(self._stale_policies)
        for policy in self._stale_policies:
            self._render_policy(policy)
        self._stale_policies.clear()
        for name in self._stale_structures:
            moved |= self._write_structure(name)
        self._stale_structures.clear()
        # Now it is certain what is named, so what exists.
        for policy in moved:
            self._place_policy(policy)
        for group in self._stale_groups:
            self._place_group(group)
        self._stale_groups.clear()

    def _settle_pod(self, pod: PodKey) -> None:
        endpoint = self._endpoints.get(pod)
        attachment = self._attachments.get(pod)
        names: dict[Way, str] = {}
        self._unattached.pop(pod, None)
        lacking = self._directions.lacking(ATTACHMENT, *pod)
        if endpoint is None:
            pass
        elif attachment is None:
            self._unattached[pod] = lacking or "no attachment yet"
        elif attachment.container != endpoint.container:
            self._unattached[pod] = lacking or "its attachment is for another container"
        else:
            if lacking:
                self._unattached[pod] = f"{lacking}; the policy before is kept"
            for way in WAYS:
                direction = attachment.egress if way == "egress" else attachment.ingress
                names[way] = name = endpoint_chain(way, direction)
                if name not in self._structures:
                    self._structures[name] = _Structure(way, direction)
        shift = self._pod_uses.set(pod, frozenset(names.values()))
        self._stale_structures |= shift.gained
        for name in shift.lost:
            self._stale_structures.add(name)
        if endpoint is not None:
            for way in WAYS:
                for map_, key in self._layout.dispatch(way, endpoint.spot):
                    if way in names:
                        self._ruleset.put(map_, key, f"goto {names[way]}")
                    else:
                        self._ruleset.discard(map_, key)

    def _settle_hosts(self) -> None:
        self._stale_hosts = False
        governed = govern(self._hosts.values(), self._devices)
        plan = host.plan(self._hosts, governed, self._node, self._layout.of_pods)
        for name, group in plan.groups.items():
            self._structures.setdefault(name, _Structure(group.stage.way, group.direction, group.stage))
        for name in self._governing | plan.uses.keys():
            shift = self._host_uses.set(name, plan.uses.get(name, frozenset()))
            self._stale_structures |= shift.gained | shift.lost
        self._governing, self._idle = frozenset(plan.uses), governed.idle
        self._governed = governed
        for map_, rows in plan.maps.items():
            self._ruleset.fill(map_, {link_key(device): f"goto {chain}" for device, chain in rows.items()})
        self._place("hosts", plan.chains)

    def _in_use(self, structure: str) -> bool:
        return bool(self._pod_uses.users(structure) or self._host_uses.users(structure))

    def _link_structure(self, name: str) -> None:
        used = self._in_use(name)
        structure = self._structures[name]
        enforced = structure.enforced if used else frozenset()
        for shift in (
            self._enforces.set(name, enforced),
            self._structure_uses.set(name, enforced | structure.previewed if used else frozenset()),
        ):
            self._stale_policies |= shift.gained | shift.lost

    def _link_policy(self, policy: _Policy) -> None:
        groups: frozenset[GroupId] = frozenset()
        if self._structure_uses.users(policy):
            groups = frozenset(group for rule in self._rules_of(policy) or () for group in groups_of(rule))
        shift = self._policy_uses.set(policy, groups)
        self._stale_groups |= shift.gained | shift.lost

    def _render_policy(self, policy: _Policy) -> None:
        way, id_ = policy
        before = self._policies.pop(policy, None)
        self._lacking.pop(policy, None)
        self._faulty.discard(policy)
        if not self._structure_uses.users(policy):
            return
        rules = self._rules_of(policy)
        node = self._node
        made = self._policies[policy] = policy_of(way, id_, rules, self._known, node.log_prefix, node.log_limit)
        if rules is None:
            self._lacking[policy] = f"{UNKNOWN}: {id_}"
        elif made.rendered.missing:
            self._lacking[policy] = f"members not known yet: {', '.join(sorted(made.rendered.missing))} of {id_}"
        if made.rendered.faults:
            self._faulty.add(policy)
        self._stale_structures |= self._inlines.users(policy)
        if before is None or before.outline != made.outline:
            self._stale_structures |= self._enforces.users(policy)

    def _write_structure(self, name: str) -> set[_Policy]:
        """The policies that it began or ceased to jump to."""
        structure = self._structures[name]
        if not self._in_use(name):
            del self._structures[name]
            self._place(name, {})
            self._ruleset.claim(name, Claims())
            self._inlines.set(name, frozenset())
            self._name(name, frozenset())
            self._lookups.set(name, ())
            return set(self._jumps.set(name, frozenset()).lost)
        way, direction, stage = structure

        def preview(rules: RulesId, tier: str, passing: str, claims: Claims) -> Rendered:
            return preview_of(way, rules, tier, self._rules_of((way, rules)), self._known, passing, claims)

        made = endpoint_chains(
            name,
            way,
            direction,
            lambda rules: self._policies[way, rules],
            preview,
            self._members,
            allow="return" if stage is None and way == "egress" else "accept",
            undecided=stage.undecided if stage is not None else "",
        )
        if stage is not None:
            made.chains[name] = stage.framed(made.chains[name])
        self._place(name, made.chains)
        self._ruleset.claim(name, made.claims)
        self._inlines.set(name, frozenset((way, rules) for rules in made.inlined))
        self._name(name, frozenset(made.groups))
        self._lookups.set(name, made.merged)
        jumps = self._jumps.set(name, frozenset((way, rules) for rules in made.jumps))
        return set(jumps.gained | jumps.lost)

    def _place_policy(self, policy: _Policy) -> None:
        """What a policy leads to exists while it is enforced, its chain while somebody jumps to it."""
        way, id_ = policy
        made = self._policies.get(policy) if self._enforces.users(policy) else None
        jumped = made is not None and bool(self._jumps.users(policy))
        chains: dict[str, Chain] = {}
        groups: frozenset[GroupId] = frozenset()
        if made is not None:
            chains.update(made.denies)
            if jumped:
                chains[policy_chain(way, id_)] = Chain(made.rendered.lines, comment=f"{id_} {way}")
                groups = frozenset(group for rule in made.rendered.rules for group in groups_of(rule.rule))
        self._place(policy, chains)
        self._ruleset.claim(policy, Claims() if made is None else made.claims)
        self._name(policy, groups)

    def _place(self, owner: object, chains: Mapping[str, Chain]) -> None:
        for chain in self._written.pop(owner, frozenset()) - chains.keys():
            self._ruleset.chain(chain, None)
        for chain, content in chains.items():
            self._ruleset.chain(chain, content)
        if chains:
            self._written[owner] = frozenset(chains)

    def _name(self, owner: object, groups: frozenset[GroupId]) -> None:
        shift = self._names.set(owner, groups)
        self._stale_groups |= shift.gained | shift.lost

    def _place_group(self, id_: GroupId) -> None:
        state = self._groups.get(id_)
        used = bool(self._names.users(id_)) and state is not None and state.known
        contents = _contents(id_, state) if used and state is not None else {}
        for name in (f(id_, family) for f in (address_set, port_set, net_set) for family in (4, 6)):
            if name in contents:
                kind, keys = contents[name]
                spec = SetSpec(kind, state.selector if state is not None else "")
                self._ruleset.open(name, spec, dict.fromkeys(keys, ""))
            else:
                self._ruleset.close(name)

    def _rules_of(self, policy: _Policy) -> tuple[Rule, ...] | None:
        way, id_ = policy
        rules = self._rules.get(id_)
        if rules is None:
            return None
        return rules.egress if way == "egress" else rules.ingress

    def _known(self, group: GroupId) -> Facts | None:
        state = self._groups.get(group)
        return None if state is None else state.facts

    # --- elements

    def _withdraw(self, endpoint: _Endpoint) -> None:
        spot = endpoint.spot
        for name, key in self._layout.own(spot):
            self._ruleset.discard(name, key)
        for way in WAYS:
            for map_, key in self._layout.dispatch(way, spot):
                self._ruleset.discard(map_, key)

    def _members(self, group: GroupId) -> Members:
        state = self._groups[group]
        return Members(state.keys4, state.keys6, state.nets4, state.nets6)

    def _move(self, id_: GroupId, state: GroupState, delta: Delta) -> None:
        self._stale_structures.update(self._lookups.move(id_, delta))
        if delta.nets:
            self._stale_structures |= self._lookups.watching(id_)
        if not self._names.users(id_):
            return
        for name, added, removed in (
            (_set_name(id_, state, 4), delta.added4, delta.removed4),
            (_set_name(id_, state, 6), delta.added6, delta.removed6),
        ):
            for key in added:
                self._ruleset.put(name, key)
            for key in removed:
                self._ruleset.discard(name, key)
        if delta.nets:
            self._place_group(id_)

    def _frame(self) -> None:
        chains = self._layout.chains(self._node)
        guards, claims = frame.guards()
        self._place("frame", {**chains, **guards})
        self._ruleset.claim("frame", claims)
        for guard in GUARDS:
            self._ruleset.guard_counter(guard)
        for name, keys in self._layout.members(self._node).items():
            self._ruleset.fill(name, dict.fromkeys(keys, ""))
        self._particular()

    def _translate(self, *changed: _Endpoint | None) -> None:
        if any(endpoint is not None and (endpoint.floating or endpoint.sources) for endpoint in changed):
            self._particular()

    def _particular(self) -> None:
        """What few pods have: floating addresses, sources that are not their own."""
        pods = self._endpoints.values()
        self._place("floating", floating.chains((pair for pod in pods for pair in pod.floating), self._node))
        self._place(
            "foreign sources",
            foreign_sources.chains(((pod.link, pod.sources) for pod in pods if pod.sources), self._node),
        )

    # --- the report

    def _report(self) -> None:
        if self._reported:
            return
        blocked = dict(self._unattached)
        for policy, reason in self._lacking.items():
            for structure in self._enforces.users(policy):
                for pod in self._pod_uses.users(structure):
                    blocked.setdefault(pod, reason)
        self._blocked = blocked
        self._programmed = frozenset(self._endpoints.keys() - blocked.keys())
        self._reported = True


def _set_name(id_: GroupId, state: GroupState, family: int) -> str:
    return (port_set if state.of == "ports" else address_set)(id_, family)


def _contents(id_: GroupId, state: GroupState) -> dict[str, tuple[SetKind, Set[bytes]]]:
    """The sets of a group, and their elements."""
    four, six = (PORTS4, PORTS6) if state.of == "ports" else (ADDRESSES4, ADDRESSES6)
    found: dict[str, tuple[SetKind, Set[bytes]]] = {
        _set_name(id_, state, 4): (four, state.keys4.keys()),
        _set_name(id_, state, 6): (six, state.keys6.keys()),
    }
    for family, kind, nets in ((4, NETS4, state.nets4), (6, NETS6, state.nets6)):
        if nets:
            found[net_set(id_, family)] = (kind, packed_net_keys(nets))
    return found
