"""One route record as each node sees it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from bus_schemas.ids import NodeName
from bus_schemas.routes import Encapsulation, Route, Tunnel, vtep_mac_of
from services.node_dataplane.routes import BLACKHOLE, Peer, Row, Standpoint, convert, destination

HERE = Standpoint("eth0", ip_interface("10.0.0.15/24"), "vxlan.tortie")
NEAR, FAR = "10.0.0.16/24", "10.0.1.16/24"
ALWAYS, CROSS, NEVER = Encapsulation.ALWAYS, Encapsulation.CROSS_SUBNET, Encapsulation.NEVER


def record(
    address: str, encapsulation: Encapsulation = NEVER, *, node: str = "node2", vtep: str = "10.244.1.1"
) -> Route:
    return Route(
        cidr="10.244.1.0/26",
        node=NodeName(node),
        address=address,
        tunnel=Tunnel.NONE if encapsulation is NEVER else Tunnel.VXLAN,
        encapsulation=encapsulation,
        vtep=vtep,
        vtep_mac=vtep_mac_of(node),
    )


def row(route: Route, here: Standpoint | None = HERE) -> Row | None:
    return convert(route, NodeName("node1"), here).row


DIRECT = Row("eth0", ip_address("10.0.0.16").packed)
TUNNEL = Row("vxlan.tortie", ip_address("10.244.1.1").packed, onlink=True)


@pytest.mark.parametrize(
    ("address", "encapsulation", "expected"),
    [
        (NEAR, NEVER, DIRECT),
        (FAR, NEVER, None),
        (NEAR, CROSS, DIRECT),
        (FAR, CROSS, TUNNEL),
        (NEAR, ALWAYS, TUNNEL),
        (FAR, ALWAYS, TUNNEL),
        ("", ALWAYS, None),
    ],
)
def test_the_row_for_anothers_block(address: str, encapsulation: Encapsulation, expected: Row | None) -> None:
    assert row(record(address, encapsulation)) == expected


@pytest.mark.parametrize("encapsulation", [NEVER, CROSS, ALWAYS])
def test_our_own_block_is_a_blackhole(encapsulation: Encapsulation) -> None:
    assert row(record(NEAR, encapsulation, node="node1")) == BLACKHOLE


def test_an_address_we_borrow_is_the_pods_own_route() -> None:
    ours = Route(cidr="10.244.1.9/32", node=NodeName("node1"), borrowed=True)
    assert row(ours) is None


def test_no_vtep_yet_means_no_tunnel_route() -> None:
    assert row(record(FAR, ALWAYS, vtep="")) is None
    assert row(record(FAR, ALWAYS), Standpoint("eth0", HERE.network)) is None


def test_without_an_address_of_the_family_only_our_own_blocks_have_a_row() -> None:
    assert row(record(NEAR, ALWAYS), None) is None
    assert row(record(NEAR, ALWAYS, node="node1"), None) == BLACKHOLE


def test_a_peer_exists_only_where_the_tunnel_is_used() -> None:
    assert convert(record(NEAR, CROSS), NodeName("node1"), HERE).peer is None
    assert convert(record(FAR, CROSS), NodeName("node1"), HERE).peer == Peer(
        ip_address("10.244.1.1").packed, vtep_mac_of("node2"), ip_address("10.0.1.16").packed
    )


def test_mixed_families_are_a_fault() -> None:
    with pytest.raises(ValueError, match="family"):
        convert(record("fd00::2/64"), NodeName("node1"), HERE)


def test_destination_is_packed() -> None:
    assert destination("10.244.1.0/26") == (b"\x0a\xf4\x01\x00", 26)
