"""Tunnels that no pool wants any more, and that stay for a while all the same. Pure.

When a pool leaves a tunnel, every node hears of it by itself, and the routes come a moment after the pool: a device
that went at once would drop what others still send through it, and what this node sends until its routes have changed.
"""

from __future__ import annotations

from collections.abc import Set

from services.node_dataplane import ipip, tunnel

LINGER_S = 10.0
"""What is on the way is there within a second; a node that hears nothing of the change keeps its own tunnel."""


class Lingering:
    """`settle` is told what is wanted; `devices` are those and the ones that were, until a moment ago."""

    def __init__(self) -> None:
        self._until: dict[str, float | None] = {}
        """By device; None: it is wanted."""

    def settle(self, wanted: Set[str], now: float) -> None:
        """`now`: Unix time in seconds."""
        for device in [*self._until]:
            if device in wanted:
                continue
            until = self._until[device]
            if until is None:
                self._until[device] = now + LINGER_S
            elif until <= now:
                del self._until[device]
        self._until.update(dict.fromkeys(wanted))

    @property
    def devices(self) -> Set[str]:
        return self._until.keys()

    @property
    def ipip(self) -> bool:
        return ipip.DEVICE in self._until

    @property
    def vxlan(self) -> frozenset[int]:
        """Families."""
        return frozenset(family for family, device in tunnel.DEVICES.items() if device in self._until)

    @property
    def due(self) -> float | None:
        """When to settle again though nothing changed."""
        return min((until for until in self._until.values() if until is not None), default=None)
