"""Tiers: the coarse order of policies, and what each does with what its policies leave undecided.

Three always exist as they are (Calico's own, with their orders); a resource of such a name changes nothing. A policy
may name a tier that nobody defined: such tiers come after all others, by name, and deny.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from bus_schemas.resources import Tier as TierResource

ADMIN = "kube-admin"
DEFAULT = "default"
BASELINE = "kube-baseline"

LAST = math.inf
"""The order of a tier (or of a policy in its tier) without one."""

Rank = tuple[bool, float, str]


class Tier(NamedTuple):
    order: float
    default: Literal["deny", "pass"]


FIXED = {
    ADMIN: Tier(1_000, "pass"),
    DEFAULT: Tier(1_000_000, "deny"),
    BASELINE: Tier(10_000_000, "pass"),
}

UNDEFINED = Tier(LAST, "deny")


def comparable(order: float | None) -> float:
    """An order that sorts: none, and what is no number, is last."""
    return LAST if order is None or math.isnan(order) else order


class Tiers:
    def __init__(self) -> None:
        self._defined: dict[str, Tier] = {}
        self._changed: set[str] = set()

    def define(self, name: str, resource: TierResource | None) -> None:
        if name in FIXED:
            return
        before = self._defined.pop(name, None)
        after = None
        if resource is not None:
            default: Literal["deny", "pass"] = "pass" if resource.spec.default_action == "Pass" else "deny"
            after = self._defined[name] = Tier(comparable(resource.spec.order), default)
        if before != after:
            self._changed.add(name)

    def changed(self) -> set[str]:
        """The tiers that differ from the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def default(self, name: str) -> Literal["deny", "pass"]:
        """What becomes of a connection that no rule of the tier decides."""
        return self._get(name).default

    def rank(self, name: str) -> Rank:
        """Sorts tiers in the order of evaluation."""
        tier = self._get(name)
        return (tier is UNDEFINED, tier.order, name)

    def _get(self, name: str) -> Tier:
        return FIXED.get(name) or self._defined.get(name, UNDEFINED)
