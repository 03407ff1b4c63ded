"""Nodes that fall silent, and that are heard again. Pure; told the time, in Unix seconds.

    statuses of agents (with a time to live), Nodes --look--> lost, found

Silence is only a sign where it could have been broken: while we ourselves have no bus, and for a while after it came
back, nobody is lost. A node that is silent when we begin is not told as lost, somebody else did or it never was here;
its first word is. A node whose resource is gone has left, which is no loss.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from bus_schemas.status import STATUS_INTERVAL_S, STATUS_TTL_S

GRACE_S = STATUS_TTL_S + STATUS_INTERVAL_S
"""How long everybody has to say something once the bus is there."""


class Turn(NamedTuple):
    """A node that was lost or found."""

    what: str
    """`lost` or `found`."""
    node: str
    silent_s: float | None
    """Seconds since its last word, about; None: not known."""


class Vigil:
    def __init__(self) -> None:
        self._heard: dict[str, float] = {}
        """When a node was last seen to be there."""
        self._lost: dict[str, float | None] = {}
        """Since when; None: since before we began."""
        self._since: float | None = None
        """When the bus came (back)."""
        self._begun = False

    def look(self, speaking: Collection[str], desired: Collection[str], *, bus: bool, now: float) -> list[Turn]:
        """`speaking`: nodes whose agents' status is on the bus; `desired`: nodes with a Node resource; `bus`: it is
        there, and what we know of it is current."""
        if not bus:
            self._since = None
            return []
        if self._since is None:
            self._since = now
        turns = []
        for node in sorted(speaking):
            self._heard[node] = now
            if node in self._lost:
                since = self._lost.pop(node)
                turns.append(Turn("found", node, None if since is None else now - since))
        if now < self._since + GRACE_S:
            return turns
        for node in sorted(self._heard.keys() - set(speaking)):
            last = self._heard.pop(node)
            if node in desired:
                # Its last status lives on for STATUS_TTL_S after it was said.
                self._lost[node] = last - STATUS_TTL_S
                turns.append(Turn("lost", node, now - last + STATUS_TTL_S))
        if not self._begun:
            self._begun = True
            self._lost |= {node: None for node in desired if node not in self._heard and node not in self._lost}
        for node in self._lost.keys() - set(desired):
            del self._lost[node]
        return turns


def sentence(turn: Turn, speaking: int, desired: int) -> str:
    """`speaking` of the `desired` nodes are heard."""
    where = f"; {speaking} of {desired} nodes are heard"
    if turn.what == "lost":
        return f"Nothing has been heard of node {turn.node} for {turn.silent_s or 0:.0f} s{where}."
    after = f" after {turn.silent_s:.0f} s" if turn.silent_s is not None else ""
    return f"Node {turn.node} is heard again{after}{where}."
