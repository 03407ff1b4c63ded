"""Ranges against sets of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.node_dataplane.nft.ranges import Claim, boxes, difference, disjoint, merged, of_cidrs, of_packed, spelled

ends = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair)))
some = st.lists(ends, max_size=5)


def numbers(ranges: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(some, some)
def test_difference(ranges: list[tuple[int, int]], without: list[tuple[int, int]]) -> None:
    assert numbers(difference(merged(ranges), merged(without))) == numbers(ranges) - numbers(without)


@given(st.lists(st.tuples(ends, st.sampled_from("abc")), max_size=8))
def test_the_first_claim_wins(claims: list[tuple[tuple[int, int], str]]) -> None:
    found = disjoint(claims)
    assert sum(last - first + 1 for (first, last), _ in found) == len(numbers([r for r, _ in found]))
    for number in range(32):
        wanted = next((verdict for (first, last), verdict in claims if first <= number <= last), None)
        assert next((verdict for (first, last), verdict in found if first <= number <= last), None) == wanted


claims = st.builds(Claim, st.lists(ends, max_size=2).map(merged), st.lists(ends, max_size=2), st.sampled_from("abc"))


@given(st.lists(claims, max_size=5))
def test_boxes(claims: list[Claim]) -> None:
    found = boxes(claims, 10_000)
    assert found is not None
    for address in range(0, 32, 3):
        for port in range(0, 32, 2):
            wanted = next(
                (
                    c.verdict
                    for c in claims
                    if address in numbers(list(c.ranges)) and (not c.ports or port in numbers(list(c.ports)))
                ),
                None,
            )
            here = [
                box.verdict
                for box in found
                if box.addresses[0] <= address <= box.addresses[1] and box.ports[0] <= port <= box.ports[1]
            ]
            assert here == ([] if wanted is None else [wanted])
    assert boxes([Claim([(1, 2)], (), "a")] * 3, 2) is None


def test_networks() -> None:
    assert of_cidrs(["10.0.0.0/24", "10.0.1.0/24", "fd00::/8", "0.0.0.7/32"], 4) == [
        (7, 7),
        (10 << 24, (10 << 24) + 511),
    ]
    assert of_packed([bytes((10, 0, 0, 0, 24)), bytes((10, 0, 0, 128, 25))]) == [(10 << 24, (10 << 24) + 255)]
    assert of_packed([bytes(5)]) == [(0, 0xFFFFFFFF)]
    assert spelled((10 << 24, (10 << 24) + 255), 4) == "10.0.0.0-10.0.0.255"
    assert spelled((1, 1), 6) == "::1"
