"""The shortcuts that routes take by the thousand say what the general way says."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.node_dataplane.netlink import rtnl
from services.node_dataplane.routes import Destination, destination

packed = st.binary(min_size=4, max_size=4)


@given(packed, st.integers(1, 32), st.integers(1, 2**31 - 1), packed, st.booleans(), st.sampled_from(("new", "put")))
def test_a_route_by_a_gateway(to: bytes, prefix: int, index: int, via: bytes, onlink: bool, presence: str) -> None:
    whole = rtnl.route(
        to,
        prefix,
        index=index,
        gateway=via,
        onlink=onlink,
        presence=presence,  # type: ignore[arg-type]
        acknowledge=False,
    )
    assert rtnl.route_via(to, prefix, index, via, onlink=onlink, presence=presence) == whole  # type: ignore[arg-type]


def by_ipaddress(cidr: str) -> Destination | None:
    try:
        network = ip_network(cidr)
    except ValueError:
        return None
    return network.network_address.packed, network.prefixlen


def by_us(cidr: str) -> Destination | None:
    try:
        return destination(cidr)
    except ValueError:
        return None


@given(st.ip_addresses(v=4), st.integers(0, 33))
def test_destinations(address: object, prefix: int) -> None:
    assert by_us(f"{address}/{prefix}") == by_ipaddress(f"{address}/{prefix}")


@pytest.mark.parametrize(
    "cidr",
    [
        *(
            "10.0.0.0/8",
            "10.0.0.1/8",
            "10.0.0.0/08",
            "010.0.0.0/8",
            "10.0.0/8",
            "10.0.0.256/32",
            "10.0.0.1",
            "0.0.0.0/0",
        ),
        *(
            "+1.0.0.0/8",
            " 10.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/",
            "fd00::/64",
            "fd00::1/64",
            "\u0661.0.0.0/8",
            "",
        ),
    ],
)
def test_odd_destinations(cidr: str) -> None:
    assert by_us(cidr) == by_ipaddress(cidr)
