"""The pure heart of the policy compiler: facts in; groups, rules, directions, attachments and faults out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, NamedTuple

from bus_schemas.ids import DirectionId, GroupId, NodeName, PodKey, RulesId
from bus_schemas.policy import Attachment, Group, HostAttachment, PolicyStatus, Rules, SharedDirection
from bus_schemas.resources import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    EndpointSlice,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    KubernetesNetworkPolicy,
    Namespace,
    NetworkPolicy,
    NetworkSet,
    Node,
    Pod,
    Profile,
    Resource,
    ServiceAccount,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)
from bus_schemas.subjects import (
    ATTACHMENT,
    DESIRED,
    DIRECTION,
    ENDPOINT,
    GROUP,
    HOST_ATTACHMENT,
    NODE_ADDRESSES,
    POLICY_STATUS,
    RULES,
    Fact,
    Family,
    Key,
)
from services.policy_compiler import translate_calico, translate_cluster, translate_kubernetes, translate_staged
from services.policy_compiler.attachments import Attachments
from services.policy_compiler.directions import LONGEST, Directions
from services.policy_compiler.endpoints import Endpoints, Workload, WorkloadKey
from services.policy_compiler.faults import Fault, Faults, StatusKey
from services.policy_compiler.groups import Groups, SegmentKey
from services.policy_compiler.hosts import DEFAULT_ALLOW, Host, HostKey, Hosts
from services.policy_compiler.label_index import NOTHING, LabelIndex
from services.policy_compiler.members import Change, Member
from services.policy_compiler.network_sets import NetworkSetKey, NetworkSets
from services.policy_compiler.nodes import Nodes
from services.policy_compiler.parents import Parents
from services.policy_compiler.policies import Policy, Translation
from services.policy_compiler.selection import Realm
from services.policy_compiler.slices import Slices
from services.policy_compiler.tiers import Tiers

TRANSLATORS: dict[type[Resource], Callable[[Any], Translation]] = {
    KubernetesNetworkPolicy: translate_kubernetes.translate,
    ClusterNetworkPolicy: translate_cluster.translate,
    AdminNetworkPolicy: translate_cluster.translate,
    BaselineAdminNetworkPolicy: translate_cluster.translate,
    NetworkPolicy: translate_calico.translate,
    GlobalNetworkPolicy: translate_calico.translate,
    Profile: translate_calico.translate_profile,
    StagedNetworkPolicy: translate_staged.translate,
    StagedGlobalNetworkPolicy: translate_staged.translate,
    StagedKubernetesNetworkPolicy: translate_staged.translate,
}
"""One row for each kind of policy."""

READS: tuple[Family[Any], ...] = (
    *(DESIRED[kind] for kind in (Namespace, ServiceAccount, Node, Tier, Pod, EndpointSlice)),
    *(DESIRED[kind] for kind in (NetworkSet, GlobalNetworkSet, HostEndpoint)),
    *(DESIRED[kind] for kind in TRANSLATORS),
    ENDPOINT,
    NODE_ADDRESSES,
)
WRITES: tuple[Family[Any], ...] = (GROUP, RULES, DIRECTION, ATTACHMENT, HOST_ATTACHMENT, POLICY_STATUS)
"""What is named before what names it: written in this order, removed in the reverse."""


class Governed(NamedTuple):
    endpoints: int
    nodes: frozenset[NodeName]


class PolicyChange(NamedTuple):
    """A policy that people wrote, and what became of it."""

    policy: RulesId
    title: str
    """`<Kind>/<namespace>/<name>` or `<Kind>/<name>`."""
    change: Literal["added", "changed", "removed"]
    subject: GroupId | None
    """Whom it governs now, see `Core.governed`; None: nobody, or it is a profile."""


@dataclass(frozen=True)
class Changes:
    """What differs from the last flush. None: there is to be none any more."""

    groups: dict[SegmentKey, Group | None] = field(default_factory=dict)
    """In the order in which they are to be written, see `Groups.flush`."""
    rules: dict[RulesId, Rules | None] = field(default_factory=dict)
    directions: dict[DirectionId, SharedDirection | None] = field(default_factory=dict)
    attachments: dict[WorkloadKey, Attachment | None] = field(default_factory=dict)
    hosts: dict[HostKey, HostAttachment | None] = field(default_factory=dict)
    statuses: dict[StatusKey, PolicyStatus | None] = field(default_factory=dict)
    policies: tuple[PolicyChange, ...] = ()
    raised: tuple[Fault, ...] = ()
    cleared: tuple[Fault, ...] = ()

    def __bool__(self) -> bool:
        return bool(len(self) or self.raised or self.cleared)

    def __len__(self) -> int:
        """How many messages these are."""
        derived = len(self.groups) + len(self.rules) + len(self.directions)
        return derived + len(self.attachments) + len(self.hosts) + len(self.statuses)


PolicyKey = tuple[type[Resource], str, str]


class Core:
    def __init__(self, *, longest_direction: int = LONGEST) -> None:
        """A direction that names more rules than `longest_direction` is shared."""
        # Endpoint, Pod, Namespace, ServiceAccount, NetworkSets, HostEndpoint, Profile, Node, EndpointSlice
        #        |
        #    members -- contents changed --> indexes <-- subject, groups' selections -- policies <-- translate -- Policy
        #        |                               |                                         |
        #        |             who gained, lost, kept which selection                      |
        #        |                    |                    |                               |
        #        +-- addresses --> groups            attachments <---- order, directions --+
        #                             |                |       ^                            |
        #                          Group   (Host)Attachment    +-- tiers <-- Tier         Rules
        #                                          |
        #                                   SharedDirection
        self._parents = Parents()
        self._endpoints = Endpoints(self._parents)
        self._network_sets = NetworkSets(self._parents)
        self._hosts = Hosts(self._parents)
        self._nodes = Nodes()
        self._slices = Slices()
        self._indexes: dict[Realm, LabelIndex[Member]] = {
            "endpoints": LabelIndex(),
            "nodes": LabelIndex(),
            "services": LabelIndex(),
        }
        self._policies: dict[PolicyKey, Policy] = {}
        self._groups = Groups()
        self._tiers = Tiers()
        self._directions = Directions(longest_direction)
        self._attachments = Attachments(self._tiers, self._indexes["endpoints"], self._directions)
        self._faults = Faults()

        self._translations: dict[PolicyKey, Policy | None] = {}
        """Policies that changed since the last flush."""
        self._doors: dict[str, Callable[[Key, Any], None]] = {
            DESIRED[Namespace].name: self._apply_namespace,
            DESIRED[ServiceAccount].name: self._apply_account,
            DESIRED[Tier].name: lambda key, value: self._tiers.define(key[1], value),
            DESIRED[Pod].name: lambda key, value: self._endpoints.set_pod(PodKey(*key), value),
            ENDPOINT.name: self._apply_endpoint,
            NODE_ADDRESSES.name: self._apply_node_addresses,
            **{DESIRED[kind].name: self._policy_door(kind) for kind in TRANSLATORS},
            DESIRED[Profile].name: self._profile_door(),
            **{
                DESIRED[kind].name: self._member_door(kind, put)
                for kind, put in (
                    (NetworkSet, lambda key, value: self._network_sets.set(NetworkSetKey(*key), value)),
                    (GlobalNetworkSet, lambda key, value: self._network_sets.set(NetworkSetKey(*key), value)),
                    (HostEndpoint, lambda key, value: self._hosts.set(key[1], value)),
                    (Node, lambda key, value: self._nodes.set(key[1], value)),
                    (EndpointSlice, lambda key, value: self._slices.set(key, value)),
                )
            },
        }

    def apply(self, fact: Fact) -> None:
        """One key's current value or absence."""
        door = self._doors.get(fact.family.name)
        if door is not None:
            door(fact.key, fact.value)

    def flush(self) -> Changes:
        """Everything that changed since the last flush, in terms of what the agents read."""
        self._move("endpoints", chain(self._endpoints.flush(), self._network_sets.flush(), self._hosts.flush()))
        self._move("nodes", self._nodes.flush())
        self._move("services", self._slices.flush())
        rules, policies = self._change_policies()
        groups = self._groups.flush()
        directions, workloads, hosts = self._attachments.flush()
        raised, cleared, statuses = self._faults.flush()
        return Changes(groups, rules, directions, workloads, hosts, statuses, policies, raised, cleared)

    def governed(self, subject: GroupId | None) -> Governed:
        """Whom a policy governs, as of the last flush. Work is proportional to how many these are."""
        members = self._indexes["endpoints"].members(subject) if subject is not None else ()
        nodes = {node for member in members if member.now is not None and (node := _node_of(member))}
        return Governed(sum(isinstance(m, Workload | Host) and m.now is not None for m in members), frozenset(nodes))

    @property
    def sizes(self) -> dict[str, int]:
        """How many there are of what, as of the last flush."""
        return {
            "endpoints": len(self._endpoints),
            "host endpoints": len(self._hosts),
            "network sets": len(self._network_sets),
            "policies": len(self._policies),
            "selections": sum(map(len, self._indexes.values())),
            "groups": len(self._groups),
            "directions": len(self._directions),
            "attachments": len(self._attachments),
        }

    @property
    def is_blank(self) -> bool:
        """Nothing desired is known, not one namespace, pod, host endpoint or policy."""
        return not (self._policies or self._translations or self._parents or self._hosts or self._network_sets) and (
            self._endpoints.nothing_desired
        )

    @property
    def faults(self) -> list[Fault]:
        """What is set aside now, as of the last flush."""
        return self._faults.all()

    # --- doors

    def _apply_namespace(self, key: Key, value: Any) -> None:
        _, name = key
        self._parents.set_namespace(name, value)
        self._endpoints.namespace_changed(name)
        self._network_sets.namespace_changed(name)
        self._hosts.namespace_changed(name)

    def _apply_account(self, key: Key, value: Any) -> None:
        account = PodKey(*key)
        self._parents.set_account(account, value)
        self._endpoints.account_changed(account)
        self._hosts.account_changed(account)

    def _apply_endpoint(self, key: Key, value: Any) -> None:
        node, namespace, name = key
        fault = self._endpoints.set_endpoint(WorkloadKey(NodeName(node), namespace, name), value)
        self._faults.found(("Endpoint", *key), () if fault is None else (fault,))

    def _apply_node_addresses(self, key: Key, value: Any) -> None:
        self._faults.found_in(Node, ("", key[0]), self._nodes.find(key[0], value))

    def _member_door(
        self, kind: type[Resource], put: Callable[[Key, Any], tuple[str, ...]]
    ) -> Callable[[Key, Any], None]:
        return lambda key, value: self._faults.found_in(kind, key, put(key, value))

    def _profile_door(self) -> Callable[[Key, Any], None]:
        translated = self._policy_door(Profile)

        def door(key: Key, value: Any) -> None:
            if key[1] != DEFAULT_ALLOW:  # the api writes that one unasked: it is nobody's wish, see `is_blank`
                translated(key, value)
            self._hosts.set_profile(key[1], value)

        return door

    def _policy_door(self, kind: type[Resource]) -> Callable[[Key, Any], None]:
        translate = TRANSLATORS[kind]

        def door(key: Key, value: Any) -> None:
            namespace, name = key
            if value is None:
                policy, faults = Translation(None)
            elif value.key == key and bool(namespace) == kind.NAMESPACED:
                policy, faults = translate(value)
            else:  # two could claim one id, and a policy without its namespace would govern all of them
                policy, faults = Translation(None, (f"metadata: {value.display} is stored as {'/'.join(key)}",))
            self._translations[kind, namespace, name] = policy
            self._faults.found_in(kind, key, faults)

        return door

    # --- the flush, in order

    def _move(self, realm: Realm, changes: Iterable[Change]) -> None:
        index = self._indexes[realm]
        for member, before, after in changes:
            labels_before = None if before is None else before.labels
            labels_after = None if after is None else after.labels
            gained: Set[GroupId] = NOTHING
            if labels_before != labels_after:
                gained, lost = index.relabel(member, labels_after)
                if before is not None:
                    for uid in lost:
                        self._groups.move(uid, before, None)
                for uid in gained:
                    self._groups.move(uid, None, after)
            if before is not None and after is not None and before.reached != after.reached:
                for uid in index.matched(member) - gained:
                    self._groups.move(uid, before, after)
            self._attachments.touch(member)

    def _change_policies(self) -> tuple[dict[RulesId, Rules | None], tuple[PolicyChange, ...]]:
        """New policies take hold of what they need before old ones let go, so what both need stays as it is."""
        rules: dict[RulesId, Rules | None] = {}
        changes: list[PolicyChange] = []
        replaced: list[Policy] = []
        translations, self._translations = self._translations, {}
        for key, new in translations.items():
            old = self._policies.get(key)
            if new == old:
                continue
            if new is not None:
                self._policies[key] = new
                self._take_hold(new)
            else:
                del self._policies[key]
            if old is not None:
                replaced.append(old)
            self._stand(old, new)
            policy = new or old
            assert policy is not None
            before, after = None if old is None else old.rules, None if new is None else new.rules
            if before != after:
                rules[policy.id] = after  # the id comes from the key, so it is the same before and after
            change: Literal["added", "changed", "removed"]
            change = "added" if old is None else "removed" if new is None else "changed"
            subject = new.subject.uid if new is not None and new.subject is not None else None
            changes.append(PolicyChange(policy.id, _title(key), change, subject))
        for old in replaced:
            self._let_go(old)
        return rules, tuple(changes)

    def _take_hold(self, policy: Policy) -> None:
        if policy.subject is not None:
            self._indexes["endpoints"].hold(policy.subject)
        for ref in policy.groups:
            index = self._indexes[ref.selection.realm]
            index.hold(ref.selection)
            members = index.members(ref.selection.uid)
            self._groups.hold(ref, (member.now for member in members if member.now is not None))

    def _let_go(self, policy: Policy) -> None:
        for ref in policy.groups:
            self._groups.release(ref)
            self._indexes[ref.selection.realm].release(ref.selection.uid)
        if policy.subject is not None:
            self._indexes["endpoints"].release(policy.subject.uid)

    def _stand(self, old: Policy | None, new: Policy | None) -> None:
        """Other rules of the same policy change no attachment; another place or subject does."""
        if old is not None and new is not None and _standing(old) == _standing(new):
            return
        if old is not None:
            if old.subject is not None and old.attaching is not None:
                self._attachments.leave(old.subject.uid, old.attaching)
            if old.withdraws is not None:
                self._attachments.restore(old.withdraws)
        if new is not None:
            if new.subject is not None and new.attaching is not None:
                self._attachments.govern(new.subject.uid, new.attaching)
            if new.withdraws is not None:
                self._attachments.withdraw(new.withdraws)


def _standing(policy: Policy) -> object:
    return (policy.subject, policy.attaching, policy.withdraws)


def _title(key: PolicyKey) -> str:
    kind, namespace, name = key
    return "/".join(filter(None, (kind.KIND, namespace, name)))


def _node_of(member: Member) -> NodeName | None:
    match member:
        case Workload():
            return member.key.node
        case Host():
            return member.station.node if member.station is not None else None
    return None
