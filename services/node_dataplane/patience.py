"""How long to wait for the address service, and for how long to leave it alone: longer every time.

A request that is asked again while the first still waits is work that serves nobody. When thousands of nodes do that at
a fixed interval, a service that is behind by more than the interval never catches up: it answers those who have gone.
So whoever had no answer waits twice as long for the next, and no two nodes ask again at the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

REQUEST_S, LONGEST_REQUEST_S = 5.0, 40.0
RETRY_S, LONGEST_RETRY_S = 0.2, 2.0


class Turn(NamedTuple):
    request_s: float
    """How long to wait for the answer."""
    pause_s: float
    """How long to pause when it is `busy`, or there is none."""


def turns(dice: random.Random | None = None) -> Iterator[Turn]:
    """Endless."""
    dice = dice or random.Random()
    request_s, retry_s = REQUEST_S, RETRY_S
    while True:
        yield Turn(request_s, retry_s * dice.uniform(0.5, 1.5))
        request_s, retry_s = min(2 * request_s, LONGEST_REQUEST_S), min(2 * retry_s, LONGEST_RETRY_S)
