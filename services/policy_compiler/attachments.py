"""Which policies govern which endpoint, in which order, each way.

    subject selection -> rules id -> Attaching      policies by whom they govern
    touched workloads                               those whose attachment is made anew at the next flush

An attachment is a function of the workload's contents and of the policies whose subject it matches. A tier stands in
a direction only if a policy of it governs that direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from itertools import groupby
from typing import Literal

from bus_schemas.ids import GroupId
from bus_schemas.policy import Attachment, Direction, TierRules
from services.policy_compiler.endpoints import Workload, WorkloadKey
from services.policy_compiler.policies import Attaching
from services.policy_compiler.tiers import tier

Matched = Callable[[Workload], Set[GroupId]]
"""The selections that a workload matches."""


class Attachments:
    def __init__(self) -> None:
        self._policies: dict[GroupId, dict[str, Attaching]] = {}
        self._touched: set[Workload] = set()
        self._told: dict[Workload, Attachment] = {}

    def __len__(self) -> int:
        return len(self._told)

    def govern(self, subject: GroupId, policy: Attaching, members: Iterable[Workload]) -> None:
        """The policy governs (or governs differently) the endpoints of its subject."""
        self._policies.setdefault(subject, {})[policy.id] = policy
        self._touched.update(members)

    def leave(self, subject: GroupId, policy: Attaching, members: Iterable[Workload]) -> None:
        """The policy governs them no more."""
        policies = self._policies[subject]
        del policies[policy.id]
        if not policies:
            del self._policies[subject]
        self._touched.update(members)

    def touch(self, workload: Workload) -> None:
        """The workload changed, or its selections did."""
        self._touched.add(workload)

    def flush(self, matched: Matched) -> dict[WorkloadKey, Attachment | None]:
        """The attachments that differ from the last flush."""
        changed: dict[WorkloadKey, Attachment | None] = {}
        touched, self._touched = self._touched, set()
        for workload in touched:
            before, after = self._told.get(workload), self._attachment(workload, matched)
            if before == after:
                continue
            if after is None:
                del self._told[workload]
                changed.setdefault(workload.key, None)  # unless a new incarnation of the key has one already
            else:
                self._told[workload] = after
                changed[workload.key] = after
        return changed

    def _attachment(self, workload: Workload, matched: Matched) -> Attachment | None:
        now = workload.now
        if now is None:
            return None
        policies = sorted(
            policy for uid in matched(workload) if uid in self._policies for policy in self._policies[uid].values()
        )
        # A namespace is also a profile that allows everything, which decides after the last tier; no profile denies.
        default: Literal["allow", "deny"] = "allow" if now.namespace_known else "deny"
        node, namespace, name = workload.key
        return Attachment(
            node=node,
            namespace=namespace,
            name=name,
            container=now.container,
            ingress=Direction(tiers=tuple(_tiers([p for p in policies if p.ingress])), default=default),
            egress=Direction(tiers=tuple(_tiers([p for p in policies if p.egress])), default=default),
        )


def _tiers(policies: Iterable[Attaching]) -> Iterator[TierRules]:
    """Policies in order, cut into tiers."""
    for name, members in groupby(policies, key=lambda policy: policy.place.tier):
        yield TierRules(tier=name, rules=tuple(policy.id for policy in members), default=tier(name).default)
