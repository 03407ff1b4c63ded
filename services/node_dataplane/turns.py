"""When a part of the self-check has its turn. Pure: it is told the time, in seconds.

Reading back costs time that grows with what there is to read, so a part that took t seconds rests for `SHARE` t, but
not longer than `LONGEST_REST_S`. FelixConfiguration may make the turns rarer (`routeRefreshInterval` for the kernel's
routes, tunnels and links, `nftablesRefreshInterval` for the policy table); then only what somebody was heard to change
is looked at sooner.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

Part = Literal["kernel", "policy"]
FIELDS: Mapping[Part, str] = {"kernel": "route_refresh_interval", "policy": "nftables_refresh_interval"}

SHARE = 50
LONGEST_REST_S = 60.0

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PIECE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def seconds(text: str) -> float | None:
    """A Go duration (`1m30s`, or `0`) in seconds; None for what is none."""
    if text == "0":
        return 0.0
    pieces = list(_PIECE.finditer(text))
    if not pieces or "".join(piece[0] for piece in pieces) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in (piece.groups() for piece in pieces))


class Turns:
    def __init__(self) -> None:
        self._periods: dict[Part, float] = {}
        self._ended: dict[Part, float] = {}
        self._rested: dict[Part, float] = {}

    def pace(self, settings: Mapping[str, Any]) -> None:
        """`settings`: FelixConfiguration's fields. One that is absent or no duration asks for nothing; 0, as with
        Calico, for no turns but those that something heard gives."""
        self._periods = {}
        for part, field in FIELDS.items():
            period = seconds(settings.get(field) or "")
            if period is not None:
                self._periods[part] = period or math.inf

    def due(self, part: Part, now: float, *, heard: bool = False) -> bool:
        if now < self._rested.get(part, -math.inf):
            return False
        return heard or now >= self._ended.get(part, -math.inf) + self._periods.get(part, 0.0)

    def took(self, part: Part, begun: float, ended: float) -> None:
        self._ended[part] = ended
        self._rested[part] = ended + min(SHARE * (ended - begun), LONGEST_REST_S)
