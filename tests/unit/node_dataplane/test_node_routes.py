"""One route record as each node sees it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import msgspec
import pytest

from bus_schemas.ids import NodeName
from bus_schemas.routes import Encapsulation, Route, Tunnel, WireguardEnd, vtep_mac_of
from services.node_dataplane.routes import BLACKHOLE, Peer, Row, Secured, Standpoint, convert, destination

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


THROUGH = Standpoint("eth0", ip_interface("10.0.0.15/24"), ipip="tunl0")


@pytest.mark.parametrize(
    ("address", "encapsulation", "expected"),
    [
        (NEAR, NEVER, DIRECT),
        (NEAR, CROSS, DIRECT),
        (FAR, CROSS, Row("tunl0", ip_address("10.0.1.16").packed, onlink=True)),
        (NEAR, ALWAYS, Row("tunl0", ip_address("10.0.0.16").packed, onlink=True)),
    ],
)
def test_ip_in_ip_leads_to_the_owners_own_address(address: str, encapsulation: Encapsulation, expected: Row) -> None:
    route = msgspec.structs.replace(record(address, encapsulation, vtep=""), tunnel=Tunnel.IPIP, vtep_mac="")
    assert row(route, THROUGH) == expected
    assert row(route, HERE) == (expected if expected == DIRECT else None)


KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SECURE = Standpoint("eth0", ip_interface("10.0.0.15/24"), "vxlan.tortie", wireguard="wg.tortie")


@pytest.mark.parametrize("address", [NEAR, FAR])
@pytest.mark.parametrize("encapsulation", [NEVER, CROSS, ALWAYS])
def test_who_has_a_key_is_encrypted_for_whatever_the_tunnel(address: str, encapsulation: Encapsulation) -> None:
    end = WireguardEnd(key=KEY, port=51820)
    route = msgspec.structs.replace(record(address, encapsulation), wireguard=end)
    found = convert(route, NodeName("node1"), SECURE)
    owner = ip_address(address.partition("/")[0]).packed
    assert (found.row, found.peer, found.bare) == (Row("wg.tortie"), None, False)
    assert found.secured == Secured(bytes(range(32)), owner, 51820)
    assert convert(route, NodeName("node1"), HERE) == convert(record(address, encapsulation), NodeName("node1"), HERE)


def test_who_has_no_key_is_reached_without_and_named() -> None:
    found = convert(record(NEAR), NodeName("node1"), SECURE)
    assert (found.row, found.bare, found.node) == (DIRECT, True, "node2")


@pytest.mark.parametrize("key", ["", "nonsense", "AAAA", KEY[:-1]])
def test_what_is_no_key_is_refused(key: str) -> None:
    route = msgspec.structs.replace(record(NEAR), wireguard=WireguardEnd(key=key, port=51820))
    with pytest.raises(ValueError, match="WireGuard key"):
        convert(route, NodeName("node1"), SECURE)


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
