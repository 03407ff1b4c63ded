"""The WireGuard driver against the real kernel, and packets through it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from services.node_dataplane.errors import StoreError
from services.node_dataplane.netlink import wireguard as encoding
from services.node_dataplane.netlink.wire import NETLINK_GENERIC, NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.routes import Row
from services.node_dataplane.routing import RouteTable
from services.node_dataplane.wireguard import DEVICES, Allowed, WireguardPeer, WireguardSpec
from services.node_dataplane.wireguard_device import WireguardDevice
from services.node_dataplane.wireguard_key import clamped
from tests.support.kernels import needs
from tests.support.netns import Namespace, namespaces, ping, veth, wait_for

pytestmark = [pytest.mark.root, needs("wireguard")]

ADDRESS = {4: "10.0.0.{}", 6: "fd00::{}"}
OWN = {4: "10.244.{}.1", 6: "fd00:244:{}::1"}
BLOCK = {4: "10.244.{}.0/24", 6: "fd00:244:{}::/64"}


class Node:
    def __init__(self, namespace: Namespace, number: int, family: int) -> None:
        self.namespace, self.number, self.family = namespace, number, family
        self.key = clamped(bytes([number]) * 32)
        self.socket = namespace.call(lambda: NetlinkSocket(NETLINK_ROUTE))
        self.device = WireguardDevice(self.socket, DEVICES[family], lambda: self.key)
        self.routes = RouteTable(self.socket, lambda name: self.link()["ifindex"] if self.link() else None)
        self.own = OWN[family].format(number)
        self.spec = WireguardSpec(51820, 1420, addresses=(self.own,))

    def close(self) -> None:
        self.device.close()
        self.socket.close()

    def peer(self, *more: str) -> WireguardPeer:
        networks = (ip_network(cidr) for cidr in (BLOCK[self.family].format(self.number), *more))
        allowed = frozenset(Allowed(network.network_address.packed, network.prefixlen) for network in networks)
        endpoint = ip_address(ADDRESS[self.family].format(self.number)).packed
        return WireguardPeer(self.device.public_key, endpoint, self.spec.port, allowed)

    def reconcile(self, spec: WireguardSpec | None, *peers: WireguardPeer, read_back: bool = False) -> list[str]:
        self.device.want(spec, peers)
        changes: list[str] = self.namespace.call(lambda: self.device.reconcile(read_back=read_back))
        if "device" in changes:
            self.routes.device_changed(self.device.device)
        for peer in peers:
            for allowed in peer.allowed:
                self.routes.want((allowed.packed, allowed.prefix), Row(self.device.device))
        self.routes.flush()
        return changes

    def link(self) -> dict[str, Any]:
        rows = json.loads(self.namespace.ip("-j", "-d", "address") or "[]")
        return next((row for row in rows if row.get("ifname") == self.device.device), {})

    def held(self) -> encoding.Device:
        """What the kernel says."""
        with self.namespace.call(lambda: NetlinkSocket(NETLINK_GENERIC)) as generic:
            row = generic.get(encoding.family_request())
            assert row is not None
            dump = encoding.device_dump(encoding.family(row[1]), self.link()["ifindex"])
            return encoding.device(body for _, body in generic.dump(dump))


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def nodes(request: pytest.FixtureRequest) -> Iterator[tuple[Node, Node]]:
    family = request.param
    with namespaces(2) as (left, right):
        mask = 24 if family == 4 else 64
        ends = (f"{ADDRESS[family].format(1)}/{mask}", f"{ADDRESS[family].format(2)}/{mask}")
        veth(left, "up0", right, "up0", addresses=ends)
        made = Node(left, 1, family), Node(right, 2, family)
        for node in made:
            node.reconcile(node.spec)
        yield made
        for node in made:
            node.close()


def test_packets_cross_encrypted(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.reconcile(left.spec, right.peer())
    right.reconcile(right.spec, left.peer())
    wait_for(lambda: ping(left.namespace, right.own, wait_s=0.5), "the other end is reached", 15)
    assert left.held().peers[right.device.public_key].handshake > 0
    (route,) = json.loads(
        left.namespace.ip("-j", "route", "show", "proto", "84", "dev", left.device.device) or "[]"
    ) or [*json.loads(left.namespace.ip("-j", "-6", "route", "show", "proto", "84", "dev", left.device.device))]
    assert route["dst"] == str(ip_network(BLOCK[left.family].format(2)))


def test_a_peer_may_send_only_from_its_own_addresses(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.reconcile(left.spec, right.peer())
    right.reconcile(right.spec, left.peer())
    wait_for(lambda: ping(left.namespace, right.own, wait_s=0.5), "the other end is reached", 15)
    stranger = "10.99.0.1" if left.family == 4 else "fd99::1"
    left.namespace.ip("address", "add", f"{stranger}/{32 if left.family == 4 else 128}", "dev", "lo")
    right.namespace.ip("route", "add", stranger, "dev", right.device.device)
    assert not ping(left.namespace, right.own, source=stranger, wait_s=0.5)


def test_the_kernel_has_the_key_the_port_and_the_peers(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    more = "10.244.77.5/32" if left.family == 4 else "fd00:244:77::5/128"
    peer = right.peer(more)
    assert left.reconcile(replace(left.spec, keep_alive_s=25), peer) == ["peer"]
    held = left.held()
    assert (held.private_key, held.port) == (left.key, 51820)
    (got,) = held.peers.values()
    assert (got.key, got.endpoint, got.port, got.keep_alive_s, got.allowed) == (
        *peer[:3],
        25,
        {(a.packed, a.prefix) for a in peer.allowed},
    )
    assert left.reconcile(replace(left.spec, keep_alive_s=25), peer, read_back=True) == []
    assert left.reconcile(replace(left.spec, keep_alive_s=25), right.peer()) == ["peer"]
    assert left.held().peers[peer.key].allowed == {(a.packed, a.prefix) for a in right.peer().allowed}
    assert left.reconcile(left.spec) == ["peer"]
    assert left.held().peers == {}


def test_a_restart_adopts_what_is_there(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.reconcile(left.spec, right.peer())
    index, key = left.link()["ifindex"], left.device.public_key

    left.device.close()
    left.device = WireguardDevice(left.socket, DEVICES[left.family], lambda: left.key)
    left.namespace.call(left.device.adopt)
    assert left.device.public_key == key
    assert left.device.addresses() == (left.own,)
    assert left.reconcile(left.spec, right.peer()) == []
    assert left.link()["ifindex"] == index


def test_a_new_key_and_port_replace_the_old_ones(nodes: tuple[Node, Node]) -> None:
    left, _ = nodes
    before = left.device.public_key
    left.key = clamped(bytes([9]) * 32)
    assert left.reconcile(replace(left.spec, port=51999), read_back=True) == ["key"]
    assert left.device.public_key != before
    assert (left.held().private_key, left.held().port) == (left.key, 51999)


def test_a_deleted_device_comes_back_with_its_key(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.reconcile(left.spec, right.peer())
    right.reconcile(right.spec, left.peer())
    before = left.device.public_key
    left.namespace.ip("link", "delete", left.device.device)
    assert "device" in left.reconcile(left.spec, right.peer(), read_back=True)
    assert left.device.public_key == before
    wait_for(lambda: ping(left.namespace, right.own, wait_s=0.5), "the other end is reached", 15)


def test_without_a_key_there_is_no_tunnel(nodes: tuple[Node, Node]) -> None:
    left, _ = nodes

    def unreadable() -> bytes:
        raise StoreError("cannot read the key")

    left.reconcile(None)
    left.device.close()
    left.device = WireguardDevice(left.socket, DEVICES[left.family], unreadable)
    left.reconcile(left.spec)
    assert left.device.public_key == b""
    assert left.device.problems == [f"{left.device.device}: cannot read the key"]
    left.reconcile(None)
    assert not left.link()
