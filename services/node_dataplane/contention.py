"""When a repaired object is repaired again, while somebody else keeps breaking it. Pure: it is told the time, in
seconds.

The first `FREE` repairs of an object are immediate. After them each is later than the one before, from `FIRST_REST_S`
up to `LONGEST_REST_S`: a fight between two daemons, each putting its own route in place hundreds of times a second,
would cost the node more than the loss of one object. An object that nobody broke for `CALM_S` is as new.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

FREE = 5
FIRST_REST_S = 2.0
LONGEST_REST_S = 60.0
CALM_S = 180.0
"""Longer than the longest rest: what is broken again right after one is still the same fight."""


@dataclass
class _Bout:
    repairs: int = 0
    last: float = 0.0
    rests_until: float = 0.0
    rest_s: float = 0.0


class Contention:
    def __init__(self) -> None:
        self._bouts: dict[Hashable, _Bout] = {}

    def repaired(self, key: Hashable, now: float) -> bool:
        """One more repair of the object; whether this is where its rests begin."""
        bout = self._bouts.setdefault(key, _Bout())
        bout.repairs += 1
        bout.last = now
        if bout.repairs < FREE:
            return False
        begins = bout.rest_s == 0.0
        bout.rest_s = min(2 * bout.rest_s, LONGEST_REST_S) or FIRST_REST_S
        bout.rests_until = now + bout.rest_s
        return begins

    def rests(self, key: Hashable, now: float) -> bool:
        """It is not to be repaired now."""
        bout = self._bouts.get(key)
        return bout is not None and now < bout.rests_until

    def repairs(self, key: Hashable) -> int:
        """Of the bout that goes on."""
        bout = self._bouts.get(key)
        return bout.repairs if bout is not None else 0

    def contested(self) -> dict[Hashable, float]:
        """What somebody keeps breaking -> the rest after each repair, in seconds."""
        return {key: bout.rest_s for key, bout in self._bouts.items() if bout.rest_s}

    def calm(self, now: float) -> list[Hashable]:
        """What was contested and is not any more; told once."""
        calm = [key for key, bout in self._bouts.items() if now - bout.last >= CALM_S]
        over = [key for key in calm if self._bouts[key].rest_s]
        for key in calm:
            del self._bouts[key]
        return over
