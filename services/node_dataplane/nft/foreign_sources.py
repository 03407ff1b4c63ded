"""What some pods may send from beside their own addresses (`allowedSourcePrefixes`).

Only packets that the guard would drop come here, and few pods have a line: a list is cheaper than a set with intervals.
The chain exists, and the guard leads to it, while the configuration allows pods to ask (workloadSourceSpoofing Any).
"""

from __future__ import annotations

from collections.abc import Iterable

from services.node_dataplane.nft.chains import Chain
from services.node_dataplane.nft.frame import FOREIGN_SOURCES, NodeRules


def chains(allowed: Iterable[tuple[str, tuple[str, ...]]], node: NodeRules) -> dict[str, Chain]:
    """`allowed`: pod links with their CIDRs."""
    if not node.spoofing:
        return {}
    lines = [f'iifname "{link}" {_from(cidr)} accept' for link, cidrs in sorted(allowed) for cidr in cidrs]
    return {FOREIGN_SOURCES: Chain(tuple(lines))}


def _from(cidr: str) -> str:
    family = 6 if ":" in cidr else 4
    if cidr.endswith("/0"):
        return f"meta nfproto ipv{family}"
    return f"ip{'6' if family == 6 else ''} saddr {cidr}"
