"""What a request for addresses comes down to: a Take or a Claim for each of them, or the answer why there is none."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.ipam import Busy, PoolExhausted, Refused
from services.ipam.cidr import Cidr


class Source(Enum):
    OWN = auto()
    CREATE = auto()
    ADOPT = auto()
    BORROW = auto()


class Take(NamedTuple):
    """One address out of a block; `ordinal` None: the one that was free longest."""

    cidr: Cidr
    source: Source
    pool: str
    ordinal: int | None = None


class Claim(NamedTuple):
    """The node's intent to have a block; `evicted` is the node whose empty block it is now."""

    cidr: Cidr
    evicted: NodeName | None = None


Plan = Take | Claim | PoolExhausted | Refused | Busy
