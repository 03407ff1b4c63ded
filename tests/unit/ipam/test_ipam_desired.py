"""Which pool an address is part of, beside the slow and obvious answer."""

from __future__ import annotations

import random

from services.ipam.cidr import Address, Cidr
from services.ipam.desired import Desired
from tests.support.ipam import pool, without

POOLS = [
    *(pool(f"a{i}", cidr, block_size=30) for i, cidr in enumerate(("10.0.0.0/24", "10.0.0.0/26", "10.0.0.64/26"))),
    *(pool(f"same{i}", "10.0.0.128/25", block_size=30) for i in range(2)),
    pool("six", "fd00::/120", block_size=126),
    pool("whole", "0.0.0.0/0"),
]


def test_the_narrowest_pool_around_it() -> None:
    dice, desired = random.Random(7), Desired()
    for _ in range(300):
        fact = dice.choice(POOLS)
        desired.apply_pool(fact if dice.random() < 0.7 else without(fact))
        family, start, width = dice.choice([(4, 10 << 24, 32), (6, 0xFD << 120, 128)])
        prefix = dice.choice([width, width - 2, width - 7, width - 8, width - 9])
        first = start + dice.randrange(512) >> (width - prefix) << (width - prefix)
        inside = Address(family, first) if prefix == width else Cidr(family, first, prefix)
        holders = [one for one in desired.pools.values() if one.cidr.holds(inside)]
        narrowest = max(holders, key=lambda one: (one.cidr.prefix, one.name), default=None)
        assert desired.pool_of(inside) == narrowest
