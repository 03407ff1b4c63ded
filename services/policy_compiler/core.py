"""The pure heart of the policy compiler: facts in; groups, rules, attachments and faults out."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bus_schemas.ids import GroupId, NodeName, PodKey, RulesId
from bus_schemas.policy import Attachment, Group, Rules
from bus_schemas.resources import (
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    Namespace,
    NetworkPolicy,
    Pod,
    Resource,
    ServiceAccount,
)
from bus_schemas.subjects import ATTACHMENT, DESIRED, ENDPOINT, GROUP, RULES, Fact, Family, Key
from services.policy_compiler import translate_calico, translate_kubernetes
from services.policy_compiler.attachments import Attachments
from services.policy_compiler.endpoints import Contents, Endpoints, Workload, WorkloadKey
from services.policy_compiler.groups import Groups, SegmentKey
from services.policy_compiler.label_index import NOTHING, LabelIndex
from services.policy_compiler.policies import Policy, Translation

TRANSLATORS: dict[type[Resource], Callable[[Any], Translation]] = {
    KubernetesNetworkPolicy: translate_kubernetes.translate,
    NetworkPolicy: translate_calico.translate,
    GlobalNetworkPolicy: translate_calico.translate,
}
"""One row for each kind of policy."""

READS: tuple[Family[Any], ...] = (
    DESIRED[Namespace],
    DESIRED[ServiceAccount],
    DESIRED[Pod],
    *(DESIRED[kind] for kind in TRANSLATORS),
    ENDPOINT,
)
WRITES: tuple[Family[Any], ...] = (GROUP, RULES, ATTACHMENT)
"""What is named before what names it: written in this order, removed in the reverse."""


class Fault(NamedTuple):
    """What had to be set aside."""

    object: str
    """`<kind token>/<namespace>/<name>`."""
    message: str


@dataclass(frozen=True)
class Changes:
    """What differs from the last flush. None: there is to be none any more."""

    groups: dict[SegmentKey, Group | None] = field(default_factory=dict)
    """In the order in which they are to be written, see `Groups.flush`."""
    rules: dict[RulesId, Rules | None] = field(default_factory=dict)
    attachments: dict[WorkloadKey, Attachment | None] = field(default_factory=dict)
    raised: tuple[Fault, ...] = ()
    cleared: tuple[Fault, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.groups or self.rules or self.attachments or self.raised or self.cleared)

    def __len__(self) -> int:
        """How many messages these are."""
        return len(self.groups) + len(self.rules) + len(self.attachments)


PolicyKey = tuple[type[Resource], str, str]


class Core:
    def __init__(self) -> None:
        # Endpoint, Pod, Namespace, ServiceAccount
        #        |
        #    endpoints -- contents changed --> index <-- subject, groups' selections -- policies <-- translate -- Policy
        #        |                               |                                         |
        #        |             who gained, lost, kept which selection                      |
        #        |                    |                    |                               |
        #        +-- addresses --> groups            attachments <---- place, directions --+
        #                             |                    |                               |
        #                          Group              Attachment                         Rules
        self._endpoints = Endpoints()
        self._index: LabelIndex[Workload] = LabelIndex()
        self._policies: dict[PolicyKey, Policy] = {}
        self._groups = Groups()
        self._attachments = Attachments()

        self._translations: dict[PolicyKey, Translation] = {}
        """Policies that changed since the last flush."""
        self._faults: dict[tuple[str, ...], frozenset[Fault]] = {}
        """By object, as of the last flush."""
        self._suspects: dict[tuple[str, ...], frozenset[Fault]] = {}
        """Objects that changed since, and their faults now."""
        self._doors: dict[str, Callable[[Key, Any], None]] = {
            DESIRED[Namespace].name: lambda key, value: self._endpoints.set_namespace(key[1], value),
            DESIRED[ServiceAccount].name: lambda key, value: self._endpoints.set_service_account(PodKey(*key), value),
            DESIRED[Pod].name: lambda key, value: self._endpoints.set_pod(PodKey(*key), value),
            ENDPOINT.name: self._apply_endpoint,
            **{DESIRED[kind].name: self._policy_door(kind) for kind in TRANSLATORS},
        }

    def apply(self, fact: Fact) -> None:
        """One key's current value or absence."""
        door = self._doors.get(fact.family.name)
        if door is not None:
            door(fact.key, fact.value)

    def flush(self) -> Changes:
        """Everything that changed since the last flush, in terms of what the agents read."""
        self._move_workloads()
        rules = self._change_policies()
        groups = self._groups.flush()
        attachments = self._attachments.flush(self._index.matched)
        raised, cleared = self._tell_faults()
        return Changes(groups, rules, attachments, raised, cleared)

    @property
    def sizes(self) -> dict[str, int]:
        """How many there are of what, as of the last flush."""
        return {
            "endpoints": len(self._endpoints),
            "policies": len(self._policies),
            "selections": len(self._index),
            "groups": len(self._groups),
            "attachments": len(self._attachments),
        }

    @property
    def is_blank(self) -> bool:
        """Nothing desired is known, not one namespace, pod or policy."""
        return not (self._policies or self._translations) and self._endpoints.nothing_desired

    @property
    def faults(self) -> list[Fault]:
        """What is set aside now, as of the last flush."""
        return sorted(fault for faults in self._faults.values() for fault in faults)

    # --- doors

    def _apply_endpoint(self, key: Key, value: Any) -> None:
        node, namespace, name = key
        fault = self._endpoints.set_endpoint(WorkloadKey(NodeName(node), namespace, name), value)
        self._suspect(("Endpoint", *key), () if fault is None else (fault,))

    def _policy_door(self, kind: type[Resource]) -> Callable[[Key, Any], None]:
        translate = TRANSLATORS[kind]

        def door(key: Key, value: Any) -> None:
            namespace, name = key
            translation = Translation(None) if value is None else translate(value)
            self._translations[kind, namespace, name] = translation
            self._suspect((kind.TOKEN, namespace, name), translation.faults)

        return door

    def _suspect(self, where: tuple[str, ...], faults: tuple[str, ...]) -> None:
        if faults or where in self._faults or where in self._suspects:
            title = "/".join(filter(None, where))
            self._suspects[where] = frozenset(Fault(title, message) for message in faults)

    # --- the flush, in order

    def _move_workloads(self) -> None:
        for workload, before, after in self._endpoints.flush():
            labels_before = None if before is None else before.labels
            labels_after = None if after is None else after.labels
            gained: Set[GroupId] = NOTHING
            if labels_before != labels_after:
                gained, lost = self._index.relabel(workload, labels_after)
                for uid in lost:
                    self._groups.move(uid, before, None)
                for uid in gained:
                    self._groups.move(uid, None, after)
            if before is not None and after is not None and _reached(before) != _reached(after):
                for uid in self._index.matched(workload) - gained:
                    self._groups.move(uid, before, after)
            self._attachments.touch(workload)

    def _change_policies(self) -> dict[RulesId, Rules | None]:
        """New policies take hold of what they need before old ones let go, so what both need stays as it is."""
        rules: dict[RulesId, Rules | None] = {}
        replaced: list[Policy] = []
        translations, self._translations = self._translations, {}
        for key, (new, _) in translations.items():
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
            if old is None or new is None or old.rules != new.rules:
                rules[_rules_id(old, new)] = None if new is None else new.rules
        for old in replaced:
            self._let_go(old)
        return rules

    def _take_hold(self, policy: Policy) -> None:
        self._index.hold(policy.subject)
        for ref in policy.groups:
            self._index.hold(ref.selection)
            members = self._index.members(ref.selection.uid)
            self._groups.hold(ref, (workload.now for workload in members if workload.now is not None))

    def _let_go(self, policy: Policy) -> None:
        for ref in policy.groups:
            self._groups.release(ref)
            self._index.release(ref.selection.uid)
        self._index.release(policy.subject.uid)

    def _stand(self, old: Policy | None, new: Policy | None) -> None:
        """Other rules of the same policy change no attachment; another place or subject does."""
        if old is not None and new is not None and (old.subject, old.attaching) == (new.subject, new.attaching):
            return
        if old is not None:
            self._attachments.leave(old.subject.uid, old.attaching, self._index.members(old.subject.uid))
        if new is not None:
            self._attachments.govern(new.subject.uid, new.attaching, self._index.members(new.subject.uid))

    def _tell_faults(self) -> tuple[tuple[Fault, ...], tuple[Fault, ...]]:
        raised: list[Fault] = []
        cleared: list[Fault] = []
        suspects, self._suspects = self._suspects, {}
        for where, now in suspects.items():
            before = self._faults.pop(where, frozenset())
            if now:
                self._faults[where] = now
            raised += sorted(now - before)
            cleared += sorted(before - now)
        return tuple(raised), tuple(cleared)


def _reached(contents: Contents) -> object:
    """What its members in groups are made of."""
    return (contents.addresses, contents.ports)


def _rules_id(old: Policy | None, new: Policy | None) -> RulesId:
    """A policy's id comes from its key, so it is the same before and after."""
    policy = new or old
    assert policy is not None
    return policy.attaching.id
