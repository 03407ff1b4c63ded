"""What chains and sets are called: derived from what they stand for, so a restart and every replica agree.

from_<h>, to_<h>        chain of a rule group: what its pods may send, what may be sent to them
from_<h>_<n>            its n-th tier, where a rule of the tier can pass to the next one
out_<h>, in_<h>         one policy's rules for what its pods send, receive
g4_<h>, g6_<h>          members of an address group; p4_, p6_ of a ports group
"""

from __future__ import annotations

from base64 import b32encode
from functools import lru_cache
from hashlib import sha256
from typing import Literal

import msgspec

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import Direction

TABLE = "tortie"
LINK_PREFIX = "tor"
"""Every pod link's name begins with it."""

Way = Literal["ingress", "egress"]
WAYS: tuple[Way, Way] = ("egress", "ingress")

_ENDPOINT = {"egress": "from_", "ingress": "to_"}
_POLICY = {"egress": "out_", "ingress": "in_"}


@lru_cache(maxsize=1 << 16)
def _digest(data: bytes) -> str:
    """130 bits in letters and digits: longer than any tenant can search a collision for."""
    return b32encode(sha256(data).digest())[:26].decode().lower()


def endpoint_chain(way: Way, direction: Direction) -> str:
    """By structure (which rules in which order), not by what the rules say today."""
    return _ENDPOINT[way] + _digest(msgspec.msgpack.encode(direction))


def tier_chain(endpoint_chain: str, tier: int) -> str:
    return f"{endpoint_chain}_{tier}"


def policy_chain(way: Way, rules: RulesId) -> str:
    return _POLICY[way] + _digest(rules.encode())


def address_set(group: GroupId, family: int) -> str:
    return f"g{family}_{_digest(group.encode())}"


def port_set(group: GroupId, family: int) -> str:
    return f"p{family}_{_digest(group.encode())}"
