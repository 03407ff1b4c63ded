"""Which policies govern which endpoint, in which order, each way.

    subject selection -> rules id -> Attaching      policies by whom they govern
    tier -> rules ids -> subject                    who has to hear when a tier moves
    withdrawn rules ids                             what staged policies would replace or delete
    touched members                                 those whose attachment is made anew at the next flush

An attachment is a function of the endpoint's contents, of the policies whose subject it matches and of their tiers. A
tier stands in a direction only if a policy of it governs that direction. Staged policies stand in previews alone.

Endpoints that the same many policies govern share one Direction: it is worked out once, until some policy changes its
place. Otherwise thousands of policies that each select every pod would cost pods times policies, in time and memory.
They would on the bus, too: there such a Direction is a message of its own (`directions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from bus_schemas.ids import DirectionId, GroupId, RulesId
from bus_schemas.policy import Attachment, Direction, HostAttachment, SharedDirection, TierRules
from services.policy_compiler.directions import Directions
from services.policy_compiler.endpoints import Workload, WorkloadKey
from services.policy_compiler.hosts import Host, HostKey
from services.policy_compiler.label_index import LabelIndex
from services.policy_compiler.members import Member
from services.policy_compiler.policies import Attaching
from services.policy_compiler.tiers import Tiers

FORWARD = ("forward_ingress", "forward_egress")
EARLY = ("pre_dnat_ingress", "untracked_ingress", "untracked_egress")
"""Directions of host endpoints before which nothing is decided and after which all else follows: neither a tier nor
the end denies there what no rule denied."""


MANY = 16
"""What more policies than this govern is looked up before it is worked out. For fewer that would cost more."""
KEPT = 1_000
"""So many combinations of many policies are kept; then it begins anew."""


class AttachmentChanges(NamedTuple):
    """What differs from the last flush. None: there is none any more."""

    directions: dict[DirectionId, SharedDirection | None]
    workloads: dict[WorkloadKey, Attachment | None]
    hosts: dict[HostKey, HostAttachment | None]


class _Governing(NamedTuple):
    """The policies that govern an endpoint."""

    policies: list[Attaching]
    """In order, but for their tiers."""
    many: frozenset[GroupId] | None = None
    """Their subjects, where they are so many that what comes of them is kept."""


class Attachments:
    def __init__(self, tiers: Tiers, index: LabelIndex[Member], shared: Directions) -> None:
        self._tiers = tiers
        self._index = index
        self._shared = shared
        self._policies: dict[GroupId, dict[RulesId, Attaching]] = {}
        self._of_tier: dict[str, set[RulesId]] = {}
        self._subjects: dict[RulesId, GroupId] = {}
        self._withdrawn: set[RulesId] = set()
        self._touched: set[Member] = set()
        self._touched_subjects: set[GroupId] = set()
        """Those of which every member was touched in the flush under way."""
        self._orders: dict[frozenset[GroupId], list[Attaching]] = {}
        self._directions: dict[tuple[object, ...], Direction] = {}
        self._told: dict[Workload, Attachment] = {}
        self._told_hosts: dict[Host, HostAttachment] = {}

    def __len__(self) -> int:
        return len(self._told) + len(self._told_hosts)

    def govern(self, subject: GroupId, policy: Attaching) -> None:
        """The policy governs (or governs differently) the endpoints of its subject."""
        self._policies.setdefault(subject, {})[policy.id] = policy
        self._of_tier.setdefault(policy.tier, set()).add(policy.id)
        self._subjects[policy.id] = subject
        self._touch_subject(policy.id)

    def leave(self, subject: GroupId, policy: Attaching) -> None:
        """The policy governs them no more."""
        self._touch_subject(policy.id)
        del self._subjects[policy.id]
        del self._policies[subject][policy.id]
        if not self._policies[subject]:
            del self._policies[subject]
        self._of_tier[policy.tier].discard(policy.id)
        if not self._of_tier[policy.tier]:
            del self._of_tier[policy.tier]

    def withdraw(self, policy: RulesId) -> None:
        """A staged policy would replace or delete the policy, if it exists."""
        self._withdrawn.add(policy)
        self._touch_subject(policy)

    def restore(self, policy: RulesId) -> None:
        """No staged policy would."""
        self._withdrawn.discard(policy)
        self._touch_subject(policy)

    def touch(self, member: Member) -> None:
        """The member changed, or its selections did."""
        self._touched.add(member)

    def flush(self) -> AttachmentChanges:
        for tier in self._tiers.changed():
            for policy in self._of_tier.get(tier, ()):
                self._touch_subject(policy)
        workloads: dict[WorkloadKey, Attachment | None] = {}
        hosts: dict[HostKey, HostAttachment | None] = {}
        touched, self._touched = self._touched, set()
        for member in touched:
            if isinstance(member, Workload):
                self._make(member, workloads)
            elif isinstance(member, Host):
                self._make_host(member, hosts)
        self._touched_subjects.clear()
        directions = self._shared.flush()
        if None in directions.values():
            self._forget_what_was_kept()  # it may name one that is gone
        return AttachmentChanges(directions, workloads, hosts)

    def _touch_subject(self, policy: RulesId) -> None:
        self._forget_what_was_kept()
        subject = self._subjects.get(policy)
        if subject is not None and subject not in self._touched_subjects:
            self._touched_subjects.add(subject)
            self._touched |= self._index.members(subject)

    def _forget_what_was_kept(self) -> None:
        self._orders.clear()
        self._directions.clear()

    def _make(self, workload: Workload, changed: dict[WorkloadKey, Attachment | None]) -> None:
        before, after = self._told.get(workload), self._attachment(workload)
        if before == after:
            return
        self._shared.count(before, after)
        if after is None:
            del self._told[workload]
            changed[workload.key] = None
        else:
            self._told[workload] = after
            changed[workload.key] = after

    def _make_host(self, host: Host, changed: dict[HostKey, HostAttachment | None]) -> None:
        before, after = self._told_hosts.get(host), self._host_attachment(host)
        if before == after:
            return
        self._shared.count(before, after)
        if before is not None:
            del self._told_hosts[host]
            changed.setdefault(HostKey(before.node, before.name), None)  # its node can be another now
        if after is not None:
            self._told_hosts[host] = after
            changed[HostKey(after.node, after.name)] = after

    # --- what governs

    def _attachment(self, workload: Workload) -> Attachment | None:
        now = workload.now
        if now is None:
            return None
        governing = self._governing(workload)
        # A namespace is also a profile that allows everything, which decides after the last tier; no profile denies.
        default: Literal["allow", "deny"] = "allow" if now.namespace_known else "deny"
        node, namespace, name = workload.key
        return Attachment(
            node=node,
            namespace=namespace,
            name=name,
            container=now.container,
            ingress=self._direction("ingress", governing, default),
            egress=self._direction("egress", governing, default),
        )

    def _host_attachment(self, host: Host) -> HostAttachment | None:
        station = host.station
        if station is None:
            return None
        governing = self._governing(host)
        directions = {
            hook: self._direction(hook, governing, station.default, station.profiles) for hook in ("ingress", "egress")
        }
        # What no policy of the direction speaks of is forwarded; and so is what all of its tiers passed.
        directions |= {hook: self._direction(hook, governing, "allow") for hook in FORWARD}
        directions |= {hook: self._direction(hook, governing, "allow", tiers_pass=True) for hook in EARLY}
        return HostAttachment(
            node=station.node,
            name=host.name,
            interface=station.interface,
            addresses=station.addresses,
            **directions,
        )

    def _governing(self, member: Member) -> _Governing:
        policies = self._policies
        subjects = [uid for uid in self._index.matched(member) if uid in policies]
        if sum([len(policies[uid]) for uid in subjects]) <= MANY:
            return _Governing(sorted([policy for uid in subjects for policy in policies[uid].values()]))
        many = frozenset(subjects)
        if many not in self._orders:
            if len(self._orders) == KEPT:
                self._forget_what_was_kept()
            self._orders[many] = sorted([policy for uid in subjects for policy in policies[uid].values()])
        return _Governing(self._orders[many], many)

    def _direction(
        self,
        hook: str,
        governing: _Governing,
        default: Literal["allow", "deny"],
        profiles: tuple[RulesId, ...] = (),
        *,
        tiers_pass: bool = False,
    ) -> Direction:
        if governing.many is None:
            return self._shared.fold(self._worked_out(hook, governing.policies, default, profiles, tiers_pass))
        key = (governing.many, hook, default, profiles, tiers_pass)
        found = self._directions.get(key)
        if found is None:
            found = self._shared.fold(self._worked_out(hook, governing.policies, default, profiles, tiers_pass))
            self._directions[key] = found
        return found

    def _worked_out(
        self,
        hook: str,
        governing: Sequence[Attaching],
        default: Literal["allow", "deny"],
        profiles: tuple[RulesId, ...],
        tiers_pass: bool,
    ) -> Direction:
        enforced = tried = [policy for policy in governing if hook in policy.hooks]
        if self._withdrawn:  # every staged policy withdraws something
            tried = [policy for policy in enforced if policy.staged or policy.id not in self._withdrawn]
            enforced = [policy for policy in enforced if not policy.staged]
        return Direction(
            tiers=self._in_tiers(enforced, tiers_pass),
            profiles=profiles,
            default=default,
            preview=None if tried == enforced else self._in_tiers(tried, tiers_pass),
        )

    def _in_tiers(self, policies: Sequence[Attaching], tiers_pass: bool) -> tuple[TierRules, ...]:
        by_tier: dict[str, list[RulesId]] = {}
        for policy in policies:
            by_tier.setdefault(policy.tier, []).append(policy.id)
        names: Iterable[str] = by_tier if len(by_tier) < 2 else sorted(by_tier, key=self._tiers.rank)
        return tuple(self._tier_rules(names, by_tier, tiers_pass))

    def _tier_rules(
        self, names: Iterable[str], by_tier: dict[str, list[RulesId]], tiers_pass: bool
    ) -> Iterator[TierRules]:
        for name in names:
            default: Literal["deny", "pass"] = "pass" if tiers_pass else self._tiers.default(name)
            yield TierRules(tier=name, rules=tuple(by_tier[name]), default=default)
