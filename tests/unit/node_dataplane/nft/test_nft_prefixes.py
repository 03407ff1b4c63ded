"""Prefixes of few lengths against sets of numbers."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.node_dataplane.nft.prefixes import few, prefixes, split
from services.node_dataplane.nft.ranges import difference, of_cidrs

BITS = 6
ends = st.tuples(st.integers(0, 63), st.integers(0, 63)).map(lambda pair: (min(pair), max(pair)))


@given(ends)
def test_prefixes_cover_just_the_range(addresses: tuple[int, int]) -> None:
    covered = [
        address for first, length in prefixes(addresses, BITS) for address in range(first, first + (1 << BITS - length))
    ]
    assert covered == list(range(addresses[0], addresses[1] + 1))
    assert all(first % (1 << BITS - length) == 0 and length for first, length in prefixes(addresses, BITS))


@given(ends, st.integers(1, BITS))
def test_splitting_covers_the_same(addresses: tuple[int, int], to: int) -> None:
    for first, length in prefixes(addresses, BITS):
        if length <= to:
            parts = list(split(first, length, to, BITS))
            assert parts == list(range(first, first + (1 << BITS - length), 1 << BITS - to))


@given(st.dictionaries(st.integers(1, 32), st.integers(1, 50), min_size=1, max_size=12), st.integers(0, 5000))
def test_few_lengths_within_the_room(rows: dict[int, int], room: int) -> None:
    to = few(rows, room, 4)
    if to is None:
        return
    assert to.keys() == rows.keys()
    assert all(length <= longer for length, longer in to.items())
    assert len(set(to.values())) <= 4
    assert sum(number << to[length] - length for length, number in rows.items()) <= room


def test_as_few_as_there_is_room_for() -> None:
    assert few({24: 5}, 5) == {24: 24}
    assert few({24: 5}, 4) is None
    assert few({25: 5, 26: 5}, 15) == {25: 26, 26: 26}
    assert few({25: 5, 26: 5}, 14) == {25: 25, 26: 26}
    assert few({8: 1, 24: 1, 32: 1}, 10, 2) is None


def test_the_internet_without_private_networks_is_two_lookups() -> None:
    private = of_cidrs(("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), 4)
    found = Counter(
        length for addresses in difference([(0, 2**32 - 1)], private) for _, length in prefixes(addresses, 32)
    )
    to = few(found, 1024 + 2 * found.total())
    assert to is not None
    assert sorted(set(to.values())) == [9, 16]
