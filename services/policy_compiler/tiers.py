"""Tiers: the coarse order of policies.

Three are fixed (Calico's own, with their orders). A policy may name a tier that nobody defined: such tiers come after
all others, by name, and deny what their policies leave undecided.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Tier(NamedTuple):
    order: float
    default: Literal["deny", "pass"]


DEFAULT = "default"

TIERS = {
    "kube-admin": Tier(1_000, "pass"),
    DEFAULT: Tier(1_000_000, "deny"),
    "kube-baseline": Tier(10_000_000, "pass"),
}

UNDEFINED = Tier(float("inf"), "deny")


def tier(name: str) -> Tier:
    return TIERS.get(name, UNDEFINED)


def rank(name: str) -> tuple[bool, float, str]:
    """Sorts tiers in the order of evaluation."""
    return (name not in TIERS, tier(name).order, name)
