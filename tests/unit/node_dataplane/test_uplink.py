"""Which device leads to the other nodes."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from services.node_dataplane.errors import UplinkError
from services.node_dataplane.uplink import Interface, choose

MANAGEMENT = Interface("mgmt", 1500, (ip_interface("192.168.1.5/24"),), frozenset({4}))
FABRIC = Interface("eth1", 9000, (ip_interface("10.0.0.15/24"), ip_interface("fd00::15/64")))
BOTH = [MANAGEMENT, FABRIC]


def test_the_device_that_carries_the_nodes_address() -> None:
    found = choose(BOTH, 4, address="10.0.0.15/24")
    assert found is not None
    assert (found.device, found.mtu, str(found.network)) == ("eth1", 9000, "10.0.0.15/24")


def test_without_a_subnet_the_kernels_is_taken() -> None:
    found = choose(BOTH, 4, address="10.0.0.15/32")
    assert found is not None
    assert str(found.network) == "10.0.0.15/24"


def test_without_an_address_the_default_route_decides() -> None:
    found = choose(BOTH, 4)
    assert found is not None
    assert found.device == "mgmt"


def test_the_operator_has_the_last_word() -> None:
    found = choose(BOTH, 4, device="eth1")
    assert found is not None
    assert found.device == "eth1"


def test_no_address_of_the_family_is_no_uplink() -> None:
    assert choose([MANAGEMENT], 6) is None


@pytest.mark.parametrize(
    ("address", "device", "text"),
    [
        ("10.9.9.9/24", "", "no device carries the node's address 10.9.9.9"),
        ("10.0.0.15/24", "mgmt", "the device mgmt does not carry the node's address 10.0.0.15"),
    ],
)
def test_what_was_asked_for_and_is_not_there(address: str, device: str, text: str) -> None:
    with pytest.raises(UplinkError, match=text):
        choose(BOTH, 4, address=address, device=device)
