"""The node's own address of one family, kept: what was chosen stays as long as it is there, and longer. Pure.

A change of the node's address costs the whole cluster: routes, tunnels and sessions of every node. So

    the address is there                   it stays, also where another would come first by now
    the same address on another device     taken at once (a bond was made of the device)
    another, new, on the same device       taken at once (the address was replaced)
    others elsewhere only                  taken when the address has been away for GRACE_S
    none                                   the last good one stays, and a sentence says so: silence never deletes
    somebody asks for another              taken at once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.node_dataplane.autodetection import MOST_DEVICES, Asked, Candidate, Reach, detect
from services.node_dataplane.routes import Network
from services.node_dataplane.uplink import Interface, Uplink

GRACE_S = 5.0
"""A DHCP client that renews, a link that is replugged, a daemon that restarts: an address is back within that."""


@dataclass(frozen=True)
class Finding:
    """What is in force, and why."""

    asked: Asked
    uplink: Uplink | None
    since: float
    """Unix time in seconds at which the address was taken; 0.0 without one."""
    candidates: tuple[Candidate, ...]
    reason: str = ""
    """Of the one that is in force."""
    problem: str = ""
    due: float | None = None
    """Unix time at which to look again, whether or not anything changes."""


class OwnAddress:
    def __init__(self) -> None:
        self._held: Uplink | None = None
        self._since = 0.0
        self._words = ""
        """Of whoever asked when it was taken."""
        self._beside: frozenset[Network] = frozenset()
        """What the same device offered when the address was last there."""
        self._lost: float | None = None

    def remember(self, uplink: Uplink, since: float, words: str) -> None:
        """What an earlier life of the agent had in force, and by which words."""
        self._held, self._since, self._words = uplink, since, words

    def settle(self, asked: Asked, interfaces: Sequence[Interface], reach: Reach, now: float) -> Finding:
        """Raises nothing: what is asked for and cannot be is a problem, and the last good address stays."""
        if asked.none:
            self._held, self._since, self._lost, self._words = None, 0.0, None, asked.words
            return Finding(asked, None, 0.0, (), reason=f"{asked.by} says none")
        try:
            detection = detect(interfaces, asked, reach)
        except ValueError:
            return self._finding(
                asked, (), f"{asked.address or asked.internal!r}, asked for by {asked.by}, is no address"
            )
        possible, candidates = detection.possible, detection.candidates
        held = self._held
        if not possible:
            self._lost = self._lost if self._lost is not None else now
            trouble = detection.trouble if asked.deliberate or asked.exact else ""
            if held is not None and not asked.exact:
                trouble = f"the uplink {held.device} is down or has lost its address {held.network.ip}"
            return self._finding(asked, candidates, trouble)
        first = possible[0]
        if held is None:
            return self._take(first, possible, asked, candidates, now)
        stay = next((u for u in possible if u.network.ip == held.network.ip), None)
        if stay is not None:
            reason = "" if stay == first else f"an address that is there stays, though {first.device} would come first"
            return self._take(stay, possible, asked, candidates, self._since or now, reason)
        replaced = first.device == held.device and first.network not in self._beside
        if asked.exact or asked.words != self._words or replaced:
            return self._take(first, possible, asked, candidates, now)
        # A clock that was set back must not make this longer.
        self._lost = now if self._lost is None or self._lost > now else self._lost
        due = self._lost + GRACE_S
        if now >= due:
            return self._take(first, possible, asked, candidates, now)
        away = f"the uplink {held.device} is down or has lost its address {held.network.ip}"
        return self._finding(asked, candidates, f"{away}; {first.network.ip} of {first.device} may take its place", due)

    def _take(
        self,
        uplink: Uplink,
        possible: Sequence[Uplink],
        asked: Asked,
        candidates: tuple[Candidate, ...],
        since: float,
        reason: str = "",
    ) -> Finding:
        self._held, self._since, self._words, self._lost = uplink, since, asked.words, None
        self._beside = frozenset(u.network for u in possible if u.device == uplink.device)
        return self._finding(asked, candidates, "", reason=reason)

    def _finding(
        self,
        asked: Asked,
        candidates: tuple[Candidate, ...],
        problem: str,
        due: float | None = None,
        *,
        reason: str = "",
    ) -> Finding:
        known = self._held
        own = next((c for c in candidates if c.uplink is not None and c.uplink == known), None)
        told = "; ".join(filter(None, (own.reason if own is not None else "it was the last good one", reason)))
        return Finding(
            asked,
            known,
            self._since if known is not None else 0.0,
            candidates,
            reason=told if known is not None else "",
            problem=problem,
            due=due,
        )


def worth_telling(candidates: Sequence[Candidate]) -> tuple[list[Candidate], int]:
    """Those with an address of the family, or refused for what they are, and how many more there are."""
    ordered = [c for c in candidates if c.network is not None] + [c for c in candidates if c.network is None]
    return ordered[:MOST_DEVICES], max(0, len(ordered) - MOST_DEVICES)
