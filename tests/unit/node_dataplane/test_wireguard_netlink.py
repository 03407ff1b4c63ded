"""WireGuard's requests, read back as the kernel would say them; the kernel itself has its say in tests/vm."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from services.node_dataplane.netlink import wireguard
from services.node_dataplane.netlink.framing import messages
from services.node_dataplane.netlink.wireguard import Peer

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


def bodies(*requests: bytes) -> list[bytes]:
    return [bytes(body) for _, _, _, body in messages(b"".join(requests))]


@pytest.mark.parametrize("address", ["10.0.0.16", "fd00::16"])
def test_a_peer_reads_back_as_it_was_set(address: str) -> None:
    packed = ip_address(address).packed
    networks = frozenset({(packed, 8 * len(packed)), (bytes(len(packed)), 16)})
    peer = Peer(KEY, packed, 51820, 25, networks)
    read = wireguard.device(bodies(*wireguard.peer_set(30, 7, peer, replace=True)))
    assert read.peers == {KEY: peer}


def test_a_peer_with_many_networks_is_set_and_read_in_pieces() -> None:
    networks = frozenset((number.to_bytes(4, "big"), 32) for number in range(2500))
    peer = Peer(KEY, b"", 0, 0, networks)
    requests = wireguard.peer_set(30, 7, peer, replace=True)
    assert len(requests) == 3
    assert all(len(request) < 1 << 16 for request in requests)
    other = wireguard.peer_set(30, 7, peer._replace(key=OTHER), replace=False)
    assert wireguard.device(bodies(*requests, *other)).peers[KEY].allowed == networks


def test_a_devices_key_and_port_read_back() -> None:
    read = wireguard.device(bodies(wireguard.device_set(30, 7, private_key=KEY, port=51821)))
    assert (read.private_key, read.port, read.peers) == (KEY, 51821, {})
