"""The IP-in-IP driver against the real kernel, and packets through it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from services.node_dataplane.ipip import IpipSpec
from services.node_dataplane.ipip_device import ALIAS, KERNELS_MTU, IpipDevice
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.routes import Row, destination
from services.node_dataplane.routing import RouteTable
from tests.support.kernels import needs
from tests.support.netns import Namespace, namespaces, ping, veth, wait_for

pytestmark = [pytest.mark.root, needs("ipip")]


class Node:
    def __init__(self, namespace: Namespace, number: int) -> None:
        self.namespace = namespace
        self.address, self.vtep, self.block = f"10.0.0.{number}", f"10.244.{number}.1", f"10.244.{number}.0/24"
        self.socket = namespace.call(lambda: NetlinkSocket(NETLINK_ROUTE))
        self.tunnel = IpipDevice(self.socket)
        self.routes = RouteTable(self.socket, lambda name: self.device()["ifindex"] if self.device() else None)

    def reconcile(self, spec: IpipSpec | None, *others: Node) -> list[str]:
        self.tunnel.want(spec)
        changes = self.tunnel.reconcile()
        if "device" in changes or "last address" in changes:
            self.routes.device_changed("tunl0")
        for other in others:
            row = Row("tunl0", ip_address(other.address).packed, onlink=True)
            self.routes.want(destination(other.block), row if spec else None)
        self.routes.flush()
        return changes

    def use(self, *others: Node) -> list[str]:
        return self.reconcile(IpipSpec(1480, (self.vtep,)), *others)

    def device(self) -> dict[str, Any]:
        rows = json.loads(self.namespace.ip("-j", "-d", "address") or "[]")
        return next((row for row in rows if row.get("ifname") == "tunl0"), {})

    @property
    def addresses(self) -> list[str]:
        return [address["local"] for address in self.device()["addr_info"]]


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    with namespaces(2) as (left, right):
        veth(left, "up0", right, "up0", addresses=("10.0.0.1/24", "10.0.0.2/24"))
        made = Node(left, 1), Node(right, 2)
        yield made
        for node in made:
            node.socket.close()


def test_packets_cross_the_tunnel(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.use(right)
    right.use(left)
    wait_for(lambda: ping(left.namespace, right.vtep, wait_s=0.5), "the tunnel address is reached")
    (route,) = json.loads(left.namespace.ip("-j", "route", "show", right.block))
    assert (route["gateway"], route["dev"], route["flags"], route["protocol"]) == (
        "10.0.0.2",
        "tunl0",
        ["onlink"],
        "84",
    )


def test_the_kernels_own_device_is_used_and_a_restart_adopts_it(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    assert left.use(right)
    assert (left.device()["mtu"], left.device()["ifalias"], left.addresses) == (1480, ALIAS, [left.vtep])
    assert left.use(right) == []

    left.tunnel = IpipDevice(left.socket)
    assert left.tunnel.addresses() == (left.vtep,)
    assert left.use(right) == []


def test_what_is_not_wanted_any_more_is_as_the_kernel_made_it(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.use(right)
    left.reconcile(None, right)
    device = left.device()
    assert (device["mtu"], "UP" in device["flags"], left.addresses, device.get("ifalias")) == (
        KERNELS_MTU,
        False,
        [],
        None,
    )
    assert left.namespace.ip("route", "show", "proto", "84").strip() == ""
    assert left.reconcile(None, right) == []


@pytest.mark.parametrize(
    "damage",
    [
        ("link", "set", "tunl0", "down"),
        ("link", "set", "tunl0", "mtu", "1400"),
        ("address", "flush", "dev", "tunl0"),
        ("address", "add", "10.9.9.9/32", "dev", "tunl0"),
    ],
    ids=lambda damage: damage[-1],
)
def test_damage_is_mended(nodes: tuple[Node, Node], damage: tuple[str, ...]) -> None:
    left, right = nodes
    left.use(right)
    right.use(left)
    left.namespace.ip(*damage)
    assert left.use(right)
    left.routes.check()
    assert left.use(right) == []
    assert left.addresses == [left.vtep]
    wait_for(lambda: ping(left.namespace, right.vtep, wait_s=0.5), "the tunnel address is reached")


def test_somebody_elses_tunnel_is_left_alone_and_named(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.namespace.ip("link", "set", "tunl0", "up", "mtu", "1400")
    left.namespace.ip("address", "add", "192.168.7.1/32", "dev", "tunl0")
    assert left.use(right) == []
    (problem,) = left.tunnel.problems
    assert "somebody else's (192.168.7.1)" in problem
    left.reconcile(None)
    assert (left.device()["mtu"], left.addresses) == (1400, ["192.168.7.1"])
