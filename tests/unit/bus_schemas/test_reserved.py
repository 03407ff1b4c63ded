"""Reservations as spans, against the obvious way to ask."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.reserved import Reserved
from bus_schemas.resources import IPReservation, Metadata
from bus_schemas.resources.pools import IPReservationSpec

NETWORKS = st.builds(
    lambda number, prefix: str(ip_network((0x0A000000 + number, prefix), strict=False)),
    st.integers(0, 255),
    st.integers(26, 32),
)


def reserved(*cidrs: str) -> Reserved:
    one = IPReservation(metadata=Metadata(name="r"), spec=IPReservationSpec(reserved_cidrs=cidrs))
    return Reserved([one])


@given(st.lists(NETWORKS, max_size=12), NETWORKS)
def test_against_every_single_address(cidrs: list[str], asked: str) -> None:
    index = reserved(*cidrs)
    naive = {int(address) for cidr in cidrs for address in ip_network(cidr)}
    inside = [int(address) for address in ip_network(asked)]
    assert index.count(asked) == len(naive.intersection(inside))
    assert [number for number in inside if (4, number) in index] == [n for n in inside if n in naive]
    end = index.end(4, inside[0], inside[-1])
    assert (end is not None) == naive.issuperset(inside)
    if end is not None:
        assert end in naive
        assert end + 1 not in naive
        assert end >= inside[-1]
    assert bool(index) == bool(cidrs)


@pytest.mark.parametrize(
    ("cidrs", "asked", "count"),
    [
        ((), "10.0.0.0/8", 0),
        (("10.0.0.0/8",), "10.1.2.0/26", 64),
        (("10.0.0.0/8", "10.0.0.0/9", "10.3.0.7"), "0.0.0.0/0", 1 << 24),
        (("10.0.0.1", "10.0.0.3", "10.0.0.4/30"), "10.0.0.0/29", 6),
        (("fd00::/64",), "fd00::40/122", 64),
        (("fd00::/64",), "fd00::/48", 1 << 64),
        (("fd00::/64",), "10.0.0.0/8", 0),
        (("255.255.255.255", "0.0.0.0"), "0.0.0.0/0", 2),
    ],
)
def test_counts(cidrs: tuple[str, ...], asked: str, count: int) -> None:
    assert reserved(*cidrs).count(asked) == count


def test_what_is_no_network_is_named_and_the_rest_counts() -> None:
    index = reserved("10.0.0.0/30", "nonsense")
    assert [("nonsense" in fault, fault.startswith("IPReservation r: ")) for fault in index.faults] == [(True, True)]
    assert (4, int(ip_address("10.0.0.3"))) in index
